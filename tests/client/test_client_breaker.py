from __future__ import annotations

import pytest

from compile_client.errors import AbsentError, BreakerOpenError, FullError, LateError, RefusedError, UnavailableError
from compile_client.transport.circuit_breaker import BreakerConfig, CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    config = BreakerConfig(failures=2, first_pause_s=10, longest_pause_s=30, absent_pause_s=1)
    return CircuitBreaker(config, clock)


def is_open(breaker: CircuitBreaker) -> bool:
    try:
        breaker.check()
    except BreakerOpenError:
        return True
    return False


def test_one_trouble_is_forgiven_and_two_in_a_row_are_not(breaker: CircuitBreaker) -> None:
    breaker.failed(LateError())
    assert not is_open(breaker)

    breaker.failed(UnavailableError())
    assert is_open(breaker)


def test_a_success_in_between_starts_the_count_again(breaker: CircuitBreaker) -> None:
    breaker.failed(LateError())
    breaker.succeeded()
    breaker.failed(LateError())

    assert not is_open(breaker)


def test_a_lasting_trouble_opens_at_once(breaker: CircuitBreaker) -> None:
    breaker.failed(RefusedError("too old"))

    with pytest.raises(BreakerOpenError, match="too old"):
        breaker.check()


def test_a_polite_trouble_never_opens(breaker: CircuitBreaker) -> None:
    for _ in range(10):
        breaker.failed(FullError())

    assert not is_open(breaker)


def test_the_pause_doubles_up_to_a_bound_and_a_success_shortens_it(breaker: CircuitBreaker, clock: Clock) -> None:
    for pause in (10, 20, 30, 30):
        breaker.failed(RefusedError())
        clock.now += pause - 0.1
        assert is_open(breaker)
        clock.now += 0.2
        assert not is_open(breaker)

    breaker.succeeded()
    breaker.failed(RefusedError())
    clock.now += 10.1
    assert not is_open(breaker)


def test_after_the_pause_one_more_trouble_is_enough(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.failed(LateError())
    breaker.failed(LateError())
    clock.now += 11

    breaker.failed(LateError())

    assert is_open(breaker)


def test_an_absent_daemon_is_looked_for_again_after_a_moment(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(10):
        breaker.failed(AbsentError("nobody"))
        with pytest.raises(AbsentError, match="nobody"):
            breaker.check()
        clock.now += 1.1
        breaker.check()


def test_that_it_is_open_is_no_new_trouble(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.failed(RefusedError())
    for _ in range(10):
        breaker.failed(BreakerOpenError())

    clock.now += 10.1
    assert not is_open(breaker)
