"""Verification: what the daemon served, compared with what torch makes of the same graph here.

Compared is what was generated: the code of forward and backward, and what torch keeps beside it of shapes, memory that
is reused, and guards. Not numbers: two programs that differ may agree on one input. Names of variables and kernels are
torch's own counting and the same in every process; comments quote lines of the user's program and are left out.

Where torch chooses by measuring (max-autotune), the code of two right compiles may differ, because another candidate
was the faster one: that settles nothing, and nobody is blamed.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import random
import re
from typing import Any

_COMMENT = re.compile(r"^\s*(?:#|//)(?!include|pragma|define).*$|\s+(?://|#) .*$", re.MULTILINE)
_PLACES = re.compile(r'"[^"\n]*/[^"\n]*"|/[\w./+-]+')
"""Directories: of torch's headers, and of its cache."""
_HELPERS = re.compile(r"\b(c[a-z0-9]{51})\b")
"""torch names a header after its content and the compiler's command line."""

_BESIDE = ("bw_donated_idxs", "num_symints_saved_for_bw", "num_intermediate_bases", "traced_tangent_memory_formats")


_MEASURING = (
    "max_autotune",
    "max_autotune_gemm",
    "max_autotune_pointwise",
    "distributed_max_autotune_gemm",
    "pipeline_max_autotune_gemm",
    "search_autotune_cache",
    "coordinate_descent_tuning",
    "benchmark_fusion",
    "benchmark_combo_kernel",
    "triton.multi_kernel",
)
"""Switches of inductor's with which the code depends on what was measured; a torch that lacks one has it off."""


class Sampling:
    """Draws the share of hits that are verified, independently in each process."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._random = random.Random()  # noqa: S311 - a sample, no secret

    def draws(self) -> bool:
        """Whether the next hit is one of them."""
        return self._rate > 0 and self._random.random() < self._rate


def chooses_by_measuring() -> bool:
    """Whether torch, as it is set up now, chooses among candidates by their speed."""
    from torch._inductor import config

    return any(_setting(config, name) for name in _MEASURING)


def _setting(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part, None)
    return config


def code_differences(served: Any, own: Any) -> list[str]:
    """Return in what the code of two of torch's entries for one graph differs, in words; empty where it does not."""
    found = []
    for name, side in (("forward", "compiled_fw"), ("backward", "compiled_bw")):
        theirs, ours = _code(served, side), _code(own, side)
        if (theirs is None) != (ours is None):
            found.append(f"only one has a {name}")
        elif theirs is not None and ours is not None and plain_code(theirs) != plain_code(ours):
            found.append(f"the {name}'s code is another{_first_line(theirs, ours)}")
    return found


def other_differences(served: Any, own: Any) -> list[str]:
    """Return in what two entries differ beside their code: it never depends on what was measured."""
    found = []
    for name in _BESIDE:
        here, there = getattr(own.runtime_metadata, name, None), getattr(served.runtime_metadata, name, None)
        if repr(here) != repr(there):
            found.append(f"{name} is {there!r:.60} instead of {here!r:.60}")
    if (served.guards_expr or "") != (own.guards_expr or ""):
        found.append(f"its guards are {served.guards_expr or 'none'}, here {own.guards_expr or 'none'}")
    return found


def plain_code(text: str) -> str:
    """Return generated code without what does not run, and without the directories of the machine it was made on."""
    lines = _HELPERS.sub("@header@", _PLACES.sub("@place@", _COMMENT.sub("", text))).splitlines()
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _code(entry: Any, side: str) -> str | None:
    part = getattr(entry, side, None)
    return None if part is None else getattr(part.result, "source_code", None) or ""


def _first_line(theirs: str, ours: str) -> str:
    there, here = plain_code(theirs).splitlines(), plain_code(ours).splitlines()
    for served, own in zip(there, here, strict=False):
        if served != own:
            return f" ({served.strip()[:80]!r} instead of {own.strip()[:80]!r})"
    return f" ({len(there)} lines instead of {len(here)})"
