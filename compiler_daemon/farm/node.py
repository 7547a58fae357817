"""What runs on a node of the farm: Dask's worker has our own workers compile, confined, as a daemon there would.

Dask's worker itself imports neither torch nor a graph's code. It keeps a pool of our worker processes, warm between
jobs and with the daemon's limits, in its own folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from distributed import get_worker

from compile_wire.digest import Digest
from compile_wire.packing import unpack
from compiler_daemon import metrics
from compiler_daemon.config import PoolConfig
from compiler_daemon.errors import DaemonError, JobRefusedError, WorkerLostError
from compiler_daemon.farm.protocol import BEAT_S, encode_answer
from compiler_daemon.jobs import Job, WorkerHello
from compiler_daemon.worker.protocol import MAX_FRAME_BYTES, WORKER_PROTOCOL, encode_frame
from compiler_daemon.workers.pool import Pool
from compiler_daemon.workers.process import WorkerProcess

logger = logging.getLogger(__name__)

_pools: dict[bytes, tuple[Pool, asyncio.Task[None]]] = {}
"""By the limits that they were made with: daemons that want the same share the warm workers."""


async def introduce(limits: bytes) -> bytes:
    """Return the hello of a worker of this node, as its frame; raise `DaemonError` where none comes up."""
    async with _leased(None, limits) as worker:
        hello = worker.hello
    assert hello is not None
    message = {"type": "hello", "protocol": WORKER_PROTOCOL, "environment": dict(hello.fields), "facts": hello.facts}
    return encode_frame({**message, "unconfined": hello.unconfined})


async def compile_there(order: bytes, limits: bytes, topic: str) -> bytes:
    """Compile one graph here; return the answer as `farm.protocol` has it. What it does is said under the topic."""
    told = unpack(order, max_bytes=MAX_FRAME_BYTES, what="order", max_lists=4)
    number, dask, host = told["id"], get_worker(), socket.gethostname()
    job = Job(
        kind="graphs",
        environment=told["environment"],
        key=told["key"],
        graph=told["graph"],
        interpreter=sys.executable,
        program="",
        replay=told["replay"],
        ahead=told["ahead"],
    )
    phase = "starting"

    def say(now: str) -> None:
        nonlocal phase
        phase = now
        dask.log_event(topic, {"id": number, "phase": now, "host": host})

    async def beat() -> None:
        while True:
            say(phase)
            await asyncio.sleep(BEAT_S)

    frames: list[dict[str, Any]] = []

    def keep(sha256: Digest, data: bytes) -> None:
        frames.append({"type": "blob", "id": number, "sha256": sha256, "data": data})

    beating = asyncio.create_task(beat())
    try:
        async with _leased(job.environment, limits) as worker:
            result = await worker.compile(job, on_phase=say, sink=keep)
        frames.append({"type": "done", "id": number, "manifest": result.manifest, "facts": result.facts})
        return encode_answer(frames)
    except JobRefusedError as error:
        if error.reason == "ENVIRONMENT":  # the node was upgraded: that is no refusal of the graph
            return encode_answer([{"type": "away", "id": number, "reason": f"{host}: {error}"[:500]}])
        answer = {"type": "refused", "id": number, "reason": error.reason, "message": str(error)[:4000]}
        return encode_answer([answer | {"fields": list(error.fields)}])
    except WorkerLostError as error:
        return encode_answer([{"type": "lost", "id": number, "reason": f"{host}: {error}"[:500]}])
    except DaemonError as error:
        return encode_answer([{"type": "away", "id": number, "reason": f"{host}: {error}"[:500]}])
    finally:
        beating.cancel()


@contextlib.asynccontextmanager
async def _leased(environment: Digest | None, limits: bytes) -> AsyncIterator[WorkerProcess]:
    pool = _pool(limits)
    async with pool.lease(environment, {}, sys.executable, on_position=lambda _: None) as worker:
        yield worker


def _pool(limits: bytes) -> Pool:
    """Return the pool of this node with such limits; begin it where there is none."""
    if limits in _pools:
        return _pools[limits][0]
    dask = get_worker()
    folder = Path(dask.local_directory) / f"compiler-daemon-{len(_pools)}"
    wanted: dict[str, Any] = unpack(limits, max_bytes=65536, what="limits", max_lists=8)
    config = PoolConfig(**wanted | {"command": tuple(wanted["command"]), "max_workers": max(1, dask.state.nthreads)})
    pool = Pool(
        config,
        scratch=folder / "scratch",
        logs=folder / "log",
        headers=folder / "headers",
        hidden=[folder, *_secrets(dask)],
        counters=metrics.Counters(),
        on_hello=_nothing,
        facts_of=_no_facts,
    )
    _pools[limits] = pool, asyncio.create_task(pool.run())
    logger.info("this node compiles for a daemon: %d at once, in %s", config.max_workers, folder)
    return pool


def _secrets(dask: Any) -> list[Path]:
    """Return where the node's own keys for the scheduler lie: a graph must not come by them."""
    key = getattr(dask.security, "tls_worker_key", None)
    return [Path(key)] if key and "\n" not in key else []


async def _nothing(_hello: WorkerHello) -> None:
    return


async def _no_facts(_environment: Digest) -> bytes:
    return b""
