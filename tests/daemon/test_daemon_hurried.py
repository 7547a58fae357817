"""What somebody in a hurry types, and is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.daemon_process import DEADLINE_S, DaemonProcess
from tests.daemon.inventory_samples import cli, cli_process

Start = Callable[..., DaemonProcess]


@pytest.mark.parametrize(
    ("program", "code", "why"),
    [
        ("train.py", 127, "No such file or directory. Was this meant: compiler-daemon run -- python train.py"),
        ("pyhton", 127, "No such file or directory"),
        ("./plain.py", 126, "Permission denied. Was this meant: compiler-daemon run -- python ./plain.py"),
        ("/", 126, "Is a directory"),
    ],
)
def test_a_program_that_cannot_be_run_starts_no_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, code: int, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.py").write_text("pass")

    ended = cli_process(tmp_path / "d", "run", "--", program)

    assert (ended.returncode, ended.stderr) == (code, f"compiler-daemon: {program} cannot be run: {why}\n")
    assert not (tmp_path / "d").exists()


def test_where_nothing_is_kept_yet_nothing_was_named(start_daemon: Start) -> None:
    daemon = start_daemon()

    listed, exported = cli(daemon.directory, "ls"), cli(daemon.directory, "export", "file")

    assert listed.stdout == "no artifacts\n"
    assert exported.returncode == 1
    assert "no artifact is kept yet: a trainer's run" in exported.stderr
    assert "of what you named" in cli(daemon.directory, "export", "file", "--program", "zzz").stderr


def test_a_file_in_the_directorys_place_is_said_without_numbers(tmp_path: Path) -> None:
    (tmp_path / "d").touch()

    served, looked_at = cli_process(tmp_path / "d", "serve"), cli_process(tmp_path / "d", "doctor", "--no-trainer")

    assert "cannot be used: it is no directory; choose another with --dir" in served.stderr
    assert "(Not a directory): restart" in looked_at.stdout
    assert "Errno" not in served.stderr + looked_at.stdout


def test_a_start_says_that_all_is_in_order_in_words(tmp_path: Path) -> None:
    assert cli_process(tmp_path / "d", "serve", "--detach").returncode == 0
    assert cli_process(tmp_path / "d", "stop", "--now").returncode == 0

    log = (tmp_path / "d" / "log" / "daemon.log").read_text()
    assert "start-up scan: all in order" in log
    assert "ScanReport" not in log


def test_a_daemon_whose_first_line_nobody_reads_serves_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "compiler_daemon", "serve", "--no-page", "--dir", str(tmp_path / "d")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        waited = cli_process(tmp_path / "d", "status", "--wait", "--timeout", str(DEADLINE_S))
        stopped = cli_process(tmp_path / "d", "stop", "--now")

        assert (waited.returncode, stopped.returncode) == (0, 0)
        assert process.wait(DEADLINE_S) == 0
        assert process.stderr is not None
        assert "Broken pipe" not in process.stderr.read()
