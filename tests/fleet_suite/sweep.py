"""`warm --share` of one sweep on two nodes, whole and with a node that is killed. Workers pretend: jobs are counted."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.daemon.daemon_process import wait_until
from tests.daemon.tier.node_samples import Node, started
from tests.fleet_suite.row import Finding, Row
from tests.fleet_suite.stage import Stage

_LETTERS = "abcdefghijkl"
_GRAPHS = len(_LETTERS)
_LEAST = 3
"""Of the graphs, a node takes at least so many where all goes well: a third would be 4, and chance has its part."""
_LIMIT_S = 120.0


def sweep(stage: Stage) -> Iterator[Row]:
    """Yield a row without trouble and one in which a node is killed."""
    folder = stage.new_folder()
    promise = "12 graphs over two daemons: each compiled once, and each node has all of them"
    with _nodes(folder) as nodes:
        codes = [run.wait(_LIMIT_S) for run in [_warm(node) for node in nodes]]
        finding = Finding()
        finding.check(codes == [0, 0], f"exit codes {codes}")
        compiles = _compiles(nodes)
        finding.check(compiles == dict.fromkeys(_LETTERS, 1), f"{compiles.total()} compiles of {len(compiles)} graphs")
        shares = [sum(len(node.jobs(f"key-{letter}")) for letter in _LETTERS) for node in nodes]
        finding.check(min(shares) >= _LEAST, f"the nodes compiled {shares[0]} and {shares[1]}")
        _has_all(finding, nodes)
        yield Row(name="two nodes", promise=promise, found=finding.text, passed=finding.passed, workers="pretending")

    folder = stage.new_folder()
    promise = "one daemon is killed (`kill -9`) with a graph in hand: at most 13 compiles, and the other node has all"
    with _nodes(folder) as nodes:
        dying, other = nodes
        runs = [_warm(node) for node in nodes]
        wait_until(
            lambda: _compiles(nodes).total() >= _GRAPHS // 2 and _in_hand(dying),
            what="half are compiled",
            deadline_s=_LIMIT_S,
        )
        dying.kill()
        before = _compiles(nodes).total()
        code = runs[1].wait(_LIMIT_S)
        runs[0].wait(_LIMIT_S)
        finding = Finding()
        finding.check(code == 0, f"the other node's exit code {code}")
        compiles = _compiles(nodes)
        finding.note(f"killed after {before} of the compiles were begun")
        finding.check(before < _GRAPHS, f"{_GRAPHS - before} graphs were left")
        finding.check(
            len(compiles) == _GRAPHS and compiles.total() <= _GRAPHS + 1,
            f"{compiles.total()} compiles of {len(compiles)} graphs",
        )
        _has_all(finding, [other])
        yield Row(name="one killed", promise=promise, found=finding.text, passed=finding.passed, workers="pretending")


@contextlib.contextmanager
def _nodes(folder: Path) -> Iterator[list[Node]]:
    (folder / "tier").mkdir()
    made = [Node(folder / name, f"file://{folder / 'tier'}", pool={"max_workers": 1}) for name in ("n1", "n2")]
    with contextlib.contextmanager(started)(made) as nodes:
        yield nodes


def _warm(node: Node) -> subprocess.Popen[bytes]:
    trainer = (sys.executable, "-m", "tests.daemon.asking_trainer", "key-{letter}=ok 1 #{letter}")
    command = ["warm", "--json", "--share", "--jobs", "4", "--dir", str(node.directory)]
    matrix = ["--matrix", f"letter={','.join(_LETTERS)}"]
    with node.log.with_suffix(".warm").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "compiler_daemon", *command, *matrix, "--", *trainer], stdout=log, stderr=log
        )


def _compiles(nodes: Sequence[Node]) -> Counter[str]:
    """How often each graph was given to a worker, on these nodes together."""
    return Counter(letter for node in nodes for letter in _LETTERS for _ in node.jobs(f"key-{letter}"))


def _in_hand(node: Node) -> bool:
    """Whether the node's worker has a graph now."""
    done = node.counted("tier_written")
    return sum(len(node.jobs(f"key-{letter}")) for letter in _LETTERS) > done


def _has_all(finding: Finding, nodes: Sequence[Node]) -> None:
    has = [sum(bool(node.lookup(f"key-{letter}")) for letter in _LETTERS) for node in nodes]
    finding.check(set(has) == {_GRAPHS}, f"{' and '.join(map(str, has))} of {_GRAPHS} graphs found afterwards")
