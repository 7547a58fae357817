"""Synthetic artifacts in a daemon, and beside it an echo of its answers: what a machine can do at most."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil

from benches.harness.daemon import OPTIONS, ServedDaemon
from benches.harness.echo_server import echo
from benches.harness.processes import run_with_parent
from benches.harness.synthetic import ENVIRONMENT, Catalogue
from compile_client.testing import ClientConfig, DaemonClient
from compile_wire.environment import environment_id
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compile_wire.v1 import compiler_daemon_pb2_grpc as pb_grpc

FLUSH_S = 120.0
"""What handing in may take, or the echo's coming up."""


def publish(daemon: ServedDaemon, catalogue: Catalogue) -> None:
    """Hand in the artifacts with the real client."""
    config = ClientConfig(
        directory=daemon.directory,
        log_level=logging.CRITICAL + 1,
        flush_s=FLUSH_S,
        answer_s=30.0,
        # All of them are offered at once, and none may be dropped.
        publish_queue_items=catalogue.keys,
        publish_queue_bytes=2**40,
    )
    client = DaemonClient(config, lambda: ENVIRONMENT, program="benches", env={})
    client.available()
    for number in range(catalogue.keys):
        client.publish_later(catalogue.compiled(number))
    client.close()
    if (published := client.counters.as_dict()["published"]) != catalogue.keys:
        raise RuntimeError(f"only {published} of {catalogue.keys} artifacts were published: {daemon.last_words()}")


def answers_of(daemon: ServedDaemon, catalogue: Catalogue) -> dict[str, bytes]:
    """Return what the daemon answers to a lookup, by key."""
    with grpc.insecure_channel(daemon.address, options=OPTIONS) as channel:
        stub = pb_grpc.CompileServiceStub(channel)
        return {
            key: stub.LookupArtifact(
                pb.LookupArtifactRequest(environment_id=environment_id(ENVIRONMENT), key=key),
                metadata=daemon.metadata,
                timeout=FLUSH_S,
            ).SerializeToString()
            for key in map(catalogue.key, range(catalogue.keys))
        }


@contextmanager
def echoing(
    folder: Path, answers: Mapping[str, bytes], blobs: Mapping[str, bytes] | None = None
) -> Iterator[tuple[str, psutil.Process]]:
    """Serve `answers` by key, and of `blobs` by digest in pieces: its address and its process."""
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    address = f"unix:{folder / 'echo.sock'}"
    process = context.Process(
        target=run_with_parent,
        args=(os.getpid(), echo, address, dict(answers), dict(blobs or {}), ready, stop),
        daemon=True,
    )
    process.start()
    try:
        if not ready.wait(FLUSH_S):
            raise RuntimeError("the echo did not come up")
        assert process.pid is not None
        yield address, psutil.Process(process.pid)
    finally:
        stop.set()
        process.join(10)
