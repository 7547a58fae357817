"""Kept graphs and kernels, read in the daemon's own process: within bounds that keep it small, or not at all."""

from __future__ import annotations

from compile_wire.errors import WireError
from compile_wire.graph.decode import decode_graph
from compile_wire.graph.spec import GraphSpec
from compile_wire.kernel.spec import KernelSpec, decode_kernel
from compile_wire.limits import MAX_LISTS_READ

MAX_READ_BYTES = 2 * 2**20
"""A larger one is not read: this is many times a large model's, and each byte may take twenty in memory."""


def read_graph(data: bytes) -> GraphSpec | None:
    """Return the graph; None where it is none, is too large, or was made by another version."""
    if len(data) > MAX_READ_BYTES:
        return None
    try:
        return decode_graph(data, max_lists=MAX_LISTS_READ)
    except WireError:
        return None


def read_kernel(data: bytes) -> KernelSpec | None:
    """Return the kernel, likewise."""
    try:
        return decode_kernel(data) if len(data) <= MAX_READ_BYTES else None
    except WireError:
        return None


def is_readable(data: bytes) -> bool:
    """Return whether it is a graph or a kernel that can be explained later."""
    return read_graph(data) is not None or read_kernel(data) is not None
