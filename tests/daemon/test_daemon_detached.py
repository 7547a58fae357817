"""A daemon in the background: whoever comes next can rely on it, and it outlives whoever started it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.daemon_process import DEADLINE_S, DaemonProcess, process_lives, wait_until
from tests.daemon.inventory_samples import cli_process, publish

Start = Callable[..., DaemonProcess]
SERVE = ("serve", "--detach", "--no-prewarm")


def status(directory: Path, *more: str) -> dict[str, Any]:
    ended = cli_process(directory, "status", "--json", *more)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)  # type: ignore[no-any-return]


@contextmanager
def stopped_afterwards(directory: Path) -> Iterator[None]:
    try:
        yield
    finally:
        assert cli_process(directory, "stop").returncode == 0


def test_serve_detach_returns_when_the_daemon_answers_and_leaves_it_running(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    with stopped_afterwards(directory):
        started = cli_process(directory, *SERVE)
        found = status(directory)

        assert (started.returncode, started.stderr) == (0, "")
        assert started.stdout == f"ready unix:{directory / 'daemon.sock'}\n"
        assert os.getsid(found["pid"]) == found["pid"] != os.getsid(0)
        assert "serves" in (directory / "log" / "daemon.log").read_text()
    wait_until(lambda: not process_lives(found["pid"]), what="it has ended")


def test_what_follows_a_detached_start_finds_the_daemon(start_daemon: Start, tmp_path: Path) -> None:
    """An import that came too early was lost, and the run that it was for compiled everything."""
    one, directory = start_daemon("one"), tmp_path / "two"
    publish(one, "alpha", b"entry", program="sweep")
    assert cli_process(one.directory, "export", str(tmp_path / "b")).returncode == 0

    with stopped_afterwards(directory):
        assert cli_process(directory, *SERVE).returncode == 0
        taken = cli_process(
            directory, "import", str(tmp_path / "b"), "--all", "--secret-file", str(one.directory / "secret")
        )

        assert (taken.returncode, status(directory)["artifacts"]) == (0, 1)


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (("--address", "unix:/nowhere/at/all/s"), 1, "does not exist"),
        (("--address", "127.0.0.1:0"), 2, "--insecure-loopback"),
    ],
)
def test_a_daemon_that_does_not_come_up_fails_the_start_in_its_own_words(
    tmp_path: Path, options: tuple[str, ...], code: int, text: str
) -> None:
    ended = cli_process(tmp_path / "d", *SERVE, *options)

    assert (ended.returncode, ended.stdout) == (code, "")
    assert text in ended.stderr
    assert ended.stderr.count("compiler-daemon: ") == 1


def test_a_second_detached_daemon_names_the_first(start_daemon: Start) -> None:
    daemon = start_daemon()

    ended = cli_process(daemon.directory, *SERVE)

    assert ended.returncode == 1
    assert f"process {daemon.process.pid} serves" in ended.stderr
    assert daemon.health() == "SERVING"


def test_status_wait_returns_when_a_daemon_answers(start_daemon: Start, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "compiler_daemon", "status", "--wait", "--json", "--dir", str(tmp_path / "d")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1)
        daemon = start_daemon()
        out, _ = waiting.communicate(timeout=DEADLINE_S)

    assert waiting.returncode == 0
    assert json.loads(out)["pid"] == daemon.process.pid


def test_status_wait_has_an_end(tmp_path: Path) -> None:
    ended = cli_process(tmp_path / "d", "status", "--wait", "--timeout", "0.2")

    assert ended.returncode == 1
    assert "start one with `compiler-daemon serve`" in ended.stderr
    assert "waited 0.2 s" in ended.stderr
