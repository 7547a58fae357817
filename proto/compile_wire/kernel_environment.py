"""How kernels are told from graphs: by their environment. The daemon starts another worker for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

KIND_FIELD = "kind"
KIND = "triton kernels"
TUNING_PREFIX = "timings-"
"""How the keys of what an autotuner measured begin; a kernel's is Triton's hash alone."""

ArtifactKind = Literal["graph", "kernel", "tuning"]
"""What a user calls the three kinds of things that are kept."""


def is_kernel_environment(fields: Mapping[str, str]) -> bool:
    """Whether the fields are those of kernels, and not of a torch."""
    return fields.get(KIND_FIELD) == KIND


def kind_of(key: str, fields: Mapping[str, str]) -> ArtifactKind:
    """Return what is kept under a key of the environment with these fields."""
    if not is_kernel_environment(fields):
        return "graph"
    return "tuning" if key.startswith(TUNING_PREFIX) else "kernel"
