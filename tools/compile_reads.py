"""What the installed torch reads while it compiles, outside of its key: variables, and other parts' settings.

    python tools/compile_reads.py            what nobody has sorted yet; exit code 1 where there is something
    python tools/compile_reads.py --all      everything that was found, with the files

Found in torch's sources by their syntax trees. Sorted by hand in `compile_torch.key.compile_reads`; the switches
of `torch._C` and `torch.backends` are found by running torch (`compile_torch.key.switches`).
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

_COMPILER = ("_inductor", "_functorch", "fx", "_higher_order_ops", "_library", "_subclasses", "_decomp", "_refs")
_READ = {"os.environ.get", "os.getenv", "environ.get", "getenv"}
_DYNAMO = ("torch._dynamo.config.", "dynamo_config.")


def found_variables() -> dict[str, set[str]]:
    """Return the environment variables that functions of torch's compiler read by a literal name, with their files.

    What a module reads when it is imported is left out if it is a configuration module: that is a setting, in the key.
    """
    return _found(_variables, ("environ", "getenv"))


def found_settings() -> dict[str, set[str]]:
    """Return dynamo's settings that torch's compiler reads after dynamo, with the files."""
    return _found(_settings, _DYNAMO)


def _found(names_in: Callable[[ast.AST], Iterator[str]], words: tuple[str, ...]) -> dict[str, set[str]]:
    """Look through the files in which one of the words stands."""
    root = _torch()
    found: dict[str, set[str]] = {}
    for folder in _COMPILER:
        for path in sorted((root / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            for name in names_in(ast.parse(text)) if any(word in text for word in words) else ():
                found.setdefault(name, set()).add(str(path.relative_to(root)))
    return found


def _torch() -> Path:
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _variables(tree: ast.AST) -> Iterator[str]:
    functions = [
        node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    ]
    inside = {id(node): node for function in functions for node in ast.iter_child_nodes(function)}
    waiting = list(inside.values())
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue  # a function inside of a function
        seen.add(id(node))
        waiting.extend(ast.iter_child_nodes(node))
        name: ast.expr | None = None
        if isinstance(node, ast.Call) and node.args and _dotted(node.func) in _READ:
            name = node.args[0]
        elif isinstance(node, ast.Subscript) and _dotted(node.value) == "os.environ":
            name = node.slice
        elif isinstance(node, ast.Compare) and any(_dotted(to) == "os.environ" for to in node.comparators):
            name = node.left
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            yield name.value


def _settings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            text = _dotted(node)
            for prefix in _DYNAMO:
                if text.startswith(prefix):
                    yield text.removeprefix(prefix).partition(".")[0]


def _dotted(node: ast.expr) -> str:
    """Return a name with its attributes, as `a.b.c`; nothing for what is more than that."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := _dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def unsorted_reads() -> list[str]:
    """Return in words what is found and not sorted."""
    from compile_torch.key import compile_reads as known

    variables = set(found_variables()) - known.VARIABLES - set(known.VARIABLES_WITHOUT_EFFECT)
    settings = set(found_settings()) - known.DYNAMO_SETTINGS - set(known.DYNAMO_SETTINGS_WITHOUT_EFFECT)
    settings -= {"patch"}
    return [f"variable {name}" for name in sorted(variables)] + [
        f"dynamo's setting {name}" for name in sorted(settings)
    ]


def main() -> int:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="everything, with the files")
    if parser.parse_args().all:
        for name, files in sorted({**found_variables(), **found_settings()}.items()):
            print(f"{name}: {', '.join(sorted(files)[:4])}")
        return 0
    left = unsorted_reads()
    print("\n".join(left) or "nothing is left to sort")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
