"""Why a graph was a miss: what it differs in from the nearest known one, in words.

Two requests, each an environment and a `GraphSpec` or `KernelSpec`, go in; sentences come out. Nothing here knows
torch, gRPC or files.
"""

from __future__ import annotations

from compiler_daemon.insight.explain.differences import Difference, Request, differences
from compiler_daemon.insight.explain.kernels import KernelRequest, find_nearest_kernel, kernel_differences
from compiler_daemon.insight.explain.nearest import Candidate, Nearest, find_nearest

__all__ = [
    "Candidate",
    "Difference",
    "KernelRequest",
    "Nearest",
    "Request",
    "differences",
    "find_nearest",
    "find_nearest_kernel",
    "kernel_differences",
]
