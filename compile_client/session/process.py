"""This process's one client of the daemon, made when the first graph or kernel needs it.

Graphs and kernels have different environments, so that there is a connection for each. Both count into one
report, which the client for graphs ends.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compile_client.session.client import DaemonClient

_lock = threading.RLock()
_graphs: DaemonClient | None = None
_kernels: DaemonClient | None = None


def process_client() -> DaemonClient:
    """Return the client for graphs, which is also the one that reports."""
    global _graphs  # noqa: PLW0603 - one process has one client
    with _lock:
        if _graphs is None:
            from compile_client.config import ClientConfig
            from compile_client.session.client import DaemonClient

            _graphs = DaemonClient(ClientConfig.from_environment(os.environ), _graph_environment)
        return _graphs


def kernel_client() -> DaemonClient:
    """Return the client for Triton's kernels."""
    global _kernels  # noqa: PLW0603 - as above
    with _lock:
        if _kernels is None:
            from compile_client.session.client import DaemonClient
            from compile_torch.triton.environment import kernel_environment

            graphs = process_client()
            _kernels = DaemonClient(graphs.config, kernel_environment, report=graphs.report, kind="kernel")
        return _kernels


def existing_client() -> DaemonClient | None:
    """Return the reporting client where there is one already."""
    return _graphs


def _graph_environment() -> Mapping[str, str]:
    from compile_torch.environment import process_environment

    return process_environment()
