"""The private names of torch's C++ half that this project uses, and which of them the installed torch lacks.

    python tools/torch_names.py            what is missing; exit code 1 where something is
    python tools/torch_names.py --all      every name, with the files that use it

Found in the project's own syntax trees: `torch._C` and what is read from it, also by way of a variable that stands for
it, and a name that is given as text beside it (`asked(torch._C._functorch, "get_...")`). Names of graphs' functions
that stand in tables are looked up there by their text, and may be missing: no graph of that torch has them.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_PACKAGES = ("compile_client", "compiler_daemon", "proto/compile_torch", "proto/compile_wire")
_HOME = "torch._C"


def used_names() -> dict[str, set[str]]:
    """Return the names below `torch._C` that the packages use, each with its files."""
    found: dict[str, set[str]] = {}
    for package in _PACKAGES:
        for file in sorted((_ROOT / package).rglob("*.py")):
            text = file.read_text()
            if _HOME in text or "from torch import _C" in text:
                for name in names_in(text):
                    found.setdefault(name, set()).add(str(file.relative_to(_ROOT)))
    return found


def names_in(text: str) -> set[str]:
    """Return the names below `torch._C` that a module of Python uses."""
    tree = ast.parse(text)
    stands_for = dict(_variables(tree))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add(_path(node, stands_for))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(_HOME):
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Call) and len(node.args) >= 2:
            home, name = _path(node.args[0], stands_for), node.args[1]
            if home.startswith(_HOME) and isinstance(name, ast.Constant) and str(name.value).isidentifier():
                found.add(f"{home}.{name.value}")
    return {name for name in found if name.startswith(f"{_HOME}.")}


def missing_names() -> dict[str, set[str]]:
    """Return those that the installed torch does not have."""
    return {name: files for name, files in used_names().items() if not is_there(name)}


def is_there(name: str) -> bool:
    """Whether the installed torch has this name."""
    import torch

    found: object = torch
    for part in name.split(".")[1:]:
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def _variables(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the variables that stand for `torch._C` or a part of it, with what they stand for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "torch":
            yield from ((name.asname or name.name, _HOME) for name in node.names if name.name == "_C")
        if isinstance(node, ast.Assign) and (path := _path(node.value, {})).startswith(_HOME):
            yield from ((target.id, path) for target in node.targets if isinstance(target, ast.Name))


def _path(node: ast.AST, stands_for: dict[str, str]) -> str:
    """Return a dotted name as it is written, with what its first part stands for; nothing where it is none."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([stands_for.get(node.id, node.id), *reversed(parts)])


def main() -> int:
    """Print what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(description="Private names of torch's that this project uses.")
    parser.add_argument("--all", action="store_true", help="every name, not only what is missing")
    options = parser.parse_args()
    missing = missing_names()
    for name, files in sorted((used_names() if options.all else missing).items()):
        print(f"{name}{' (missing)' if name in missing else ''}: {', '.join(sorted(files))}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
