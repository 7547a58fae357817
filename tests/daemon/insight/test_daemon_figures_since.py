"""`stats --zero`: figures from a moment on, while the daemon's own counters go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from compiler_daemon.admin.answers import Figures
from compiler_daemon.admin.insight.since import begin_again, since_then
from tests.daemon.daemon_process import DaemonProcess
from tests.daemon.inventory_samples import as_json, cli, done, publish

Start = Callable[..., DaemonProcess]


def figures(**document: Any) -> Figures:
    whole = {"hits": 5, "misses": 2, "compiled": 1, "published": 0, "artifacts": 3, "misses_by_reason": {"new": 2}}
    return Figures.of(whole | document)


def test_what_was_counted_before_is_taken_off_and_what_is_there_stays(tmp_path: Path) -> None:
    programs = [
        {"program": "a", "runs": 2, "hits": 4, "seen": 1.0},
        {"program": "b", "runs": 1, "hits": 1, "seen": 2.0},
    ]
    begin_again(tmp_path, figures(programs=programs))
    later = [{"program": "a", "runs": 3, "hits": 9, "seen": 5.0}, programs[1]]

    now, since = since_then(
        tmp_path, figures(hits=8, artifacts=4, misses=3, misses_by_reason={"new": 2, "gone": 1}, programs=later)
    )

    assert since > 0
    assert (now.hits, now.misses, now.artifacts, now.misses_by_reason) == (3, 1, 4, {"gone": 1})
    assert [(one.program, one.runs, one.hits, one.seen) for one in now.programs] == [("a", 1, 5, 5.0)]


def test_a_store_that_was_made_anew_counts_from_its_own_beginning(tmp_path: Path) -> None:
    begin_again(tmp_path, figures(hits=100))

    now, since = since_then(tmp_path, figures(hits=1))

    assert (now.hits, since) == (1, 0.0)


def test_stats_count_from_zero_and_all_has_everything(start_daemon: Start) -> None:
    daemon = start_daemon()
    publish(daemon, "alpha", b"entry", program="sweep")
    daemon.lookup("alpha")
    first = cli(daemon.directory, "stats", "--zero")
    daemon.lookup("alpha")
    daemon.lookup("absent")

    since, everything = as_json(daemon.directory, "stats"), as_json(daemon.directory, "stats", "--all")

    assert (first.returncode, first.stderr) == (0, "the next `stats` counts from now on\n")
    assert (since["hits"], since["misses"]) == (1, 1)
    assert (everything["hits"], everything["misses"]) == (2, 1)
    assert since["artifacts"] == everything["artifacts"] == 1
    assert done(daemon.directory, "stats").startswith("since ")
    assert daemon.status().counters["lookup_hits"] == 2
