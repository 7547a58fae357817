"""`run`: a trainer is started with a daemon, which is there already or starts by itself, and ends by itself."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from compiler_daemon.access.directory import DirectoryLock
from tests.daemon.daemon_process import DEADLINE_S, DaemonProcess, process_lives, wait_until
from tests.daemon.inventory_samples import CLI_S, cli_process

Start = Callable[..., DaemonProcess]
TRAINER = ("-c", "import os, json; print(json.dumps(dict(os.environ))); raise SystemExit(7)")


def pid_of(directory: Path) -> int:
    ended = cli_process(directory, "status", "--json")
    assert ended.returncode == 0, ended.stderr
    return int(json.loads(ended.stdout)["pid"])


@contextmanager
def stopped_afterwards(directory: Path) -> Iterator[None]:
    try:
        yield
    finally:
        assert cli_process(directory, "stop", "--now").returncode == 0


def test_a_trainer_finds_a_daemon_that_is_started_for_it_and_the_next_finds_the_same(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    with stopped_afterwards(directory):
        first = cli_process(directory, "run", "--dir", str(directory), "--", "env", "-u", "X", sys.executable, *TRAINER)
        pid = pid_of(directory)
        second = cli_process(directory, "run", "env", sys.executable, *TRAINER)

        assert (first.returncode, second.returncode) == (7, 7), first.stderr
        seen: dict[str, Any] = json.loads(first.stdout)
        assert (seen["TORCH_COMPILE_CLIENT"], seen["COMPILER_DAEMON_DIR"]) == ("1", str(directory))
        assert f"a daemon was started (process {pid}); it ends 1 h 0 min after its last trainer" in first.stderr
        assert second.stderr == ""
        assert pid_of(directory) == pid


@pytest.mark.parametrize("own", [None, "INFO"])
def test_what_grpc_says_is_the_users_to_choose_in_trainer_and_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    if own is not None:
        monkeypatch.setenv("GRPC_VERBOSITY", own)
    directory = tmp_path / "d"
    with stopped_afterwards(directory):
        ended = cli_process(directory, "run", "--dir", str(directory), sys.executable, *TRAINER)
        daemon = Path(f"/proc/{pid_of(directory)}/environ").read_bytes().split(b"\0")

    trainers: dict[str, str] = json.loads(ended.stdout)
    assert trainers.get("GRPC_VERBOSITY") == own
    assert [one for one in daemon if one.startswith(b"GRPC_VERBOSITY")] == (
        [] if own is None else [f"GRPC_VERBOSITY={own}".encode()]
    )


def test_trainers_that_start_together_start_one_daemon(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    command = [sys.executable, "-m", "compiler_daemon", "run", "--dir", str(directory), "env"]
    with stopped_afterwards(directory):
        trainers = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(4)
        ]
        said = [trainer.communicate(timeout=CLI_S)[1] for trainer in trainers]

        assert [trainer.returncode for trainer in trainers] == [0] * 4
        assert ["" if not text else "started" for text in sorted(said)] == ["", "", "", "started"]
        assert f"process {pid_of(directory)}" in max(said)


@pytest.mark.slow
def test_a_daemon_ends_when_its_last_trainer_has_been_gone_for_a_while_and_not_before(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    command = [sys.executable, "-m", "compiler_daemon", "run", "--idle", "0.5s", "--dir", str(directory), "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as trainer:
        wait_until((directory / "daemon.json").exists, what="the daemon serves")
        with pytest.raises(subprocess.TimeoutExpired):
            trainer.wait(2.0)
        while_it_trains = DirectoryLock(directory).holder()
        trainer.communicate(timeout=DEADLINE_S)

    assert while_it_trains is not None
    wait_until(lambda: not process_lives(while_it_trains), what="the daemon has ended")
    assert not (directory / "daemon.sock").exists()
    assert "nobody has used this daemon for 0.50 s: it ends" in (directory / "log" / "daemon.log").read_text()


def test_a_compile_under_way_keeps_an_idle_daemon(start_daemon: Start, key: str) -> None:
    daemon = start_daemon(daemon={"idle_s": 0.2})
    daemon.handshake()

    assert daemon.compiled(key, b"ok 1.0").manifest
    assert daemon.process.wait(DEADLINE_S) == 0


@pytest.mark.slow
def test_looking_at_a_daemon_does_not_keep_it(start_daemon: Start) -> None:
    daemon = start_daemon(daemon={"idle_s": 0.3})

    def has_ended() -> bool:
        cli_process(daemon.directory, "status")
        return daemon.process.poll() == 0

    wait_until(has_ended, what="it has ended although somebody looks at it")


def test_a_trainer_runs_also_where_no_daemon_comes_up(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.tex").touch()

    ended = cli_process(tmp_path / "d", "run", sys.executable, "-c", "print('trained')")

    assert (ended.returncode, ended.stdout) == (0, "trained\n")
    assert "no daemon: " in ended.stderr
    assert "The trainer runs without" in ended.stderr


@pytest.mark.parametrize(("command", "code"), [("no-such-trainer", 127), ("/", 126)])
def test_a_command_that_cannot_be_run_ends_as_a_shell_would(start_daemon: Start, command: str, code: int) -> None:
    daemon = start_daemon()

    ended = cli_process(daemon.directory, "run", command)

    assert ended.returncode == code
    assert ended.stderr.startswith(f"compiler-daemon: {command} cannot be run: ")


def test_run_without_a_command_is_wrong_use(tmp_path: Path) -> None:
    ended = cli_process(tmp_path, "run")

    assert ended.returncode == 2
    assert "compiler-daemon run -- python train.py" in ended.stderr


def test_a_daemon_that_is_another_machines_is_not_started_here(tmp_path: Path) -> None:
    ended = cli_process(tmp_path / "d", "run", "--address", "127.0.0.1:1", sys.executable, "-c", "pass")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert not (tmp_path / "d").exists()


def test_serve_detach_unless_running_says_where_the_first_one_is(start_daemon: Start) -> None:
    daemon = start_daemon()

    ended = cli_process(daemon.directory, "serve", "--detach", "--unless-running")

    assert (ended.returncode, ended.stdout) == (0, f"ready {daemon.address}\n")


def test_a_worker_of_the_trainers_interpreter_warms_up_before_it_says_hello(start_daemon: Start) -> None:
    daemon = start_daemon(pool={"first_interpreter": sys.executable})

    wait_until(lambda: daemon.status().workers, what="a worker is there")


def test_a_lock_that_somebody_only_looked_at_does_not_stop_a_daemon(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    lock.acquire()
    lock.release()
    with open(tmp_path / "daemon.lock") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.02, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()

        lock.acquire()

    assert DirectoryLock(tmp_path).is_held()
    lock.release()
