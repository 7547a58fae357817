"""`warm` as a process leaves no trainer behind and reports mistakes. The trainers here know nothing of torch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from compiler_daemon.admin.sweep import aside
from tests.daemon.daemon_process import DEADLINE_S, INTERRUPTIBLE, DaemonProcess

SLEEPER = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
with open(sys.argv[1], "a") as file:
    file.write(f"{os.getpid()} {child.pid}\\n")
time.sleep(600)
"""


def command(directory: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "compiler_daemon", "warm", "--dir", str(directory), *arguments]


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(directory, *arguments), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_trainer_with_its_children_and_leaves_no_scratch(
    daemon: DaemonProcess, tmp_path: Path, number: signal.Signals
) -> None:
    pids = tmp_path / "pids"
    cells = ["--jobs", "2", "--matrix", "x=1,2,3", "--", sys.executable, "-c", SLEEPER, str(pids), "{x}"]
    process = subprocess.Popen(
        [*INTERRUPTIBLE, *command(daemon.directory, *cells)],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + DEADLINE_S
    while not pids.exists() or pids.read_text().count("\n") < 2:
        assert time.monotonic() < deadline, "the trainers did not start"
        time.sleep(0.05)

    process.send_signal(number)
    _, talk = process.communicate(timeout=DEADLINE_S)

    assert process.returncode == 130
    assert "no trainer is left" in talk
    started = [int(pid) for line in pids.read_text().splitlines() for pid in line.split()]
    assert len(started) == 4
    assert not [pid for pid in started if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
    assert not list((daemon.directory / "warm").glob("cell-*"))


def test_a_cell_without_graphs_is_done_and_said(daemon: DaemonProcess) -> None:
    done = run(daemon.directory, "--json", "--", sys.executable, "-c", "pass")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["graphs"] == 0
    assert "no graph reached the client" in done.stderr


def test_a_trainer_sees_the_client_switched_on_and_empty_caches_that_go_with_it(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    out = tmp_path / "environ.json"
    code = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w')); print(sys.argv[2])"

    done = run(daemon.directory, "--json", "--", sys.executable, "-c", code, str(out), "{scratch}/results")

    seen = json.loads(out.read_text())
    assert (seen["TORCH_COMPILE_CLIENT"], seen["TORCH_COMPILE_CLIENT_WARM"]) == ("1", "1")
    assert seen["COMPILER_DAEMON_DIR"] == str(daemon.directory)
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        assert Path(seen[name]).is_relative_to(daemon.directory / "warm")
        assert not os.path.exists(seen[name])
    log = Path(json.loads(done.stdout)["cells"][0]["log"]).read_text()
    assert log.strip().endswith("/scratch/results")


WRITER = "import os, sys; open('checkpoint', 'w').write('x'); print(os.environ.get('WANDB_MODE'), os.listdir('.'))"


@pytest.mark.parametrize("away", [True, False])
def test_what_a_trainer_writes_goes_with_it_where_the_kernel_can_and_it_is_said(
    daemon: DaemonProcess, tmp_path: Path, away: bool
) -> None:
    if away and (why := aside.why_not([tmp_path], daemon.directory / "warm")):
        pytest.skip(f"files cannot be kept away here: {why}")
    manifest = tmp_path / "sweep.toml"
    command = json.dumps([sys.executable, "-c", WRITER])
    manifest.write_text(f'[sweep]\ncommand = {command}\ndirectory = "."\n')

    done = run(
        daemon.directory, "--json", "--manifest", str(manifest), *([] if away else ["--no-aside", "--steps", "0"])
    )

    said = Path(json.loads(done.stdout)["cells"][0]["log"]).read_text()
    assert ("checkpoint" in said, said.split()[0]) == (True, "offline" if away else "None")
    assert (tmp_path / "checkpoint").exists() is not away
    assert (
        "their files go with them; wandb, MLflow and Neptune tell nobody of them; each ends 100 steps" in done.stderr
    ) is away
    assert ("trainers:" in done.stderr) is away
    assert not list((daemon.directory / "warm").glob("cell-*"))


def test_where_files_cannot_be_kept_away_that_is_said_and_the_trainer_runs(
    start_daemon: Callable[..., DaemonProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = start_daemon()
    monkeypatch.chdir(tmp_path)  # the daemon's directory is below

    done = run(daemon.directory, "--json", "--", sys.executable, "-c", WRITER)

    assert done.returncode == 0, done.stderr
    assert "trainers: files are written as always, since the daemon's directory is below" in done.stderr
    assert (tmp_path / "checkpoint").exists()


def test_a_cell_over_its_time_is_ended_and_a_command_that_is_not_there_is_said(daemon: DaemonProcess) -> None:
    slow = run(daemon.directory, "--cell-seconds", "1", "--", sys.executable, "-c", "import time; time.sleep(600)")
    missing = run(daemon.directory, "--", "/nonexistent/python", "x")

    assert slow.returncode == missing.returncode == 1
    assert "it ran for more than 1 s" in slow.stderr
    assert "/nonexistent/python cannot be started" in missing.stderr


def test_with_no_keep_going_the_first_failure_is_the_last_cell(daemon: DaemonProcess) -> None:
    failing = ["--", sys.executable, "-c", "import sys; sys.exit(int(sys.argv[1]))", "{code}"]

    done = run(daemon.directory, "--json", "--no-keep-going", "--jobs", "1", "--matrix", "code=0,3,4", *failing)

    assert done.returncode == 1
    assert [cell["status"] for cell in json.loads(done.stdout)["cells"]] == ["done", "failed"]


def test_without_a_daemon_nothing_is_run_and_it_is_said_what_to_do(tmp_path: Path) -> None:
    done = run(tmp_path / "nobody", "--", sys.executable, "-c", "raise SystemExit('was run')")

    assert done.returncode == 1
    assert "compiler-daemon serve" in done.stderr
    assert "was run" not in done.stderr


def test_wrong_use_is_exit_code_two(daemon: DaemonProcess, tmp_path: Path) -> None:
    assert run(daemon.directory).returncode == 2
    assert run(daemon.directory, "--matrix", "x=1", "--", "true").returncode == 2
    assert run(daemon.directory, "--manifest", str(tmp_path / "none.toml")).returncode == 2
    assert run(daemon.directory, "--manifest", "a.toml", "--", "true").returncode == 2


def test_a_dry_run_lists_the_cells_and_runs_none(tmp_path: Path) -> None:
    done = run(tmp_path / "nobody", "--dry-run", "--matrix", "x=1,2", "--", "touch", str(tmp_path / "{x}"))

    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"x=1: touch {tmp_path}/1", f"x=2: touch {tmp_path}/2"]
    assert not (tmp_path / "1").exists()
