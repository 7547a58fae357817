"""What a daemon does when its socket or its directory is taken away, and how it is stopped all the same."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from compiler_daemon.access.directory import DaemonNote, DirectoryLock
from tests.daemon.daemon_process import DEADLINE_S, DaemonProcess, process_lives, wait_until

Start = Callable[..., DaemonProcess]


def stop(daemon: DaemonProcess, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "compiler_daemon", "stop", "--dir", str(daemon.directory), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def test_a_removed_socket_is_made_again_and_whoever_was_connected_stays_so(start_daemon: Start) -> None:
    daemon = start_daemon()
    daemon.handshake()
    socket = daemon.directory / "daemon.sock"

    socket.unlink()
    wait_until(socket.exists, what="the socket is there again")
    daemon.handshake()
    stopped = stop(daemon)

    assert (stopped.returncode, stopped.stderr) == (0, "")
    assert daemon.process.wait(DEADLINE_S) == 0
    assert "somebody has removed" in daemon.log.read_text()
    assert not socket.exists()


def test_a_daemon_whose_directory_is_removed_hands_its_compiles_back_and_ends(start_daemon: Start, key: str) -> None:
    daemon = start_daemon()
    daemon.handshake()
    running = daemon.compile(key, b"hang")
    wait_until(lambda: next(running) and daemon.jobs(key), what="the compile begins")

    shutil.rmtree(daemon.directory)

    assert daemon.process.wait(DEADLINE_S) == 0
    assert not process_lives(daemon.jobs(key)[0])
    assert "Traceback" not in daemon.log.read_text()
    assert "it ends, and keeps nothing" in daemon.log.read_text()
    assert not daemon.directory.exists()


def test_a_daemon_that_starts_where_another_lost_its_directory_serves_on(start_daemon: Start) -> None:
    first = start_daemon()

    first.process.send_signal(signal.SIGSTOP)  # it notices late, when the other one is there
    shutil.rmtree(first.directory)
    second = DaemonProcess(first.directory)
    with second:
        first.process.send_signal(signal.SIGCONT)
        assert first.process.wait(DEADLINE_S) == 0
        wait_until((second.directory / "daemon.sock").exists, what="the socket of the second is there")
        note = DaemonNote.read(second.directory)
        assert note is not None
        assert note.pid == second.process.pid
        again = stop(second)

        assert (again.returncode, again.stderr) == (0, "")
        assert second.process.wait(DEADLINE_S) == 0


def test_stop_reaches_a_daemon_without_a_socket_through_its_lock(start_daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    daemon = start_daemon(address=f"unix:{tmp_path / 's' / 'd.sock'}")

    shutil.rmtree(tmp_path / "s")
    stopped = stop(daemon)

    assert stopped.returncode == 0
    assert f"process {daemon.process.pid} does not answer; it was told to stop by a signal" in stopped.stderr
    assert daemon.process.wait(DEADLINE_S) == 0


def test_waiting_for_a_stop_ends_and_now_hands_compiles_back(start_daemon: Start, key: str) -> None:
    daemon = start_daemon()
    daemon.handshake()
    running = daemon.compile(key, b"hang")
    wait_until(lambda: next(running) and daemon.jobs(key), what="the compile begins")

    waited = stop(daemon, "--timeout", "0.2")
    alive = daemon.process.poll() is None
    ended = stop(daemon, "--now")

    assert waited.returncode == 1
    assert f"process {daemon.process.pid} has not ended within 0.2 s" in waited.stderr
    assert "--now" in waited.stderr
    assert alive
    assert ended.returncode == 0
    assert daemon.process.wait(DEADLINE_S) == 0


def test_a_daemon_that_is_frozen_does_not_hold_stop_up_for_ever(start_daemon: Start) -> None:
    daemon = start_daemon()
    os.kill(daemon.process.pid, signal.SIGSTOP)
    try:
        stopped = stop(daemon, "--timeout", "0.2")
    finally:
        os.kill(daemon.process.pid, signal.SIGCONT)

    assert stopped.returncode == 1
    assert "has not ended within" in stopped.stderr


@pytest.mark.parametrize("written", ["1", "nonsense", ""])
def test_a_number_in_the_lock_is_nobody_where_that_process_has_not_opened_it(tmp_path: Path, written: str) -> None:
    lock = DirectoryLock(tmp_path)
    lock.acquire()
    other = DirectoryLock(tmp_path)
    assert (other.holder(), lock.is_in_place()) == (os.getpid(), True)

    (tmp_path / "daemon.lock").write_text(written)
    found = other.holder()
    lock.release()

    assert found is None
    assert other.holder() is None
