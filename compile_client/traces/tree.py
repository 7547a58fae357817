"""torch's tree of guards as lines that two processes can compare, and two trees of one process."""

from __future__ import annotations

import re
from typing import Any

from compile_client.traces.errors import NotSkippedError

_NUMBER = re.compile(r"(?<![\w.])\d{6,}(?![\w.])")
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
_COMMENT = re.compile(r"\s+# .*$| \(HINT: .*\)$")


def text(manager: Any, found: dict[int, str], names: dict[str, str]) -> list[str]:
    """Return torch's tree of guards, line by line, with names for identities and stand-ins for dynamo's globals.

    `found` has the names by `id`; `names` what stands for each global. Raises `NotSkippedError` where an identity is
    left over: it would be another in each process.
    """

    def name(match: re.Match[str]) -> str:
        return f"<{found[int(match[0])]}>" if int(match[0]) in found else match[0]

    lines = []
    for line in str(manager).splitlines():
        said = _NUMBER.sub(name, line)
        for known, stand_in in names.items():
            said = said.replace(known, stand_in)
        if re.search(r"_(?:id|type)\(.*?, \d+\)", said) or _ADDRESS.search(said):
            raise NotSkippedError("identity", f"a guard is on an object without a name: {said.strip(' |+-')[:200]}")
        lines.append(said.rstrip())
    return _ordered(lines)


def _ordered(lines: list[str]) -> list[str]:
    """Sort the branches of the globals: torch orders guards by the length of their names, also of dynamo's own."""
    top = next((number for number, line in enumerate(lines) if "source=G, accessed_by=" in line), None)
    if top is None:
        return lines
    depth = lines[top].index("+-")
    end = next((n for n in range(top + 1, len(lines)) if _depth(lines[n]) <= depth), len(lines))
    branches: list[list[str]] = [[]]
    for line in lines[top + 1 : end]:
        if _depth(line) == depth + 2 and "GuardManager: " in line:
            branches.append([])
        branches[-1].append(line)
    return [
        *lines[: top + 1],
        *branches[0],
        *(line for branch in sorted(branches[1:]) for line in branch),
        *lines[end:],
    ]


def _depth(line: str) -> int:
    return line.find("+-")


def check_same(theirs: Any, ours: Any) -> None:
    """Raise `NotSkippedError` unless both trees of guards are the same, but for what torch says of their origin."""
    here, there = str(ours).splitlines(), str(theirs).splitlines()
    if len(here) != len(there):
        raise NotSkippedError("rebuild", f"torch makes {len(here)} lines of guards again, and had made {len(there)}")
    for mine, made in zip(here, there, strict=True):
        if mine.rstrip() != made.rstrip() and _bare(mine) != _bare(made):
            raise NotSkippedError("rebuild", f"torch makes another guard again: {mine.strip(' |+-')[:120]}")


def _bare(line: str) -> str:
    return _COMMENT.sub("", _COMMENT.sub("", line)).rstrip()
