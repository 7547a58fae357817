"""`dir`, `logs`, `clean`: what people look for who want to see a daemon's files, or be rid of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from compiler_daemon.admin.life.cleaning import clear, written_by_daemon
from compiler_daemon.errors import RunningError
from tests.daemon.daemon_process import DEADLINE_S, INTERRUPTIBLE, DaemonProcess, wait_until
from tests.daemon.inventory_samples import cli, cli_process, done, publish

Start = Callable[..., DaemonProcess]


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "daemon.log").write_text("one\ntwo \x1b[31mred\nthree\n")
    (tmp_path / "log" / "worker-0.log").write_text("a worker's\n")
    return tmp_path


def test_dir_is_the_daemons_directory_whether_it_is_there_or_not(tmp_path: Path) -> None:
    assert done(tmp_path / "d", "dir") == f"{tmp_path / 'd'}\n"
    assert json.loads(done(tmp_path, "dir", "--json")) == {"directory": str(tmp_path), "exists": True}


def test_logs_are_the_last_lines_and_steer_no_terminal(logged: Path) -> None:
    assert done(logged, "logs", "-n", "2").splitlines()[1] == "three"
    assert "\x1b" not in done(logged, "logs")
    assert done(logged, "logs", "worker-0") == "a worker's\n"
    assert len(done(logged, "logs", "--lines", "0").splitlines()) == 3


def test_a_log_that_is_none_names_those_that_there_are(logged: Path, tmp_path: Path) -> None:
    wrong = cli(logged, "logs", "../secret")
    nothing = cli(tmp_path / "new", "logs")

    assert (wrong.returncode, nothing.returncode) == (1, 1)
    assert "there are daemon, worker-0" in wrong.stderr
    assert "writes to its own terminal" in nothing.stderr


def test_logs_follow_what_comes_also_into_a_file_that_takes_the_place_of_the_first(logged: Path) -> None:
    log = logged / "log" / "daemon.log"
    command = [*INTERRUPTIBLE, sys.executable, "-m", "compiler_daemon", "logs", "-f", "-n", "1", "--dir", str(logged)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        seen = [following.stdout.readline()]
        with log.open("a") as file:
            file.write("four\n")
        seen.append(following.stdout.readline())
        log.replace(log.with_suffix(".log.1"))
        log.write_text("five\n")
        seen.append(following.stdout.readline())
        following.send_signal(signal.SIGINT)
        code = following.wait(DEADLINE_S)

    assert seen == ["three\n", "four\n", "five\n"]
    assert code == 0


def test_clean_stops_the_daemon_and_leaves_what_is_not_its_own(start_daemon: Start) -> None:
    daemon = start_daemon()
    publish(daemon, "alpha", b"entry", program="sweep")
    (daemon.directory / "notes.txt").touch()
    (daemon.directory / "keys").mkdir()

    ended = cli_process(daemon.directory, "clean", "--yes")

    assert ended.returncode == 0, ended.stderr
    assert "removed store, " in ended.stdout
    assert daemon.process.wait(DEADLINE_S) == 0
    assert sorted(os.listdir(daemon.directory)) == ["daemon.lock", "keys", "notes.txt"]


def test_clean_asks_and_does_nothing_where_nobody_agrees(start_daemon: Start) -> None:
    daemon = start_daemon()

    unasked = cli(daemon.directory, "clean")
    refused = cli(daemon.directory, "clean", terminal_says="n\n")
    looked = cli(daemon.directory, "clean", "--dry-run")

    assert (unasked.returncode, refused.returncode, looked.returncode) == (2, 1, 0)
    assert "say --yes" in unasked.stderr
    assert "Stop the daemon, and remove store, " in refused.stderr
    assert looked.stdout.startswith("would remove store, ")
    assert daemon.health() == "SERVING"


def test_clean_of_everything_removes_the_directory_and_a_second_time_there_is_nothing(start_daemon: Start) -> None:
    daemon = start_daemon()

    first = cli_process(daemon.directory, "clean", "--yes", "--keys")
    second = cli_process(daemon.directory, "clean", "--yes")

    assert (first.returncode, second.returncode) == (0, 0)
    assert not daemon.directory.exists()
    assert "nothing of a daemon's" in second.stdout


def test_a_link_in_the_place_of_a_folder_is_removed_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "store").symlink_to(tmp_path / "precious")

    clear(tmp_path / "d", written_by_daemon(tmp_path / "d", keys=False))

    assert (tmp_path / "precious" / "file").exists()
    assert not (tmp_path / "d").exists()


def test_nothing_is_removed_under_a_daemon_that_has_started_meanwhile(start_daemon: Start) -> None:
    daemon = start_daemon()

    with pytest.raises(RunningError):
        clear(daemon.directory, written_by_daemon(daemon.directory, keys=False))

    assert daemon.health() == "SERVING"


def test_a_clients_directory_is_not_cleaned(tmp_path: Path) -> None:
    (tmp_path / "client.json").write_text("{}")
    (tmp_path / "client.json").chmod(0o600)

    ended = cli(tmp_path, "clean", "--yes")

    assert ended.returncode == 2
    assert "is a client's" in ended.stderr


def test_what_a_daemon_has_written_is_known_to_clean(start_daemon: Start) -> None:
    daemon = start_daemon(daemon={"idle_s": 600.0})
    publish(daemon, "alpha", b"entry", program="sweep")
    daemon.compiled("beta", b"ok")

    known = {one.path.name for one in written_by_daemon(daemon.directory, keys=True)} | {"daemon.lock"}

    wait_until(lambda: set(os.listdir(daemon.directory)) <= known, what="every name is known")
