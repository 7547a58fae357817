"""The daemon leaves a failing tier alone and tries it again later; a lookup waits as long as the tier usually takes."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from benches.harness.redis_server import RedisServer
from compiler_daemon.errors import (
    TierDeniedError,
    TierError,
    TierFullError,
    TierMissingError,
    TierPausedError,
    TierTimeoutError,
    TooLargeError,
)
from compiler_daemon.tier.address import read_tier
from compiler_daemon.tier.breaker import BreakerConfig, DirectionBreaker, TierBreaker
from compiler_daemon.tier.budget import BudgetConfig, ReadBudget
from compiler_daemon.tier.engines import EngineTimeouts, open_engine
from tests.daemon.tier.engine_samples import FakeClock, stopped


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> DirectionBreaker:
    return DirectionBreaker("reads", BreakerConfig(), clock, jitter=lambda: 0.5)


def call(breaker: DirectionBreaker, error: BaseException | None = None) -> None:
    with breaker.asking():
        if error is not None:
            raise error


def fail(breaker: DirectionBreaker, times: int = 1, error: TierError | None = None) -> None:
    error = error or TierTimeoutError("no answer")
    for _ in range(times):
        with pytest.raises(type(error)):
            call(breaker, error)


def test_breaker_opens_after_three_failures_in_a_row_and_says_why(breaker: DirectionBreaker) -> None:
    fail(breaker, 2)
    assert breaker.view().state == "closed"

    fail(breaker)

    with pytest.raises(TierPausedError, match=r"reads of the tier are paused for another 5.* no answer"):
        call(breaker)
    view = breaker.view()
    assert (view.state, view.failures, view.opened, view.kind) == ("open", 3, 1, "timeout")
    assert (view.retry_in_s, view.reason) == (5.0, "no answer")


def test_success_between_failures_starts_the_count_again(breaker: DirectionBreaker) -> None:
    fail(breaker, 2)
    call(breaker)
    fail(breaker, 2)

    assert breaker.view().state == "closed"


def test_one_call_is_let_through_after_the_pause_and_its_success_closes(
    breaker: DirectionBreaker, clock: FakeClock
) -> None:
    fail(breaker, 3)
    clock.now += 5.0
    assert breaker.view().state == "half-open"

    with breaker.asking():
        assert not breaker.allows()
        with pytest.raises(TierPausedError):
            call(breaker)

    assert breaker.view().state == "closed"
    assert breaker.view().reason == ""
    call(breaker)


def test_failed_probe_doubles_the_pause_up_to_the_longest(breaker: DirectionBreaker, clock: FakeClock) -> None:
    fail(breaker, 3)
    pauses = []
    for _ in range(9):
        pauses.append(breaker.view().retry_in_s)
        clock.now += pauses[-1]
        fail(breaker)

    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert breaker.view().opened == 1


def test_calls_that_were_under_way_when_it_opened_do_not_lengthen_the_pause(breaker: DirectionBreaker) -> None:
    with ExitStack() as under_way:
        for _ in range(10):
            under_way.enter_context(pytest.raises(TierTimeoutError))
            under_way.enter_context(breaker.asking())
            under_way.callback(_raise_timeout)

    view = breaker.view()
    assert (view.state, view.failures, view.retry_in_s) == ("open", 10, 5.0)


def _raise_timeout() -> None:
    raise TierTimeoutError("no answer")


def test_pauses_start_anew_after_a_success(breaker: DirectionBreaker, clock: FakeClock) -> None:
    fail(breaker, 3)
    clock.now += 5
    fail(breaker)
    clock.now += 10
    call(breaker)

    fail(breaker, 3)

    assert breaker.view().retry_in_s == 5.0


def test_cancelled_probe_lets_the_next_one_through(breaker: DirectionBreaker, clock: FakeClock) -> None:
    fail(breaker, 3)
    clock.now += 5

    with pytest.raises(asyncio.CancelledError):
        call(breaker, asyncio.CancelledError())

    assert breaker.allows()
    assert breaker.view().state == "half-open"


def test_probe_that_was_never_heard_of_again_does_not_block_for_ever(
    breaker: DirectionBreaker, clock: FakeClock
) -> None:
    fail(breaker, 3)
    clock.now += 5
    with breaker.asking():
        assert not breaker.allows()
        clock.now += 60

        assert breaker.allows()


@pytest.mark.parametrize("error", [TierDeniedError("403"), TierFullError("full"), TierMissingError("no bucket")])
def test_what_does_not_pass_by_itself_opens_at_once_for_longer(breaker: DirectionBreaker, error: TierError) -> None:
    fail(breaker, 1, error)

    view = breaker.view()
    assert (view.state, view.retry_in_s, view.reason) == ("open", 60.0, str(error))


def test_object_that_is_too_large_is_an_answer(breaker: DirectionBreaker) -> None:
    fail(breaker, 2)
    fail(breaker, 5, TooLargeError("4 GB"))

    assert breaker.view().failures == 0


def test_lookups_that_stopped_waiting_open_before_the_engine_gives_up(
    breaker: DirectionBreaker, clock: FakeClock
) -> None:
    for _ in range(3):
        breaker.late(0.3)
    assert breaker.view().state == "open"

    clock.now += 1
    breaker.late(0.3)

    assert breaker.view().retry_in_s == 4.0


def test_writes_are_paused_while_reads_go_on(clock: FakeClock) -> None:
    tier = TierBreaker(clock=clock)

    fail(tier.writes, 1, TierDeniedError("s3://tier does not allow it (AccessDenied)"))

    assert tier.reads.allows()
    with pytest.raises(TierPausedError, match=r"writes of the tier are paused .*AccessDenied"):
        call(tier.writes)


def test_pauses_of_nodes_differ(clock: FakeClock) -> None:
    pauses = set()
    for jitter in (0.0, 0.5, 1.0):
        breaker = DirectionBreaker("reads", BreakerConfig(), clock, jitter=lambda jitter=jitter: jitter)
        fail(breaker, 3)
        pauses.add(breaker.view().retry_in_s)

    assert pauses == {3.75, 5.0, 6.25}


@pytest.mark.asyncio
async def test_stopped_redis_opens_the_breaker_and_costs_nothing_from_then_on(redis_server: RedisServer) -> None:
    engine = open_engine(read_tier(f"unix://{redis_server.path}"), timeouts=EngineTimeouts(call_s=0.2))
    breaker = DirectionBreaker("reads", BreakerConfig(first_pause_s=0.3, jitter=0.0))
    with stopped(redis_server.pid):
        for _ in range(3):
            with pytest.raises(TierTimeoutError), breaker.asking():
                await engine.get("facts/none", 100)
        with pytest.raises(TierPausedError), breaker.asking():
            await engine.get("facts/none", 100)

    await asyncio.sleep(0.31)
    with breaker.asking():
        assert await engine.get("facts/none", 100) is None
    assert breaker.view().state == "closed"
    await engine.close()


def read(budget: ReadBudget, clock: FakeClock, seconds: float) -> None:
    reading = budget.begin()
    clock.now += seconds
    reading.answered()


def test_budget_is_300_ms_while_little_is_known_and_for_a_fast_tier(clock: FakeClock) -> None:
    budget = ReadBudget(clock=clock)
    assert budget.seconds() == 0.3

    for _ in range(7):
        read(budget, clock, 0.9)
    assert budget.seconds() == 0.3

    for _ in range(64):
        read(budget, clock, 0.002)
    assert budget.seconds() == 0.3


def test_budget_grows_to_what_nineteen_of_twenty_recent_reads_took(clock: FakeClock) -> None:
    budget = ReadBudget(BudgetConfig(reads=20), clock)

    for number in range(1, 21):
        read(budget, clock, 0.3 + number / 100)

    assert budget.seconds() == pytest.approx(0.49)


def test_budget_does_not_grow_beyond_a_second(clock: FakeClock) -> None:
    budget = ReadBudget(clock=clock)

    for _ in range(20):
        read(budget, clock, 4.0)

    assert budget.seconds() == 1.0


def test_budget_forgets_what_was_long_ago(clock: FakeClock) -> None:
    budget = ReadBudget(clock=clock)
    for _ in range(20):
        read(budget, clock, 0.8)
    assert budget.seconds() == pytest.approx(0.8)

    clock.now += 601

    assert budget.seconds() == 0.3


def test_reading_knows_how_long_its_lookup_still_waits(clock: FakeClock) -> None:
    reading = ReadBudget(clock=clock).begin()

    clock.now += 0.1
    assert reading.left_s() == pytest.approx(0.2)
    clock.now += 5
    assert reading.left_s() == 0.0
