"""Two environments compared: versions, machine, compiler."""

from __future__ import annotations

import re
from collections.abc import Mapping

from compiler_daemon.insight.explain.difference import Difference

_PLAIN = {
    "triton": ("environment", "triton"),
    "libc": ("system", "C library"),
    "system": ("system", "system"),
    "compiler": ("compiler", "C++ compiler"),
    "toolkit": ("gpu", "GPU toolkit"),
    "driver": ("gpu", "GPU driver"),
    "gpu": ("gpu", "GPU"),
}
_PYTHON = re.compile(r"([a-z]+)-([0-9])([0-9]+)-(.*)", re.DOTALL)
_MAX_FLAGS = 8
_MAX_TEXT = 100
_COST = 2.0


def environment_differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[Difference]:
    """Return in what two environments differ; a field that only follows from another one is left out."""
    found: list[Difference] = []
    for name in sorted(set(ours) | set(theirs)):
        mine, other = ours.get(name, ""), theirs.get(name, "")
        if mine == other:
            continue
        if difference := _field(name, mine, other, ours, theirs):
            found.append(difference)
    return found


def _field(name: str, mine: str, other: str, ours: Mapping[str, str], theirs: Mapping[str, str]) -> Difference | None:
    match name:
        case "torch":
            return _made("torch", f"torch {_versions(mine, other)}")
        case "torch_key":
            if ours.get("torch") != theirs.get("torch"):
                return None
            return _made("torch", f"another build of torch {_short(ours.get('torch', ''))}: its sources differ")
        case "python":
            return _made("python", _python(mine, other))
        case "cpu_flags":
            return _made("cpu", _cpu(mine, other))
        case "cpu_capability":
            if ours.get("cpu_flags") != theirs.get("cpu_flags"):
                return None
            return _made("cpu", f"torch uses {_short(mine)} of this CPU, was {_short(other)}")
        case _ if name in _PLAIN:
            kind, word = _PLAIN[name]
            return _made(kind, f"{word} {_short(mine) or 'none'}, was {_short(other) or 'none'}")
        case _:
            return _made("environment", f"{_short(name)} {_short(mine) or 'none'}, was {_short(other) or 'none'}")


def _made(kind: str, text: str) -> Difference:
    return Difference(kind=kind, text=text, cost=_COST)


def _versions(mine: str, other: str) -> str:
    first, _, build = mine.partition("+")
    second, _, other_build = other.partition("+")
    if first != second and build == other_build:
        return f"{_short(first)}, was {_short(second)}"
    return f"{_short(mine) or 'none'}, was {_short(other) or 'none'}"


def _python(mine: str, other: str) -> str:
    a, b = _PYTHON.fullmatch(mine), _PYTHON.fullmatch(other)
    if a and b and a[1] == b[1] and (a[2], a[3]) != (b[2], b[3]):
        return f"python {a[2]}.{a[3]}, was {b[2]}.{b[3]}"
    return f"python {_short(mine)}, was {_short(other)}"


def _cpu(mine: str, other: str) -> str:
    model, _, text = mine.partition(": ")
    other_model, _, other_text = other.partition(": ")
    flags, others = set(text.split()), set(other_text.split())
    parts = []
    if model != other_model:
        parts.append(f"CPU model {_short(model) or 'unknown'}, was {_short(other_model) or 'unknown'}")
    if more := flags - others:
        parts.append(f"CPU flags {_some(more)} that the other has not")
    if fewer := others - flags:
        parts.append(f"CPU flags {_some(fewer)} missing here")
    return "; ".join(parts) or "CPU flags differ"


def _some(flags: set[str]) -> str:
    listed = sorted(flags)
    return " ".join(listed[:_MAX_FLAGS])[:_MAX_TEXT] + (
        f" and {len(listed) - _MAX_FLAGS} more" if len(listed) > _MAX_FLAGS else ""
    )


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 3]}..."
