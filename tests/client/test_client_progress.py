from __future__ import annotations

import io
import logging
import sys

import pytest

from compile_client.reporting.progress import Progress
from compile_client.transport.messages import Queued, Running


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "compile_client")


def test_a_short_wait_is_not_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with Progress(1, "key", terminal=False, clock=clock) as progress:
        progress.update(Queued(0))
        clock.now = 0.9
        progress.update(Running(0.9, "compiling", 22))

    assert lines(caplog) == []


def test_a_long_wait_is_told_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with Progress(2, "a1b2c3d4e5f6", terminal=False, clock=clock) as progress:
        progress.update(Running(0, "compiling", 22))
        for second in range(30):
            clock.now = second
            progress.update(None)

    assert lines(caplog) == [
        "compile daemon: graph 2 (a1b2c3d4): compiling, 1 s of about 22 s",
        "compile daemon: graph 2 (a1b2c3d4): compiling, 16 s of about 22 s",
    ]


def test_each_state_has_its_words() -> None:
    progress = Progress(1, "key", terminal=False, clock=Clock())
    assert progress.text(3) == "graph 1 (key): waiting for the daemon, 3 s so far"
    progress.update(Queued(4))
    assert progress.text(3) == "graph 1 (key): waiting for a worker, 4 before it, 3 s so far"
    progress.update(Running(1, "packing", 0))
    assert progress.text(3) == "graph 1 (key): packing, 3 s so far"


def test_on_a_terminal_there_is_a_status_and_no_log_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    clock = Clock()
    with Progress(1, "key", terminal=True, clock=clock) as progress:
        clock.now = 2.0
        progress.update(Running(0, "[red]compiling", 22))
        with Progress(2, "other", terminal=True, clock=clock) as second:
            second.update(None)

    assert lines(caplog) == []
