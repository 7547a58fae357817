"""One of all nodes compiles a graph; if it dies another one does, and if it sleeps and wakes it does no harm."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from compiler_daemon.tier.address import beat_name, compile_sha, lease_name, object_name, read_tier, refused_name
from compiler_daemon.tier.engines import Engine, EngineTimeouts, open_engine
from compiler_daemon.tier.lease_locks import Locks
from compiler_daemon.tier.lease_records import LeaseRecord, Marker
from compiler_daemon.tier.leases import Held, LeaseConfig, Leases, Refused, Waiting
from tests.daemon.tier.engine_samples import FakeClock, Place
from tests.daemon.tier.lease_process import CONFIG, TTL_S

pytestmark = pytest.mark.asyncio

SHA = compile_sha("lab", "env", "key")
DEADLINE_S = 60.0
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest_asyncio.fixture
async def two(engine: Engine) -> AsyncIterator[tuple[Leases, Leases]]:
    """Two nodes on one tier."""
    nodes = Leases(engine, CONFIG), Leases(engine, CONFIG)
    yield nodes
    for node in nodes:
        await node.close()


@pytest.fixture
def start(place: Place) -> Iterator[Start]:
    with ExitStack() as scope:

        def start(verb: str, *arguments: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "tests.daemon.tier.lease_process", verb, str(place.address), *arguments]
            environ = {**os.environ, **place.environ}
            process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE)
            scope.enter_context(process)
            scope.callback(process.kill)
            return process

        yield start


async def said(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        return (await asyncio.to_thread(process.stdout.readline)).decode().strip()


async def held_by(leases: Leases) -> Held:
    """Wait for the lease as a node does, asking again as often as it is told to."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            match await leases.acquire(SHA):
                case Held() as held:
                    return held
                case Waiting(look_again_s=wait_s):
                    assert 0 < wait_s <= 2.5
                    await asyncio.sleep(wait_s)
                case other:
                    raise AssertionError(other)


async def test_one_of_two_holds_and_the_other_is_told_who_it_is(two: tuple[Leases, Leases]) -> None:
    held = await two[0].acquire(SHA, expected_s=30.0)
    other = await two[1].acquire(SHA)

    assert isinstance(held, Held)
    assert isinstance(other, Waiting)
    assert (other.host, other.expected_s) == (os.uname().nodename, 30.0)
    assert abs(time.time() - other.since) < 60


async def test_released_lease_goes_to_who_asks_next_and_leaves_nothing(
    two: tuple[Leases, Leases], engine: Engine
) -> None:
    first = await held_by(two[0])
    await first.renew()

    await first.release()
    second = await held_by(two[1])
    await second.release()

    assert [each.name async for each in engine.names("lease/")] == []
    assert [each.name async for each in engine.names("beat/")] == []


async def test_refused_compile_is_tried_by_nobody_for_a_while(two: tuple[Leases, Leases], engine: Engine) -> None:
    held = await held_by(two[0])

    await held.refuse("UNSUPPORTED: aten::strange")
    other = await two[1].acquire(SHA)

    assert other == Refused(reason="UNSUPPORTED: aten::strange", deaths=0)
    marker = Marker.read(await engine.get(refused_name(SHA), 1000) or b"")
    assert marker is not None
    await engine.replace(refused_name(SHA), replace(marker, at=marker.at - 61).write())
    assert isinstance(await two[1].acquire(SHA), Held)


async def test_graph_that_kills_workers_kills_two_in_the_fleet(two: tuple[Leases, Leases]) -> None:
    first = await held_by(two[0])
    again = await first.worker_died("signal 11")
    await first.release()

    second = await held_by(two[1])
    last = await second.worker_died("signal 11")
    await second.release()

    assert (again, last) == (True, False)
    assert await two[0].acquire(SHA) == Refused(reason="this graph has killed 2 workers: signal 11", deaths=2)


async def test_compile_that_succeeds_forgives_a_worker_that_died(two: tuple[Leases, Leases]) -> None:
    first = await held_by(two[0])
    await first.worker_died("signal 11")
    await first.release(compiled=True)

    second = await held_by(two[1])

    assert second.deaths == 0


async def test_close_releases_what_is_held(two: tuple[Leases, Leases]) -> None:
    await held_by(two[0])
    await two[1].acquire(SHA)

    await two[0].close()

    assert isinstance(await two[1].acquire(SHA), Held)


async def test_lease_that_somebody_else_removed_is_lost_and_the_next_ones_stays(
    two: tuple[Leases, Leases], engine: Engine
) -> None:
    first = await held_by(two[0])
    await engine.delete(lease_name(SHA) if isinstance(engine, Locks) else lease_name(SHA, 0))
    second = await held_by(two[1])

    assert not await first.renew()
    await first.release()

    assert await second.renew()


async def test_junk_in_place_of_a_lease_or_a_marker_is_nobodys(two: tuple[Leases, Leases], engine: Engine) -> None:
    junk = b"\x00" * 10_000
    await engine.replace(refused_name(SHA), junk)
    await engine.replace(lease_name(SHA) if isinstance(engine, Locks) else lease_name(SHA, 0), junk)

    other = await two[0].acquire(SHA)

    assert isinstance(other, Waiting)
    assert other.host == ""


async def test_four_nodes_do_each_of_six_keys_once(start: Start, engine: Engine, tmp_path: Path, place: Place) -> None:
    journal = tmp_path / "journal"
    keys = [f"key-{number}" for number in range(6)]

    processes = [start("race", str(journal), *keys) for _ in range(4)]
    codes = [await asyncio.to_thread(process.wait, DEADLINE_S) for process in processes]

    assert codes == [0] * 4
    assert Counter(line.split()[0] for line in journal.read_text().splitlines()) == Counter(keys)
    assert [await engine.get(object_name("lab", "env", key, 0), 100) for key in keys] == [b"artifact"] * 6


async def test_lease_of_a_killed_node_is_taken_over_within_its_time(
    start: Start, two: tuple[Leases, Leases], engine: Engine
) -> None:
    process = start("hold", "key")
    assert await said(process) == "held"
    waiting = asyncio.create_task(held_by(two[0]))
    await asyncio.sleep(2 * CONFIG.beat_s)
    assert not waiting.done()

    process.kill()
    killed = time.monotonic()
    held = await waiting

    assert time.monotonic() - killed < TTL_S + 1.0
    await held.release()
    assert [each.name async for each in engine.names("lease/")] == []


async def test_living_node_keeps_its_lease_for_longer_than_the_lease_lasts(
    start: Start, two: tuple[Leases, Leases]
) -> None:
    process = start("hold", "key")
    assert await said(process) == "held"

    waiting = asyncio.create_task(held_by(two[0]))
    done, _ = await asyncio.wait([waiting], timeout=2 * TTL_S)

    waiting.cancel()
    assert not done


async def test_node_that_slept_sees_that_it_has_lost_and_takes_nothing_from_the_next(
    start: Start, two: tuple[Leases, Leases]
) -> None:
    process = start("hold", "key")
    assert await said(process) == "held"
    await two[0].acquire(SHA)

    process.send_signal(signal.SIGSTOP)
    held = await held_by(two[0])
    await asyncio.sleep(2 * TTL_S)
    process.send_signal(signal.SIGCONT)

    assert await said(process) == "lost"
    assert await said(process) == "released"
    assert await asyncio.to_thread(process.wait, DEADLINE_S) == 0
    assert await held.renew()
    assert isinstance(await two[1].acquire(SHA), Waiting)


async def test_generation_that_a_killed_node_has_left_takes_no_lease_from_its_holder(tmp_path: Path) -> None:
    engine = open_engine(read_tier(f"file://{tmp_path}"), timeouts=EngineTimeouts())
    leftover = LeaseRecord(token="old", host="gone", since=0.0, expected_s=0.0, after="older")
    await engine.create(lease_name(SHA, 1), leftover.write())
    leases, others = Leases(engine, CONFIG), Leases(engine, CONFIG)

    held = await leases.acquire(SHA)

    assert isinstance(held, Held)
    assert await held.renew()
    waiting = await others.acquire(SHA)
    assert isinstance(waiting, Waiting)
    assert waiting.host == os.uname().nodename
    await leases.close()
    await engine.close()


async def test_watcher_goes_by_its_own_clock_and_by_signs_of_life(tmp_path: Path) -> None:
    clock = FakeClock()
    config = LeaseConfig(ttl_s=10.0, beat_s=1000.0)
    engine = open_engine(read_tier(f"file://{tmp_path}"), timeouts=EngineTimeouts())
    holder, watcher = Leases(engine, config), Leases(engine, config, clock)
    held = await holder.acquire(SHA)
    assert isinstance(held, Held)

    for clock.now in (0.0, 4.0, 9.9):
        assert isinstance(await watcher.acquire(SHA), Waiting)
    await held.renew()
    for clock.now in (11.0, 19.8):  # the sign of life may have been given just after the look before
        assert isinstance(await watcher.acquire(SHA), Waiting)
    clock.now = 20.0

    taken = await watcher.acquire(SHA)

    assert isinstance(taken, Held)
    assert not await held.renew()
    assert await engine.get(beat_name(SHA, 0), 1000) is not None
    await watcher.close()
    assert [each.name async for each in engine.names("lease/")] == []
    await engine.close()


async def test_waits_grow_from_a_fifth_of_a_second_to_two_and_differ(tmp_path: Path) -> None:
    engine = open_engine(read_tier(f"file://{tmp_path}"), timeouts=EngineTimeouts())
    holder = Leases(engine, LeaseConfig(ttl_s=1000.0))
    waits = []
    for jitter in (0.5, 0.0):
        waiter = Leases(engine, LeaseConfig(ttl_s=1000.0), jitter=lambda jitter=jitter: jitter)
        await holder.acquire(SHA)
        results = [await waiter.acquire(SHA) for _ in range(9)]
        waits.append([round(each.look_again_s, 2) for each in results if isinstance(each, Waiting)])

    assert waits[0] == [0.2, 0.3, 0.45, 0.68, 1.01, 1.52, 2.0, 2.0, 2.0]
    assert waits[1] == pytest.approx([0.75 * each for each in waits[0]], abs=0.01)
    await holder.close()
    await engine.close()
