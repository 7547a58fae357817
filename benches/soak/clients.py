"""The soak's client processes: the real client's code, asked in a loop, every byte of every answer checked.

What they do while the daemon is away is what a trainer does: they go on without. A failure is only what a user would
call one: an exception, an answer later than its deadline, a wrong byte.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import MutableSequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from random import Random
from typing import Any

import psutil

from benches.harness.daemon import clean_environment
from benches.harness.measure import CacheDirs
from benches.harness.processes import run_child
from benches.harness.synthetic import ENVIRONMENT, Catalogue
from compile_client.testing import ClientConfig, CompileRequest, DaemonClient, Refusal

LATE_S = 10.0
"""What an answer may take beyond its deadline on a machine whose cores are all busy."""
_TRAINER_S = 300.0
_ROUNDS_A_SAMPLE = 20
_TRAINERS = Path(__file__).with_name("trainer.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientPlan:
    """What one client process does."""

    number: int
    seed: int
    directory: Path
    catalogue: Catalogue
    rounds_per_s: float
    graph_timeout_s: float
    trainer_every_s: float = 0.0
    """Above 0: instead of synthetic rounds it starts a real trainer so often."""


Beats = MutableSequence[float]
"""For each client the moment (of `time.monotonic`) at which what it does now must be over; 0 while it is idle."""


def run_client(plan: ClientPlan, beats: Beats, stop: Event, results: Queue[dict[str, Any]]) -> None:
    """Work until `stop` is set, then put one document into `results`. Never raises."""
    tally: Counter[str] = Counter()
    failures: list[str] = []
    facts: dict[str, Any] = {"number": plan.number, "kind": "trainers" if plan.trainer_every_s else "synthetic"}
    try:
        if plan.trainer_every_s:
            _run_trainers(plan, beats, stop, tally, failures)
        else:
            facts |= _run_synthetic(plan, beats, stop, tally, failures)
    except BaseException:  # noqa: BLE001 - an exception is what is looked for
        failures.append(f"client {plan.number} raised: {traceback.format_exc()}")
    beats[plan.number] = 0.0
    results.put({**facts, "counts": dict(tally), "failures": failures[:20], "failed": len(failures)})


def _run_synthetic(
    plan: ClientPlan, beats: Beats, stop: Event, tally: Counter[str], failures: list[str]
) -> dict[str, Any]:
    pick = Random(f"{plan.seed} {plan.number}")  # noqa: S311 - a run must be repeatable
    config = ClientConfig(
        directory=plan.directory,
        graph_timeout_s=plan.graph_timeout_s,
        log_level=logging.CRITICAL + 1,
    )
    rss: list[int] = []
    slowest_s = 0.0
    # One client for as long as the process lives, as a trainer has: what it holds on to would show. Connections and
    # handshakes begin anew each time that the daemon comes back.
    client = DaemonClient(config, lambda: ENVIRONMENT, program="benches.soak", env={})
    while not stop.is_set():
        begin = time.monotonic()
        beats[plan.number] = begin + plan.graph_timeout_s + LATE_S
        _round(plan, client, pick, tally, failures)
        took = time.monotonic() - begin
        slowest_s = max(slowest_s, took)
        if took > plan.graph_timeout_s + LATE_S:
            failures.append(f"client {plan.number}: a round took {took:.1f} s")
        beats[plan.number] = 0.0
        if tally["rounds"] % _ROUNDS_A_SAMPLE == 0:
            rss.append(psutil.Process().memory_info().rss)
        stop.wait(pick.expovariate(plan.rounds_per_s))
    beats[plan.number] = time.monotonic() + config.flush_s + LATE_S
    client.close()
    beats[plan.number] = 0.0
    _add_report(tally, client.counters.as_dict())
    tally["clients"] += 1
    rss.append(psutil.Process().memory_info().rss)
    return {
        "slowest_round_s": round(slowest_s, 2),
        "rss_mib": [round(size / 2**20, 1) for size in rss],
        "open_files": psutil.Process().num_fds(),
    }


def _round(plan: ClientPlan, client: DaemonClient, pick: Random, tally: Counter[str], failures: list[str]) -> None:
    """Deal with one graph as a trainer does: look up, perhaps ask for a compile, else hand in its own."""
    # The lower numbers are asked for far more often than the higher: some keys are always warm, some always evicted.
    number = int(plan.catalogue.keys * pick.random() ** 2.5)
    key = plan.catalogue.key(number)
    tally["rounds"] += 1
    request = client.begin_graph(key)
    artifacts = request.lookup()
    for artifact in artifacts:
        tally["hits"] += 1
        tally["bytes_checked"] += sum(len(data) for data in artifact.blobs.values())
        if wrong := plan.catalogue.complaint(number, artifact):
            failures.append(f"client {plan.number}: {wrong}")
    if artifacts:
        return
    tally["without_answer" if request.ended else "misses"] += 1
    if not request.ended and pick.random() < 0.02:
        # No worker can serve this environment, and the graph is none: the daemon has to say so politely.
        graph = plan.catalogue.compiled(number).graph or b""
        outcome = request.compile(CompileRequest(kind="graph", key=key, payload=graph))
        if isinstance(outcome, Refusal):
            tally["refusals"] += 1
        elif outcome is not None and (wrong := plan.catalogue.complaint(number, outcome)):
            failures.append(f"client {plan.number}: compiled: {wrong}")
    if client.publish_later(plan.catalogue.compiled(number)):
        tally["offered"] += 1


def _add_report(tally: Counter[str], report: dict[str, object]) -> None:
    published = report.get("published", 0)
    tally["published"] += published if isinstance(published, int) else 0
    for group in ("fallbacks", "unpublished"):
        reasons = report.get(group, {})
        if isinstance(reasons, dict):
            tally.update({f"{group}.{reason}": int(count) for reason, count in reasons.items()})


def _run_trainers(plan: ClientPlan, beats: Beats, stop: Event, tally: Counter[str], failures: list[str]) -> None:
    """Start trainers with torch, one after the other, each in a process with caches of its own."""
    pick = Random(f"{plan.seed} {plan.number}")  # noqa: S311 - a run must be repeatable
    home = plan.directory.parent / f"trainer-{plan.number}"
    while not stop.is_set():
        begin = time.monotonic()
        caches = CacheDirs.fresh(home)
        report = home / "report.json"
        environment = _trainer_environment(caches) | {
            "TORCH_COMPILE_CLIENT": "1",
            "TORCH_COMPILE_CLIENT_REPORT": str(report),
            "TORCH_COMPILE_CLIENT_TIMEOUT": str(plan.graph_timeout_s),
            "TORCH_COMPILE_CLIENT_LOG": "off",
            "COMPILER_DAEMON_DIR": str(plan.directory),
        }
        beats[plan.number] = begin + _TRAINER_S + LATE_S
        try:
            done = run_child(
                [sys.executable, str(_TRAINERS), str(pick.randrange(4))],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout_s=_TRAINER_S,
            )
        except subprocess.TimeoutExpired:
            failures.append(f"client {plan.number}: a trainer hung")
            continue
        tally["trainers"] += 1
        if done.returncode != 0:
            said = f"{done.stdout.decode()[-500:]} {done.stderr.decode()[-1500:]}"
            failures.append(f"client {plan.number}: a trainer failed: {said}")
        _add_trainer(tally, report)
        beats[plan.number] = 0.0
        stop.wait(max(0.0, plan.trainer_every_s - (time.monotonic() - begin)))
    shutil.rmtree(home, ignore_errors=True)


def _trainer_environment(caches: CacheDirs) -> dict[str, str]:
    more = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
    return clean_environment() | caches.environment | more


def _add_trainer(tally: Counter[str], file: Path) -> None:
    if not file.exists():
        return
    report = json.loads(file.read_text())
    for name in ("graphs", "hits", "compiled_by_daemon", "compiled_here"):
        tally[f"trainer_{name}"] += report.get(name, 0)
    _add_report(tally, report)
