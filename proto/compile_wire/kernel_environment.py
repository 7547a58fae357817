"""How an environment of kernels is told from one of graphs: the daemon starts another worker for it."""

from __future__ import annotations

from collections.abc import Mapping

KIND_FIELD = "kind"
KIND = "triton kernels"


def is_kernel_environment(fields: Mapping[str, str]) -> bool:
    """Whether the fields are those of kernels, and not of a torch."""
    return fields.get(KIND_FIELD) == KIND
