"""A bare gRPC server with a daemon's answers in memory: what the transport costs by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from multiprocessing.synchronize import Event
from typing import Any

import grpc
import grpc.aio

from benches.harness.daemon import OPTIONS
from compile_wire.limits import CHUNK_BYTES
from compile_wire.v1 import compiler_daemon_pb2 as pb

LOOKUP = "/compiler_daemon.v1.CompileService/LookupArtifact"
READ_BLOB = "/compiler_daemon.v1.CompileService/ReadBlob"


def echo(address: str, answers: dict[str, bytes], blobs: dict[str, bytes], ready: Event, stop: Event) -> None:
    """Serve the same answers as the daemon, from memory, without looking at anything but the name."""
    asyncio.run(_echo(address, answers, blobs, ready, stop))


async def _echo(address: str, answers: dict[str, bytes], blobs: dict[str, bytes], ready: Event, stop: Event) -> None:
    pieces = {
        digest: [
            pb.ReadBlobResponse(data=data[start : start + CHUNK_BYTES]).SerializeToString()
            for start in range(0, len(data), CHUNK_BYTES)
        ]
        for digest, data in blobs.items()
    }

    async def answer(request: bytes, _context: object) -> bytes:
        return answers[pb.LookupArtifactRequest.FromString(request).key]

    async def stream(request: bytes, _context: object) -> AsyncIterator[bytes]:
        for piece in pieces[pb.ReadBlobRequest.FromString(request).sha256]:
            yield piece

    server = grpc.aio.server(options=OPTIONS)
    service, lookup = LOOKUP[1:].split("/")
    handlers: dict[str, Any] = {
        lookup: grpc.unary_unary_rpc_method_handler(answer),
        READ_BLOB.rpartition("/")[2]: grpc.unary_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(address)
    await server.start()
    ready.set()
    await asyncio.to_thread(stop.wait)
    await server.stop(0)
