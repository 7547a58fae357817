from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ARROWS = (REPOSITORY / "ARCHITECTURE.md").read_text().split("## Arrows")[1]
ROOMS = (REPOSITORY / "ARCHITECTURE.md").read_text().split("## Rooms")[1].split("## Arrows")[0]
PACKAGES = ("compile_client", "compiler_daemon", "proto/compile_torch", "proto/compile_wire")


def folders() -> set[str]:
    files = [file for package in PACKAGES for file in (REPOSITORY / package).rglob("*.py")]
    return {str(file.parent.relative_to(REPOSITORY)) for file in files}


def drawn() -> set[str]:
    """Return the folders in the drawing, where each has a line that is two spaces deeper than that of its parent."""
    found: set[str] = set()
    above: list[str] = []
    for line in ROOMS.splitlines():
        if match := re.match(r"( *)([\w/]+)/ ", line):
            above = [*above[: len(match[1]) // 2], match[2]]
            found.add("/".join(above))
    return {path for path in found if path.startswith(PACKAGES)}


def test_every_folder_has_its_line_in_the_drawing_and_every_line_its_folder() -> None:
    assert drawn() == folders()


def test_the_drawing_is_looked_at_folder_by_folder() -> None:
    assert len(folders()) > 30


def test_a_folder_with_many_entries_has_its_reason() -> None:
    reasons = ARROWS.split("A folder has about a dozen entries.")[1].split("\n\n")[0]
    packages = ("compiler_daemon", "compile_client", "proto", "diffusion", "benches", "tools")
    for folder in {file.parent for package in packages for file in (REPOSITORY / package).rglob("*.py")}:
        entries = {entry.name for entry in folder.iterdir()} - {"__init__.py", "__main__.py", "__pycache__"}
        name = str(folder.relative_to(REPOSITORY)).removeprefix("proto/")
        if len(entries) > 14:
            assert re.search(rf"`{name}/?`", reasons), f"{name} has {len(entries)} entries and no reason"
