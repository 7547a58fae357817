"""What a bench has started ends with it, however the bench ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benches.harness.processes import run_child

REPOSITORY = Path(__file__).parents[2]
ENDED_S = 120.0
GONE_S = 30.0

BENCH = """
import json, multiprocessing, os, shutil, sys, time
from pathlib import Path

from benches.harness.daemon import ServedDaemon
from benches.harness.processes import run_bench, run_with_parent, start_child
from benches.harness.redis_server import redis_served

def main():
    folder = Path(sys.argv[1])
    program = start_child([sys.executable, "-c", "import time; time.sleep(600)"])
    process = multiprocessing.get_context("spawn").Process(
        target=run_with_parent, args=(os.getpid(), time.sleep, 600), daemon=True
    )
    process.start()
    daemon = ServedDaemon(folder, "--workers", "1", "--no-prewarm")
    daemon.start()
    redis = redis_served(folder) if shutil.which("redis-server") else None
    if redis is not None:
        redis.__enter__()
    try:
        print(json.dumps([program.pid, process.pid, daemon.pid]), flush=True)
        time.sleep(600)
    finally:
        (folder / "cleaned").touch()

if __name__ == "__main__":
    run_bench(main)
"""


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def runs(process: psutil.Process) -> bool:
    """Return whether the process runs; one that has ended without being waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path is short enough for a socket's name."""
    return tmp_path_factory.mktemp("s")


@pytest.mark.skipif(sys.platform != "linux", reason="the system tells a child of its parent's end on Linux")
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_whatever_a_bench_has_started_ends_with_it(short: Path, by: signal.Signals) -> None:
    program = short / "bench.py"
    program.write_text(BENCH)
    bench = subprocess.Popen(
        [sys.executable, str(program), str(short)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "proto")])},
        stdout=subprocess.PIPE,
    )
    with bench:
        assert bench.stdout is not None
        started: list[int] = json.loads(bench.stdout.readline())
        children = children_of(bench.pid)
        assert {child.pid for child in children} >= set(started)
        assert len(children) >= len(started) + bool(shutil.which("redis-server"))

        bench.send_signal(by)
        code = bench.wait(ENDED_S)

    deadline = time.monotonic() + GONE_S
    while (left := [child for child in children if runs(child)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for child in left:
        child.kill()
    assert left == []
    assert code == (128 + by if by == signal.SIGTERM else -by)
    assert (short / "cleaned").exists() == (by == signal.SIGTERM)


def test_a_child_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    text = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)"

    with pytest.raises(subprocess.TimeoutExpired):
        run_child([sys.executable, "-c", text], timeout_s=5.0)

    assert not psutil.pid_exists(int(note.read_text()))


def test_what_a_child_says_comes_back_with_its_exit_code() -> None:
    done = run_child(
        [sys.executable, "-c", "import sys; print('said'); sys.exit(3)"], stdout=subprocess.PIPE, timeout_s=60.0
    )

    assert (done.stdout, done.returncode) == (b"said\n", 3)
