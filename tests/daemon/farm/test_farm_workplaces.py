"""A graph waits first for the farm and then for whichever place is free first; a place it does not use stays free."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from compiler_daemon import metrics
from compiler_daemon.compiles.workplaces import Workplaces
from compiler_daemon.errors import DrainingError, JobRefusedError
from compiler_daemon.jobs import Job
from tests.daemon.farm.test_farm_jobs import job, serving, until

pytestmark = pytest.mark.asyncio


class FakePool:
    """A stand-in for this machine's workers: it has as many as the test says, or refuses."""

    def __init__(self, workers: int, refusal: Exception | None = None) -> None:
        self._free = asyncio.Semaphore(workers)
        self._refusal = refusal
        self.taken = 0

    @contextlib.asynccontextmanager
    async def lease(self, *_: Any, on_position: Callable[[int], None], **_order: Any) -> AsyncIterator[str]:
        if self._refusal is not None:
            raise self._refusal
        async with self._free:
            self.taken += 1
            try:
                yield "a worker here"
            finally:
                self.taken -= 1

    def hand_back(self) -> None:
        self._refusal = DrainingError()


def places(pool: FakePool, farm: Any, counters: metrics.Counters | None = None) -> Workplaces:
    return Workplaces(pool, farm, counters=counters or metrics.Counters())  # type: ignore[arg-type]


def lease(workplaces: Workplaces, asked: Job, *, only_here: bool = False) -> Any:
    fields: Mapping[str, str] = {}
    return workplaces.lease(asked, fields, only_here=only_here, on_position=lambda _: None)


async def test_the_farm_is_asked_first_and_this_machine_where_it_must_be(tmp_path: Path) -> None:
    async with serving(tmp_path) as (farm, link):
        link.offer(1)
        await until(lambda: farm.offers(job()))
        workplaces = places(FakePool(1), farm)

        async with lease(workplaces, job()) as worker:
            assert workplaces.is_remote(worker)
        async with lease(workplaces, job(), only_here=True) as worker:
            assert not workplaces.is_remote(worker)


async def test_a_full_farm_is_waited_for_alone_and_then_both(tmp_path: Path) -> None:
    counters = metrics.Counters()
    async with serving(tmp_path, wait_s=0.1) as (farm, link):
        link.offer(1)
        await until(lambda: farm.offers(job()))
        pool = FakePool(1)
        workplaces = places(pool, farm, counters)

        async with lease(workplaces, job()) as first, lease(workplaces, job("second")) as second:
            assert (workplaces.is_remote(first), workplaces.is_remote(second)) == (True, False)
            assert counters.pending()[metrics.FARM_BUSY] == 1
        # Nobody holds the place in the farm that the second graph waited for.
        async with asyncio.timeout(1), lease(workplaces, job("third")) as third:
            assert workplaces.is_remote(third)
        assert pool.taken == 0


async def test_where_this_machine_cannot_the_farm_is_waited_for_longer(tmp_path: Path) -> None:
    async with serving(tmp_path, wait_s=0.05) as (farm, link):
        link.offer(1)
        await until(lambda: farm.offers(job()))
        workplaces = places(FakePool(0, JobRefusedError("ENVIRONMENT", "another torch is here")), farm)
        busy = await farm.take(job())

        async def compile_() -> bool:
            async with lease(workplaces, job("second")) as worker:
                return workplaces.is_remote(worker)

        waits = asyncio.create_task(compile_())
        await asyncio.sleep(0.2)
        assert not waits.done()
        farm.give_back(busy)

        assert await waits


async def test_where_this_machine_cannot_and_the_farm_ends_the_refusal_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path, wait_s=0.05) as (farm, link):
        link.offer(1)
        await until(lambda: farm.offers(job()))
        workplaces = places(FakePool(0, JobRefusedError("ENVIRONMENT", "another torch is here")), farm)
        await farm.take(job())

        async def compile_() -> None:
            async with lease(workplaces, job("second")):
                raise AssertionError("nobody can compile it")

        waits = asyncio.create_task(compile_())
        await asyncio.sleep(0.2)
        link.heard.put_nowait(None)

        with pytest.raises(JobRefusedError, match="another torch is here"):
            await waits


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.2])
async def test_a_wait_that_is_cancelled_leaves_no_place_taken(tmp_path: Path, after_s: float) -> None:
    async with serving(tmp_path, wait_s=0.05) as (farm, link):
        link.offer(1)
        await until(lambda: farm.offers(job()))
        pool = FakePool(1)
        workplaces = places(pool, farm)

        async def compile_(name: str) -> None:
            async with lease(workplaces, job(name)):
                await asyncio.sleep(30)

        tasks = [asyncio.create_task(compile_(f"{number}")) for number in range(4)]
        await asyncio.sleep(after_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        assert pool.taken == 0
        async with asyncio.timeout(1):
            await farm.take(job("next"))


async def test_a_drain_ends_every_wait(tmp_path: Path) -> None:
    async with serving(tmp_path) as (farm, link):
        link.offer(1)
        await until(lambda: farm.offers(job()))
        workplaces = places(FakePool(1), farm)
        await farm.take(job())

        async def compile_() -> None:
            async with lease(workplaces, job("second")):
                raise AssertionError("it was given a worker")

        waits = asyncio.create_task(compile_())
        await asyncio.sleep(0)
        workplaces.hand_back()

        with pytest.raises(DrainingError):
            await waits
