"""How kernels are told from graphs: by their environment. The daemon starts another worker for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

KIND_FIELD = "kind"
KIND = "triton kernels"
TUNING_PREFIX = "timings-"
"""How the keys of what an autotuner measured begin; a kernel's is Triton's hash alone."""

TRACE_PREFIX = "trace-"
"""How the keys of traces begin, which stand among those of torch's graphs."""

_COMPLEMENT = str.maketrans("0123456789abcdef", "fedcba9876543210")

ArtifactKind = Literal["graph", "kernel", "tuning", "trace"]
"""What a user calls the kinds of things that are kept."""


def is_kernel_environment(fields: Mapping[str, str]) -> bool:
    """Whether the fields are those of kernels, and not of a torch."""
    return fields.get(KIND_FIELD) == KIND


def kind_of(key: str, fields: Mapping[str, str]) -> ArtifactKind:
    """Return what is kept under a key of the environment with these fields."""
    if not is_kernel_environment(fields):
        return "trace" if key.startswith(TRACE_PREFIX) else "graph"
    return "tuning" if key.startswith(TUNING_PREFIX) else "kernel"


def kernels_run(run: str) -> str:
    """Return the name of the record in which the same process tells of its kernels; of that one, the other's.

    A record has one environment, so that a process has two: the name of each ends with the complement of the other's
    last digit.
    """
    return run[:-1] + run[-1:].translate(_COMPLEMENT)
