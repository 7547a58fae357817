"""The wire bench with a few calls for each row; the tests check what it reads and counts, and no times."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benches.harness.measure import BenchError
from benches.lookup.__main__ import CELLS, RATIOS, ROWS
from benches.lookup.callers import Held, Places, Turn, callers

REPOSITORY = Path(__file__).parents[2]
LIMIT_S = 240.0


def run(*arguments: str, folder: Path, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benches.wire", "--rounds", "1", "--seconds", "60", "--calls", "2", *arguments],
        cwd=REPOSITORY,
        env={"PATH": path, "HOME": str(folder), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path is short enough for a socket's name."""
    return tmp_path_factory.mktemp("s")


def test_each_target_is_read_inline_and_streamed_by_one_and_by_many(short: Path) -> None:
    redis = ["redis@10KB,1", "redis@4MB,1"] if shutil.which("redis-server", path="/usr/bin:/bin") else []
    rows = ["daemon@10KB,1", "echo@10KB,1", "daemon@250KB,8", "echo@250KB,8", "daemon@4MB,1", "echo@4MB,1", *redis]

    done = run("--rows", ",".join(rows), "--out", str(short / "wire.json"), folder=short)

    assert done.returncode == 0, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert document == json.loads((short / "wire.json").read_text())
    assert {name: row["calls"] for name, row in document["rows"].items()} == {
        name: 16 if "8" in name.rpartition(",")[2] else 2 for name in rows
    }
    assert all(
        {"p50_ms", "p99_ms", "per_s", "mib_per_s", "p50_ms_max"} <= row.keys() for row in document["rows"].values()
    )
    assert {"daemon@4MB,1/echo@4MB,1:p50_ms", "daemon@250KB,8/echo@250KB,8:p50_ms"} <= document["ratios"].keys()
    assert document["limits"] == {}
    memory = document["daemon_rss_mib"]
    assert set(memory["under"]) == {"10KB,1", "250KB,8", "4MB,1"}
    assert min(memory["before"], memory["after"], *memory["under"].values()) > 0


def test_a_row_that_nobody_defined_is_refused_with_those_there_are(short: Path) -> None:
    done = run("--rows", "daemon@10KB,1,daemon@11KB,1", folder=short)

    assert done.returncode == 2
    assert "no row daemon@11KB,1; there are daemon@10KB,1" in done.stderr


def test_rows_of_redis_without_a_redis_server_say_what_to_install(short: Path) -> None:
    done = run("--rows", "redis@10KB,1", folder=short, path=str(short))

    assert done.returncode == 1
    assert "needs redis-server" in done.stderr


def test_an_answer_that_does_not_come_ends_the_bench(short: Path) -> None:
    turn = Turn(target="daemon", clients=1, held={"no such key": Held(10, ())}, seconds=1.0, calls=1)

    with (
        callers(Places(daemon=short / "nobody"), 1) as those,
        pytest.raises(BenchError, match=r"daemon: .*no such key is no hit"),
    ):
        those.take(turn, lambda: None)


def test_every_cell_is_compared_with_both_others() -> None:
    assert len(ROWS) == 3 * len(CELLS)
    assert {(ratio.above, ratio.below) for ratio in RATIOS} == {
        (name, name.replace("daemon", other))
        for name in ROWS
        if name.startswith("daemon")
        for other in ("redis", "echo")
    }
    assert [ratio.name for ratio in RATIOS if ratio.goal] == ["daemon@250KB,1/redis@250KB,1:p50_ms"]
