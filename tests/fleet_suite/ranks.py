"""A job of ranks over two nodes, one of which has the graphs and the other nothing, with and without a tier."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benches.harness.ports import free_ports
from tests.e2e.conftest import Outcome, wait_until
from tests.e2e.nodes import Node
from tests.fleet_suite.row import Finding, Row
from tests.fleet_suite.stage import Stage, tier_of

_EACH = 1
"""Ranks a node: two cores have no room for more."""
_DEADLINE_S = 120.0
"""What a rank may wait for one graph: TORCH_COMPILE_CLIENT_TIMEOUT. Collectives end after as long, see ranks.py."""
# The linker's own name for an object: a hash, in which two links of the same code were seen to differ.
_BUILD_ID = re.compile(struct.pack("<III4s", 4, 20, 3, b"GNU\0") + b".{20}", re.DOTALL)
_ALONE = (
    "2 nodes of a job, one warm, one cold, without a tier: nothing is shared, so each node has artifacts of its own; "
    "the machine code in them is the same but for the linker's build ID, so are the losses, and none waits "
    "beyond its deadline"
)
_LAUNCHER = ("-m", "torch.distributed.run", f"--nproc-per-node={_EACH}")


def ranks(stage: Stage) -> Iterator[Row]:
    """Yield rows: one node warm and one cold, and both cold, with a tier; one warm and one cold without."""
    agree = (
        "2 nodes of a job, {}: all ranks end with the same artifacts and the losses of torch alone, and none waits "
        "beyond its deadline"
    )
    rows = {
        "one warm, with a tier": (_one_warm, agree.format("one warm, one cold, with a tier")),
        "both cold, with a tier": (_both_cold, agree.format("both cold, with a tier")),
        "one warm, without a tier": (_without_tier, _ALONE),
    }
    for name, (play, promise) in rows.items():
        if stage.wants(name):
            finding = play(stage)
            yield Row(name=name, promise=promise, found=finding.text, passed=finding.passed)


def _one_warm(stage: Stage) -> Finding:
    with stage.lab() as lab, tier_of("directory") as tier:
        warm, cold = stage.nodes(lab, tier, "warm", "cold")
        _one_node(warm)
        wait_until(lambda: warm.daemon.counters().get("tier_written", 0), what="the artifacts are in the tier")
        finding = _job(stage, warm, cold)
        _agree(finding, warm, cold)
        hits = cold.daemon.counters().get("tier_hits", 0)
        finding.check(
            hits and not _compiles(cold), f"the cold node took {hits} from the tier and compiled {_compiles(cold)}"
        )
        return finding


def _both_cold(stage: Stage) -> Finding:
    with stage.lab() as lab, tier_of("directory") as tier:
        both = stage.nodes(lab, tier, "n0", "n1")
        finding = _job(stage, *both)
        _agree(finding, *both)
        compiles, kept = sum(map(_compiles, both)), len(both[0].artifacts())
        finding.check(compiles == kept, f"{compiles} compiles of {kept} graphs in both")
        return finding


def _without_tier(stage: Stage) -> Finding:
    with stage.lab() as lab:
        warm, cold = stage.nodes(lab, None, "warm", "cold")
        _one_node(warm)
        finding = _job(stage, warm, cold)
        code = [_machine_code(node) for node in (warm, cold)]
        finding.check(
            code[0] == code[1],
            f"{len(code[0] & code[1])} of {len(code[0] | code[1])} pieces of machine code are the same on both",
        )
        same = warm.artifacts() == cold.artifacts()
        finding.note(f"{'the same' if same else 'different'} artifacts: each node compiled its own")
        return finding


def _one_node(node: Node) -> None:
    """Have a job on one node compile the graphs, with as many ranks as the job of both has."""
    launcher = ("-m", "torch.distributed.run", f"--nproc-per-node={2 * _EACH}", "--standalone")
    outcome = node.train("ranks.py", launcher=launcher).wait()
    assert outcome.code == 0, outcome.err


def _job(stage: Stage, first: Node, second: Node) -> Finding:
    """Run a job over both nodes, and look at its end, its losses, and how long its ranks waited."""
    standalone = ("-m", "torch.distributed.run", f"--nproc-per-node={2 * _EACH}", "--standalone")
    alone = stage.alone("ranks.py", launcher=standalone)
    [port] = free_ports(1)
    meeting = ("--nnodes=2", "--master-addr=127.0.0.1", f"--master-port={port}")
    variables = {"TORCH_COMPILE_CLIENT_TIMEOUT": str(_DEADLINE_S), "RANKS_TIMEOUT_S": str(_DEADLINE_S)}
    trainers = [
        node.train("ranks.py", launcher=(*_LAUNCHER, *meeting, f"--node-rank={number}"), **variables)
        for number, node in enumerate((first, second))
    ]
    outcomes = [trainer.wait() for trainer in trainers]
    finding = Finding()
    codes = [outcome.code for outcome in outcomes]
    finding.check(codes == [0, 0], f"exit codes of both launchers {codes}")
    said = outcomes[0].out[-1:] == [json.dumps(alone)]
    finding.check(said, "losses of all ranks as without a daemon" if said else f"other losses: {outcomes[0].out[-1:]}")
    reports = [report for outcome in outcomes for report in _of_ranks(outcome)]
    finding.check(len(reports) == 2 * _EACH, f"{len(reports)} ranks")
    here = sum(report["compiled_here"] for report in reports)
    finding.check(not here, f"{here} graphs compiled by ranks")
    failures = sorted({name for report in reports for name in report["fallbacks"]})
    finding.check(not failures, f"failures {failures or 'none'}")
    # The report has the sum over a rank's graphs: where that is below the deadline for one, each of them is.
    longest = max((report["seconds_waited"] for report in reports), default=0.0)
    finding.check(
        longest < _DEADLINE_S, f"a rank waited at most {longest:.1f} s in all, its deadline is {_DEADLINE_S:.0f} s"
    )
    return finding


def _of_ranks(outcome: Outcome) -> list[dict[str, Any]]:
    """The reports of a node's ranks; the launcher's own has no graphs."""
    reports = [json.loads(file.read_text()) for file in sorted(Path(outcome.folder).glob("report.json*"))]
    return [report for report in reports if report["graphs"]]


def _agree(finding: Finding, first: Node, second: Node) -> None:
    kept = [node.artifacts() for node in (first, second)]
    same = kept[0] == kept[1] and bool(kept[0])
    finding.check(same, f"{len(kept[0] & kept[1])} of {len(kept[0] | kept[1])} artifacts are on both nodes")


def _compiles(node: Node) -> int:
    counters = node.daemon.counters()
    return counters.get("tier_written", 0) + counters.get("tier_adopted", 0)


def _machine_code(node: Node) -> set[str]:
    """The digests of the shared objects in its artifacts, without the linker's names for them."""
    objects = (blob for blob in node.daemon.blobs() if blob.startswith(b"\x7fELF"))
    return {hashlib.sha256(_BUILD_ID.sub(b"", blob)).hexdigest() for blob in objects}
