"""What counters are called to people, in a process's line and in a notebook's table."""

from __future__ import annotations

GRAPH_WORDS = {
    "hits_local": "from torch's own cache",
    "hits": "from the daemon's store",
    "compiled_by_daemon": "compiled by the daemon",
    "compiled_here": "compiled here",
    "deferred": "run eagerly",
    "traced_again": "traced again",
    "published": "published",
}
"""What became of a graph."""

KERNEL_WORDS = {
    "kernel_hits": "from the daemon's store",
    "kernels_by_daemon": "compiled by the daemon",
    "kernels_here": "compiled here",
}
"""What became of a Triton kernel."""
