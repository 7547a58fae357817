"""What somebody waits for goes before what nobody waits for: in the queue, and on the processors."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from compiler_daemon.workers.session_niceness import session_niceness
from tests.daemon.compiles.compile_answers import artifact_of
from tests.daemon.daemon_process import DaemonProcess, wait_until


@pytest.fixture
def busy(start_daemon: Callable[..., DaemonProcess], key: str) -> DaemonProcess:
    """A daemon with one worker; whoever asks for `key` keeps it busy for a while."""
    daemon = start_daemon(pool={"max_workers": 1, "niceness": 7}, flights={"event_s": 0.05})
    daemon.handshake()
    return daemon


def _queued(daemon: DaemonProcess, count: int) -> None:
    wait_until(lambda: daemon.status().queued == count, what=f"{count} wait")


def test_a_graph_that_somebody_waits_for_goes_before_those_that_nobody_waits_for(busy: DaemonProcess, key: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(busy.compiled, key, b"ok 3")]
        wait_until(lambda: busy.jobs(key), what="the worker is busy")
        for count, (name, ahead) in enumerate((("sweep-1", True), ("sweep-2", True), ("wanted", False)), 1):
            asked.append(threads.submit(busy.compiled, f"{key}-{name}", b"ok", ahead=ahead))
            _queued(busy, count)
        for one in asked:
            artifact_of(one.result())

    assert busy.order() == [key, f"{key}-wanted", f"{key}-sweep-1", f"{key}-sweep-2"]


def test_a_graph_of_a_sweep_goes_before_the_others_as_soon_as_somebody_waits_for_it(
    busy: DaemonProcess, key: str
) -> None:
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(busy.compiled, key, b"ok 3")]
        wait_until(lambda: busy.jobs(key), what="the worker is busy")
        for count in (1, 2):
            asked.append(threads.submit(busy.compiled, f"{key}-{count}", b"ok", ahead=True))
            _queued(busy, count)
        asked.append(threads.submit(busy.compiled, f"{key}-2", b"ok"))
        for one in asked:
            artifact_of(one.result())

    assert busy.order() == [key, f"{key}-2", f"{key}-1"]
    assert busy.niceness_of(f"{key}-2") == [0]
    assert busy.niceness_of(f"{key}-1") == [7]


@pytest.mark.skipif(session_niceness(os.getpid()) is None, reason="this kernel does not group by session")
def test_a_compile_that_nobody_waited_for_takes_its_share_as_soon_as_somebody_does(
    busy: DaemonProcess, key: str
) -> None:
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(busy.compiled, key, b"ok 4", ahead=True)
        (pid,) = wait_until(lambda: busy.jobs(key), what="the compile begins")
        wait_until(lambda: session_niceness(pid) == 7, what="it stands back")
        second = threads.submit(busy.compiled, key, b"ok 4")
        wait_until(lambda: session_niceness(pid) == 0, what="it stands back no more")
        assert not first.done()
        artifact_of(first.result())
        artifact_of(second.result())

    assert busy.jobs(key) == [pid]
