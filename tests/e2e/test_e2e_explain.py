"""With real trainers and a real daemon, a miss is explained in words at the end of a run and afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from tests.e2e.conftest import Daemon, Lab, clean_environment


def asked(daemon: Daemon, *words: str) -> dict[str, Any]:
    """Return what a command answers as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "compiler_daemon", *words, "--json", "--dir", str(daemon.directory)],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def counts_of_waves(daemon: Daemon) -> Counter[str]:
    """Return what the daemon has counted of `wave.py`, which other tests may have run on it before."""
    program = next((one for one in asked(daemon, "stats")["programs"] if one["program"] == "wave.py"), None)
    if program is None:
        return Counter()
    return Counter({name: program[name] for name in ("runs", "hits", "compiled_by_daemon")} | program["misses"])


@pytest.mark.timeout(600)
def test_another_shape_is_named_at_the_end_of_the_run_and_by_explain(one_lab: Lab, daemon: Daemon) -> None:
    before = counts_of_waves(daemon)
    one_lab.run("wave.py", "5", daemon=daemon)

    changed = one_lab.run("wave.py", "7", daemon=daemon, TORCH_COMPILE_CLIENT_EXPLAIN="1")
    there = one_lab.run("wave.py", "5", daemon=daemon, TORCH_COMPILE_CLIENT_EXPLAIN="1")

    assert "was compiled by the daemon: never seen before; the nearest known request differs in" in changed.err
    assert "input 0 (x): shape [7], was [5]" in changed.err
    assert "never seen" not in there.err
    last = asked(daemon, "explain", "--program", "wave.py")
    assert (last["run"]["hits"], last["graphs"]) == (1, [])
    key = asked(daemon, "stats")["slowest"][0]["key"]
    (explained,) = asked(daemon, "explain", key[:20])["graphs"]
    assert explained["key"] == key
    assert counts_of_waves(daemon) - before == {"runs": 3, "hits": 1, "compiled_by_daemon": 2, "new": 2}


def test_a_graph_that_cannot_be_carried_is_explained_by_its_node_and_line(one_lab: Lab, daemon: Daemon) -> None:
    outcome = one_lab.run("own_operator.py", "3.25", daemon=daemon, TORCH_COMPILE_CLIENT_EXPLAIN="1")

    assert "node twice" in outcome.err
    assert "own_operator.py:20 in <lambda>" in outcome.err
    (graph,) = asked(daemon, "explain", "--program", "own_operator.py")["graphs"]
    assert (graph["outcome"], graph["reason"]) == ("compiled_here", "not_carried")
    assert "own_operator.py:20 in <lambda>" in graph["message"]
    assert asked(daemon, "stats")["here_by_reason"]["not_carried"] >= 1


def test_without_a_daemon_a_run_explains_what_it_knows_itself(lab: Lab) -> None:
    outcome = lab.run("wave.py", "3", daemon=lab.folder / "nobody", TORCH_COMPILE_CLIENT_EXPLAIN="1")

    assert "the daemon cannot be asked" in outcome.err
    assert "was compiled here (absent): no daemon at" in outcome.err
