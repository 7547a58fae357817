"""The pool of workers by itself, with stand-ins for their processes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from compiler_daemon.config import PoolConfig
from compiler_daemon.metrics import Counters
from compiler_daemon.workers.pool import Pool
from compiler_daemon.workers.process import WorkerProcess


class Worker:
    """A stand-in for a worker that has started; it remembers only whether it was ended."""

    jobs_done, is_usable, has_died, pid = 0, True, False, 1

    def __init__(self, scratch: Path) -> None:
        self.hello = SimpleNamespace(environment="e", unconfined="")
        self.slot = SimpleNamespace(interpreter="python", kind="graphs", scratch=scratch)
        self.ends = 0
        self.ended = asyncio.Event()

    async def end(self, *, grace_s: float) -> None:
        self.is_usable = False
        self.ends += 1
        self.ended.set()


def test_a_pool_is_closed_when_whoever_had_a_worker_has_handed_it_back(tmp_path: Path) -> None:
    async def close_meanwhile() -> tuple[bool, bool, int]:
        pool = Pool(
            PoolConfig(),
            scratch=tmp_path,
            logs=tmp_path,
            headers=tmp_path,
            counters=Counters(),
            on_hello=cast("Any", None),
            facts_of=cast("Any", None),
        )
        worker = Worker(tmp_path / "scratch")
        worker.slot.scratch.mkdir()
        pool._idle.append(cast("WorkerProcess", worker))
        async with pool.lease(cast("Any", "e"), {}, "python", on_position=lambda _: None):
            closing = asyncio.create_task(pool.close())
            await worker.ended.wait()
            done, _ = await asyncio.wait({closing}, timeout=0.1)
        await closing
        return bool(done), worker.slot.scratch.exists(), worker.ends

    too_early, left_behind, ends = asyncio.run(close_meanwhile())

    assert not too_early
    assert not left_behind
    assert ends == 2  # once while the worker was busy, and once when it came back
