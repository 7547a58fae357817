"""`ls`, `show`, `stats`, `gc` and their like where no daemon runs: the answers are the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compiler_daemon.admin.inventory.offline import opened_store
from compiler_daemon.config import DaemonLocation
from tests.daemon.daemon_process import DaemonProcess
from tests.daemon.inventory_samples import as_json, cli, done, graph_of, publish

Start = Callable[..., DaemonProcess]


def place_of(directory: Path) -> DaemonLocation:
    return DaemonLocation.resolve({}, directory=directory, address=None)


def answers(directory: Path) -> dict[str, Any]:
    stats = as_json(directory, "stats")
    for name in ("store_max_bytes", "counters", "store_bytes"):
        stats.pop(name, None)
    would = as_json(directory, "gc", "--dry-run", "--max-size", "0")
    return {"ls": as_json(directory, "ls"), "show": as_json(directory, "show", "alpha"), "stats": stats, "gc": would}


@pytest.fixture
def directory(start_daemon: Start) -> Path:
    """Return the directory of a daemon that has ended, with three artifacts and a graph."""
    daemon = start_daemon()
    publish(daemon, "alpha", b"entry a", b"shared", program="sweep", graph=graph_of())
    publish(daemon, "beta", b"entry b", program="sweep")
    publish(daemon, "gamma", b"entry c", program="other")
    daemon.lookup("alpha")
    done(daemon.directory, "pin", "gamma")
    done(daemon.directory, "stop")
    return daemon.directory


def test_the_answers_are_those_of_a_daemon(start_daemon: Start, directory: Path) -> None:
    without = answers(directory)
    start_daemon(directory.name)
    with_one = answers(directory)

    assert without == with_one
    assert (without["ls"]["count"], without["stats"]["hits"]) == (3, 1)


def test_people_get_tables_and_no_size_that_nobody_has_said(directory: Path) -> None:
    assert "3 artifacts of 3 graphs" in done(directory, "ls")
    assert "relu" in done(directory, "show", "alpha")
    store = next(line for line in done(directory, "stats").splitlines() if "store" in line)
    assert " of " not in store


def test_a_collection_takes_what_was_asked_for_and_nothing_for_want_of_room(directory: Path) -> None:
    by_itself = as_json(directory, "gc")
    to_nothing = as_json(directory, "gc", "--max-size", "0")

    assert by_itself["artifacts"] == 0
    assert to_nothing["artifacts"] <= 2
    assert "gamma" in {row["key"] for row in as_json(directory, "ls")["artifacts"]}  # it is pinned


def test_artifacts_are_pinned_and_removed(directory: Path) -> None:
    assert "unpinned 1 artifact" in done(directory, "unpin", "gamma")
    assert "removed 2 artifacts" in done(directory, "rm", "--program", "sweep", "--yes")
    assert [row["key"] for row in as_json(directory, "ls")["artifacts"]] == ["gamma"]


def test_a_name_that_nothing_has_is_the_same_failure(directory: Path) -> None:
    ended = cli(directory, "show", "zzz")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "zzz" in ended.stderr


def test_where_there_is_no_store_the_way_to_one_is_said(tmp_path: Path) -> None:
    ended = cli(tmp_path, "ls")

    assert ended.returncode == 1
    assert "start one with `compiler-daemon serve`" in ended.stderr


def test_no_daemon_starts_in_the_middle_and_the_next_one_does(start_daemon: Start, directory: Path) -> None:
    command = [sys.executable, "-m", "compiler_daemon", "serve", "--dir", str(directory)]
    with opened_store(place_of(directory)):
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert refused.returncode == 1
    assert "already" in refused.stderr
    assert start_daemon(directory.name).health() == "SERVING"
