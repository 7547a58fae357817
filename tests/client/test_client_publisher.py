from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from compile_client.session.publisher import Publisher
from compile_client.transport.messages import LocalCompile, Part


class Shelf:
    """The place where published things arrive; a closed `gate` holds them up."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.dropped: list[str] = []
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def publish(self, compiled: LocalCompile) -> None:
        self.begun.set()
        self.gate.wait(30)
        self.keys.append(compiled.key)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    shelf = Shelf()
    yield shelf
    shelf.gate.set()


def publisher(shelf: Shelf, *, items: int = 2, size: int = 1000) -> Publisher:
    return Publisher(shelf.publish, shelf.dropped.append, max_items=items, max_bytes=size)


def job(key: str, size: int = 10) -> LocalCompile:
    return LocalCompile(key=key, guards="", compile_s=1.0, parts=(Part("entry", "", bytes(size)),))


def test_everything_offered_is_published_in_order(shelf: Shelf) -> None:
    queue = publisher(shelf, items=10)

    assert all(queue.offer(job(key)) for key in "abc")
    queue.flush(10)

    assert shelf.keys == ["a", "b", "c"]
    assert shelf.dropped == []


def test_nothing_offered_costs_no_thread_and_no_time(shelf: Shelf) -> None:
    before = threading.active_count()
    queue = publisher(shelf)
    start = time.monotonic()

    queue.flush(10)

    assert threading.active_count() == before
    assert time.monotonic() - start < 1


def test_a_full_queue_drops_without_waiting(shelf: Shelf) -> None:
    shelf.gate.clear()
    queue = publisher(shelf, items=2)
    assert queue.offer(job("a"))
    assert shelf.begun.wait(10)

    assert [queue.offer(job(key)) for key in "bcd"] == [True, True, False]

    assert shelf.dropped == ["queue_full"]
    shelf.gate.set()
    queue.flush(10)
    assert shelf.keys == ["a", "b", "c"]


def test_the_queue_is_bounded_in_bytes(shelf: Shelf) -> None:
    shelf.gate.clear()
    queue = publisher(shelf, items=10, size=100)
    assert queue.offer(job("a", size=10))
    assert shelf.begun.wait(10)

    assert queue.offer(job("b", size=80))
    assert not queue.offer(job("c", size=80))

    shelf.gate.set()
    queue.flush(10)


def test_the_end_waits_a_bounded_time_and_counts_what_is_lost(shelf: Shelf) -> None:
    shelf.gate.clear()
    queue = publisher(shelf)
    queue.offer(job("a"))
    assert shelf.begun.wait(10)
    queue.offer(job("b"))
    start = time.monotonic()

    queue.flush(0.1)

    assert time.monotonic() - start < 2
    assert shelf.dropped == ["exit", "exit"]
    assert not queue.offer(job("c"))
