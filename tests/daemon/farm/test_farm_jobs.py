"""The daemon's side of a farm, against a process that answers what the test wants."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from compile_wire.digest import Digest, digest_of
from compile_wire.errors import MalformedError
from compiler_daemon.config import FarmConfig, PoolConfig
from compiler_daemon.errors import DrainingError, FarmAwayError, JobRefusedError, WorkerLostError
from compiler_daemon.farm.farm import Farm
from compiler_daemon.farm.protocol import encode_answer, read_answer
from compiler_daemon.jobs import Job

ENVIRONMENT = digest_of(b"an environment")
OTHER = digest_of(b"another environment")


class FakeLink:
    """A stand-in for the farm's process."""

    pid = 1

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.heard: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue()
        self.jobs: asyncio.Queue[int] = asyncio.Queue()
        self.closed = False

    async def read(self, on_message: Callable[[Mapping[str, Any]], None]) -> None:
        while (message := await self.heard.get()) is not None:
            on_message(message)

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        if message["type"] == "job":
            self.jobs.put_nowait(message["id"])

    def send_soon(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    async def close(self) -> None:
        self.closed = True

    def offer(self, slots: int, environment: Digest = ENVIRONMENT) -> None:
        self.heard.put_nowait({"type": "farm", "workers": 1, "environments": {environment: slots}, "reason": ""})

    async def next_job(self) -> int:
        """Wait for another job and return its number."""
        async with asyncio.timeout(5):
            return await self.jobs.get()


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, **limits: float) -> AsyncIterator[tuple[Farm, FakeLink]]:
    link = FakeLink()

    async def open_link(_log: Path) -> Any:
        return link

    farm = Farm(FarmConfig(address="tls://h:1", **limits), PoolConfig(), log=tmp_path / "log", open_link=open_link)
    running = asyncio.create_task(farm.run())
    try:
        yield farm, link
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def job(key: str = "k", environment: Digest = ENVIRONMENT, **more: Any) -> Job:
    return Job(
        kind="graphs", environment=environment, key=key, graph=b"g", interpreter="python", program="", **more
    )  # fmt: skip


async def until(condition: Callable[[], object]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within 5 s")


async def compiling(farm: Farm, sink: Callable[[Digest, bytes], object] = lambda *_: None) -> Any:
    worker = await farm.take(job())
    return await worker.compile(job(), on_phase=lambda _: None, sink=sink)


@pytest.mark.asyncio
async def test_who_waits_is_given_a_place_before_what_nobody_waits_for(tmp_path: Path) -> None:
    async with serving(tmp_path) as (farm, link):
        link.offer(1)
        await until(lambda: farm.offers(job()))
        running = await farm.take(job())
        order: list[str] = []

        async def wait(name: str, **kind: bool) -> None:
            worker = await farm.take(job(name, **kind))
            order.append(name)
            farm.give_back(worker)

        waits = [
            asyncio.create_task(wait("replay", replay=True)),
            asyncio.create_task(wait("sweep", ahead=True)),
            asyncio.create_task(wait("person")),
        ]
        await asyncio.sleep(0)
        farm.give_back(running)
        await asyncio.gather(*waits)

    assert order == ["person", "replay", "sweep"]


@pytest.mark.asyncio
async def test_a_graph_of_a_sweep_that_somebody_comes_to_wait_for_is_given_the_next_place(tmp_path: Path) -> None:
    async with serving(tmp_path) as (farm, link):
        link.offer(1)
        await until(lambda: farm.offers(job()))
        running = await farm.take(job())
        order: list[str] = []

        async def wait(name: str) -> None:
            worker = await farm.take(job(name, ahead=True))
            order.append(name)
            farm.give_back(worker)

        waits = [asyncio.create_task(wait(name)) for name in ("first", "second", "third")]
        await asyncio.sleep(0)
        farm.hurry(job("third"))
        farm.give_back(running)
        await asyncio.gather(*waits)

    assert order == ["third", "first", "second"]


@pytest.mark.asyncio
async def test_an_environment_that_nobody_there_has_is_not_offered(tmp_path: Path) -> None:
    async with serving(tmp_path) as (farm, link):
        link.offer(1)
        await until(lambda: farm.offers(job()))

        assert not farm.offers(job(environment=OTHER))
        with pytest.raises(FarmAwayError):
            await farm.take(job(environment=OTHER))


@pytest.mark.asyncio
async def test_a_job_that_is_not_begun_in_time_is_given_back_and_left(tmp_path: Path) -> None:
    async with serving(tmp_path, wait_s=0.1) as (farm, link):
        link.offer(1)
        await until(lambda: farm.offers(job()))

        with pytest.raises(FarmAwayError, match="nobody there has begun"):
            await compiling(farm)

        assert link.sent[-1]["type"] == "leave"


@pytest.mark.asyncio
async def test_a_job_that_was_begun_may_take_longer_and_is_given_back_in_silence_only(tmp_path: Path) -> None:
    async with serving(tmp_path, wait_s=0.1, silence_s=0.4) as (farm, link):
        link.offer(1)
        await until(lambda: farm.offers(job()))
        compile_ = asyncio.create_task(compiling(farm))
        number = await link.next_job()
        link.heard.put_nowait({"type": "begun", "id": number, "host": "h"})
        for _ in range(4):
            await asyncio.sleep(0.2)
            link.heard.put_nowait({"type": "progress", "id": number, "phase": "compiling", "host": "h"})
        assert not compile_.done()

        with pytest.raises(FarmAwayError, match="nothing was heard of it"):
            await compile_


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"type": "refused", "reason": "UNSUPPORTED", "message": "no", "fields": []}, JobRefusedError),
        ({"type": "refused", "reason": "BECAUSE", "message": "no", "fields": []}, WorkerLostError),
        ({"type": "lost", "reason": "it died"}, WorkerLostError),
        ({"type": "away", "reason": "no room"}, FarmAwayError),
        ({"type": "keyed", "key": "another"}, WorkerLostError),
        ({"type": "progress", "phase": "rm -rf", "host": "h"}, WorkerLostError),
        ({"type": "done", "manifest": "text", "facts": b""}, WorkerLostError),
        ({"type": "blob", "sha256": "../../etc", "data": b""}, WorkerLostError),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
@pytest.mark.asyncio
async def test_what_the_farm_answers_is_read_as_strictly_as_a_worker(
    tmp_path: Path, said: dict[str, Any], error: type[Exception]
) -> None:
    async with serving(tmp_path) as (farm, link):
        link.offer(1)
        await until(lambda: farm.offers(job()))
        compile_ = asyncio.create_task(compiling(farm))
        link.heard.put_nowait({"id": await link.next_job(), **said})

        with pytest.raises(error):
            await compile_


@pytest.mark.asyncio
async def test_a_process_that_ends_gives_every_job_back_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as (farm, link):
        link.offer(1)
        await until(lambda: farm.offers(job()))
        compile_ = asyncio.create_task(compiling(farm))
        waits = asyncio.create_task(farm.take(job("other")))
        await link.next_job()

        link.heard.put_nowait(None)

        for task in (compile_, waits):
            with pytest.raises(FarmAwayError):
                await task
        assert link.closed
        assert not farm.offers(job())


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "said",
    [
        {"type": "farm", "environments": {"x": 1}, "reason": ""},
        {"type": "farm", "environments": {ENVIRONMENT: -1}, "reason": ""},
        {"type": "farm", "environments": [], "reason": ""},
        {"type": "done", "id": [1]},
        {"type": "anything"},
    ],
)
async def test_a_process_that_says_what_it_must_not_is_ended(tmp_path: Path, said: dict[str, Any]) -> None:
    async with serving(tmp_path) as (farm, link):
        link.heard.put_nowait(said)

        await until(lambda: link.closed)

        assert not farm.offers(job())


@pytest.mark.asyncio
async def test_a_drain_fails_what_waits_for_a_place(tmp_path: Path) -> None:
    async with serving(tmp_path) as (farm, link):
        link.offer(1)
        await until(lambda: farm.offers(job()))
        await farm.take(job())
        waits = asyncio.create_task(farm.take(job("other")))
        await asyncio.sleep(0)

        farm.hand_back()

        with pytest.raises(DrainingError):
            await waits
        assert not farm.offers(job())


@pytest.mark.asyncio
async def test_a_wait_that_is_given_up_leaves_its_place_to_others(tmp_path: Path) -> None:
    async with serving(tmp_path) as (farm, link):
        link.offer(1)
        await until(lambda: farm.offers(job()))
        first = await farm.take(job())
        left = asyncio.create_task(farm.take(job("left")))
        await asyncio.sleep(0)
        farm.give_back(first)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)

        async with asyncio.timeout(1):
            await farm.take(job("next"))


def test_a_nodes_answer_speaks_of_its_own_job_alone() -> None:
    frames: list[dict[str, Any]] = [{"type": "blob", "id": 7, "sha256": "x", "data": b""}]

    assert list(read_answer(encode_answer(frames), 7)) == frames
    for wrong in ([{"type": "blob", "id": 8}], [{"type": "farm", "id": 7}], [{"type": "begun", "id": 7}]):
        with pytest.raises(MalformedError):
            list(read_answer(encode_answer(wrong), 7))
    with pytest.raises(MalformedError):
        list(read_answer(encode_answer(frames)[:-1], 7))
