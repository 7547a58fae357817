from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ROOMS = (REPOSITORY / "ARCHITECTURE.md").read_text().split("## Rooms")[1].split("## Arrows")[0]
PACKAGES = ("compile_client", "compiler_daemon", "proto/compile_wire")


def modules() -> list[str]:
    found = []
    for package in PACKAGES:
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            parts = file.relative_to(REPOSITORY / package).parts
            # The verbs are named as a group, and so are services and stubs.
            if (
                parts[0] not in {"v1", "cli", "__pycache__"}
                and file.name != "__init__.py"
                and "_service" not in file.name
            ):
                found.append(str(file.relative_to(REPOSITORY)))
    return found


@pytest.mark.parametrize("module", modules())
def test_every_module_has_its_line_in_the_drawing(module: str) -> None:
    name = Path(module).stem

    assert re.search(rf"(?<![A-Za-z]){re.escape(name)}(?![A-Za-z_])", ROOMS), module


def test_the_drawing_is_looked_at_module_by_module() -> None:
    assert len(modules()) > 150
