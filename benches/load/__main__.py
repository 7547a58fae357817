"""Load: many connections that look up artifacts of 250 KB as fast as they can.

    python -m benches.load [--connections 64] [--seconds 10] [--rounds 5] [--out docs/trust]

Each connection asks for one artifact after the other and checks signature and digests as the real client does. The same
callers then ask a bare gRPC server that has the same answers in memory (`echo`), and ask it again without checking
anything (`bare`): what this machine can do at most, in the same minutes. The three take turns, round by round, so that
what else runs on the machine hits all of them.

Fails (exit code 1) on any error or an answer that does not verify. Talk goes to stderr; the last line on stdout is one
JSON document.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from benches.harness.daemon import ServedDaemon
from benches.harness.machine import machine_line
from benches.harness.markdown import command, table
from benches.harness.output import folder, last_line, say
from benches.harness.processes import run_bench, run_with_parent
from benches.harness.published import FLUSH_S, answers_of, echoing, publish
from benches.harness.synthetic import ENVIRONMENT, Catalogue
from benches.load.clients import CallerPlan, Seen, call_in_a_process
from compile_wire.environment import environment_id

_TITLES = {
    "daemon": "the daemon",
    "echo": "a bare gRPC server with the same answers in memory",
    "bare": "the same, and the callers check nothing",
}


@dataclass(slots=True)
class Target:
    """One of those that are asked in turn."""

    plan: CallerPlan
    cpu_s: Callable[[], float]
    answered_ms: list[float] = field(default_factory=list)
    verified_ms: list[float] = field(default_factory=list)
    per_s: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    client_cpu_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def main(argv: list[str] | None = None) -> int:
    """Run the bench; return the exit code."""
    options = _options(argv)
    with tempfile.TemporaryDirectory(prefix="load-") as text:
        document = run(Path(text), options)
    for error in document["errors"]:
        say(f"FAILED: {error}")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "load.json").write_text(json.dumps(document, indent=1) + "\n")
        (options.out / "load.md").write_text(page(document))
    last_line(document)
    return 1 if document["errors"] else 0


def run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure in a folder; return what was seen."""
    catalogue = Catalogue(name="load", keys=options.keys, min_bytes=options.bytes, max_bytes=options.bytes, shared=0)
    daemon = ServedDaemon(folder, "--workers", "1", "--no-prewarm")
    daemon.start()
    idle = daemon.sample()
    try:
        publish(daemon, catalogue)
        answers = answers_of(daemon, catalogue)
        plan = CallerPlan(
            address=daemon.address,
            metadata=daemon.metadata,
            secret=(daemon.directory / "secret").read_bytes(),
            environment=environment_id(ENVIRONMENT),
            keys=tuple(answers),
            connections=options.connections // options.processes,
            first=0,
            seconds=options.seconds,
            calls=options.calls,
        )
        with echoing(folder, answers) as (address, process):
            echo_plan = replace(plan, address=address)
            targets = {
                "daemon": Target(plan, lambda: daemon.sample().cpu_s),
                "echo": Target(echo_plan, lambda: sum(process.cpu_times()[:2])),
                "bare": Target(replace(echo_plan, verify=False), lambda: sum(process.cpu_times()[:2])),
            }
            rss = _measure(targets, daemon, options)
        full = daemon.sample()
        counters = dict(daemon.status().counters)
    finally:
        daemon.stop()
    return {
        "command": command(),
        "machine": machine_line(),
        "shared_machine": options.shared,
        "load_average": [round(value, 1) for value in psutil.getloadavg()],
        "connections": options.connections,
        "processes": options.processes,
        "seconds": options.seconds,
        "rounds": options.rounds,
        "answer_bytes": round(statistics.mean(len(answer) for answer in answers.values())),
        "artifacts": len(answers),
        "targets": {name: _figures(target) for name, target in targets.items()},
        "ratio_to_echo": _ratio(targets, "echo"),
        "ratio_to_bare": _ratio(targets, "bare"),
        "daemon_rss_mib": {
            "idle": round(idle.rss_bytes / 2**20, 1),
            "after_each_round": rss,
            "after": round(full.rss_bytes / 2**20, 1),
        },
        "daemon_open_files": {"idle": idle.open_files, "after": full.open_files},
        "lookups_counted": counters.get("lookups", 0),
        "hits_counted": counters.get("lookup_hits", 0),
        "errors": _errors(targets, counters),
    }


def _measure(targets: dict[str, Target], daemon: ServedDaemon, options: argparse.Namespace) -> list[float]:
    """Ask all in turn, round by round; return the daemon's memory after each round."""
    rss: list[float] = []
    for number in range(options.rounds):
        for name, target in targets.items():
            before = target.cpu_s()
            seen = _round(target.plan, options.processes)
            calls = sum(len(part.answered_ms) for part in seen)
            if calls:
                target.cpu_ms.append((target.cpu_s() - before) * 1000 / calls)
                target.client_cpu_ms.append(sum(part.cpu_s for part in seen) * 1000 / calls)
                target.per_s.append(sum(len(part.answered_ms) / part.seconds for part in seen))
            for part in seen:
                target.answered_ms += part.answered_ms
                target.verified_ms += part.verified_ms
                target.errors += part.errors
            say(f"round {number + 1}/{options.rounds} {name}: {calls} calls, {target.per_s[-1:]} a second")
        rss.append(round(daemon.sample().rss_bytes / 2**20, 1))
    return rss


def _round(plan: CallerPlan, processes: int) -> list[Seen]:
    context = multiprocessing.get_context("spawn")
    together, results = context.Barrier(processes), context.Queue()
    callers = [
        context.Process(
            target=run_with_parent,
            args=(os.getpid(), call_in_a_process, replace(plan, first=number * plan.connections), together, results),
        )
        for number in range(processes)
    ]
    for caller in callers:
        caller.start()
    limit_s = plan.seconds + FLUSH_S
    seen = [results.get(timeout=limit_s) for _ in callers]
    for caller in callers:
        caller.join(limit_s)
    return seen


def _errors(targets: dict[str, Target], counters: dict[str, int]) -> list[str]:
    found = [f"{name}: {error}" for name, target in targets.items() for error in target.errors[:10]]
    if not targets["daemon"].verified_ms:
        found.append("nothing was verified")
    if counters.get("lookup_misses", 0) or counters.get("entries_unusable", 0):
        found.append(f"the daemon counted misses: {counters}")
    return found


def _figures(target: Target) -> dict[str, Any]:
    return {
        "calls": len(target.answered_ms),
        "errors": len(target.errors),
        "per_s": _spread(target.per_s),
        "answered_ms": _percentiles(target.answered_ms),
        "verified_ms": _percentiles(target.verified_ms),
        "server_cpu_ms_a_call": _spread(target.cpu_ms),
        "client_cpu_ms_a_call": _spread(target.client_cpu_ms),
    }


def _ratio(targets: dict[str, Target], other: str) -> dict[str, float]:
    """Return how the daemon stands to another, as the median over the rounds, each against its own neighbour."""
    pairs = list(zip(targets["daemon"].per_s, targets[other].per_s, strict=False))
    if not pairs:
        return {}
    p50 = _percentiles(targets["daemon"].answered_ms)["p50"] / _percentiles(targets[other].answered_ms)["p50"]
    return {"per_s": round(statistics.median(a / b for a, b in pairs), 3), "p50": round(p50, 3)}


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {
        "median": round(statistics.median(values), 3), "least": round(min(values), 3), "most": round(max(values), 3)
    }  # fmt: skip


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    ranked = sorted(values)
    at = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    return {name: round(ranked[min(len(ranked) - 1, int(part * len(ranked)))], 2) for name, part in at.items()} | {
        "most": round(ranked[-1], 2)
    }


def page(document: dict[str, Any]) -> str:
    """Return the page for people."""
    rows = [
        [
            _TITLES[name],
            f"{figures['per_s']['median']:.0f} ({figures['per_s']['least']:.0f} to {figures['per_s']['most']:.0f})",
            f"{figures['answered_ms']['p50']:.1f}",
            f"{figures['answered_ms']['p99']:.1f}",
            f"{figures['verified_ms']['p99']:.1f}" if figures["verified_ms"] else "-",
            f"{figures['server_cpu_ms_a_call']['median']:.2f}",
            f"{figures['client_cpu_ms_a_call']['median']:.2f}",
            str(figures["errors"]),
        ]
        for name, figures in document["targets"].items()
    ]
    header = (
        "asked", "answers a second, median of rounds (range)", "p50 ms", "p99 ms", "p99 ms, checked",
        "server CPU ms a call", "callers' CPU ms a call", "errors",
    )  # fmt: skip
    memory = document["daemon_rss_mib"]
    calls = document["targets"]["daemon"]["calls"]
    shared = f"\nThe machine was shared: {document['shared_machine']}. What holds are the ratios.\n"
    return f"""# Load

{document["connections"]} connections from {document["processes"]} processes, each asking for one artifact after the \
other: {document["artifacts"]} artifacts, answers of {document["answer_bytes"]} bytes, {calls} answers in \
{document["rounds"]} rounds of {document["seconds"]:g} s. Signature and digests are checked as in the real client.

    {document["command"]}

{document["machine"]}; load average {document["load_average"][0]}
{shared if document["shared_machine"] else ""}
{table(header, rows)}
The daemon gives {document["ratio_to_echo"]["per_s"]:.2f} times the answers of the bare server, median over the rounds;
its median answer takes {document["ratio_to_echo"]["p50"]:.2f} times as long. It reads and hashes every
blob, each time. A caller never pauses, so that latency here is mostly waiting behind the other \
{document["connections"] - 1}.

The daemon's memory: {memory["idle"]} MiB before, {memory["after"]} MiB after; open files \
{document["daemon_open_files"]["idle"]} and {document["daemon_open_files"]["after"]}.
"""


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benches.load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--processes", type=int, default=4, help="that hold the connections")
    parser.add_argument("--bytes", type=int, default=250_000, help="of an artifact's blobs")
    parser.add_argument("--keys", type=int, default=64, help="how many artifacts there are")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a round")
    parser.add_argument("--calls", type=int, default=0, help="of each connection in a round, at most")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shared", default="", help="what else ran on the machine, for the report")
    parser.add_argument("--out", type=folder, help="folder for load.json and load.md")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_bench(main)
