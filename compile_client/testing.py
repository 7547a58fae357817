"""The client's values and its session, for benches and tests that speak to a daemon without torch.

Nothing else of this package is meant to be imported from outside; programs use `compile_client` itself. What stands
here may change with any version.
"""

from __future__ import annotations

from compile_client.config import ClientConfig
from compile_client.session.client import DaemonClient
from compile_client.transport.messages import Artifact, CompileRequest, LocalCompile, Part, Refusal
from compile_client.transport.verify import verified_blob, verified_manifest

__all__ = [
    "Artifact",
    "ClientConfig",
    "CompileRequest",
    "DaemonClient",
    "LocalCompile",
    "Part",
    "Refusal",
    "verified_blob",
    "verified_manifest",
]
