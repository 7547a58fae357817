"""This process's one client of the daemon, made when the first graph or kernel needs it.

Graphs and kernels have different environments, so that there is a connection for each. Both count into one
report, which the client for graphs ends.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compile_client.config import ClientConfig
    from compile_client.session.client import DaemonClient

_lock = threading.RLock()
_graphs: DaemonClient | None = None
_kernels: DaemonClient | None = None
_imported_ns: int | None = None


def torch_is_imported() -> None:
    """Note the time, at the end of `import torch`: nobody has asked torch for a digest of its sources before."""
    global _imported_ns  # noqa: PLW0603 - one process has one torch
    _imported_ns = time.time_ns()


def process_client() -> DaemonClient:
    """Return the client for graphs, which is also the one that reports."""
    global _graphs  # noqa: PLW0603 - one process has one client
    with _lock:
        if _graphs is None:
            from compile_client.config import ClientConfig
            from compile_client.session.client import DaemonClient

            config = ClientConfig.from_environment(os.environ)
            _graphs = DaemonClient(config, functools.partial(_graph_environment, config))
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


def _graph_environment(config: ClientConfig) -> Mapping[str, str]:
    from compile_torch.environment import process_environment

    if "digests" in config.without:
        return process_environment()
    from compile_torch.source_digests import remembered_digests

    with remembered_digests(config.directory, _imported_ns):
        return process_environment()
