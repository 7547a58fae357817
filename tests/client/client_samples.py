"""Values that the client's tests share."""

from __future__ import annotations

from compile_client.transport.messages import CompileRequest

ENVIRONMENT = {"python": "cp311", "torch": "2.13.0", "cpu_flags": "avx2"}
KEY = "akey" + "a" * 49


def graph_request(payload: bytes = b"graph", *, key: str = KEY) -> CompileRequest:
    """Return a request to compile a graph."""
    return CompileRequest(kind="graph", key=key, payload=payload)
