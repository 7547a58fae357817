"""Which programs of the zoo, with fixed sizes, a second process need not trace; why not, and whether anything differs.

    python -m benches.zoo.traces [--only NAME ...] [--out FILE.md]

Starts a daemon on a temporary directory and three trainers, one after the other, each with empty caches of torch's: the
first traces and records, the second takes what fits, the third would take it, traces all the same, and compares. Ends
with a table and, last line on stdout, one JSON document. Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benches.harness.daemon import ServedDaemon
from benches.harness.machine import machine_name
from benches.harness.output import last_line, say
from benches.harness.processes import run_bench, start_child

_CHILD = "--in-trainer"
_RUNS = {"record": "1", "skip": "1", "verify": "verify"}
_COUNTED = ("skipped", "recorded", "missed", "verified", "differing")


def main(argv: list[str] | None = None) -> int:
    """Run the bench; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benches.zoo.traces", description="Skip the zoo's traces.")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these entries only")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table here, as markdown")
    parser.add_argument(_CHILD, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.in_trainer:
        _in_trainer(options.only)
        return 0
    runs = _run(options.only)
    rows = [_judged(name, {run: found[name] for run, found in runs.items()}) for name in runs["record"]]
    for row in rows:
        say(f"{row['name']}: {row['outcome']}" + (f" ({row['why']})" if row["why"] else ""))
    if options.out is not None:
        options.out.write_text(_markdown(rows, some=bool(options.only)))
    last_line({"programs": len(rows), **_totals(rows), "machine": machine_name(), "rows": rows})
    return 1 if any(row["outcome"] == "difference" for row in rows) else 0


def _run(only: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="compiler-daemon-traces-") as text:
        folder = Path(text)
        daemon = ServedDaemon(folder)
        daemon.start()
        try:
            for run, skip_trace in _RUNS.items():
                found[run] = _one(folder / run, daemon, skip_trace, only)
        finally:
            daemon.stop()
    return found


def _one(folder: Path, daemon: ServedDaemon, skip_trace: str, only: list[str]) -> dict[str, dict[str, Any]]:
    for name in ("inductor", "tmp"):
        (folder / name).mkdir(parents=True)
    log = (folder / "stderr").open("w+b")
    trainer = start_child(
        [sys.executable, "-m", "benches.zoo.traces", _CHILD, *(["--only", *only] if only else [])],
        stdout=subprocess.PIPE,
        env=os.environ
        | {
            "TORCH_COMPILE_CLIENT": "1",
            "TORCH_COMPILE_CLIENT_SKIP_TRACE": skip_trace,
            "TORCH_COMPILE_CLIENT_LOG": "debug",
            "PYTHONFAULTHANDLER": "1",
            "COMPILER_DAEMON_DIR": str(daemon.directory),
            "COMPILER_DAEMON_ADDRESS": daemon.address,
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
            "TMPDIR": str(folder / "tmp"),
        },
        stderr=log,
    )
    assert trainer.stdout is not None
    rows = [json.loads(line) for line in trainer.stdout if line.startswith(b"{")]
    code = trainer.wait()
    log.seek(0)
    said = log.read().decode(errors="replace").splitlines()
    log.close()
    if code != 0:
        lines = (line[:300] for line in said if not line.startswith("compile daemon:"))
        raise SystemExit(
            f"a trainer ({folder.name}) ended with exit code {code}, after {len(rows)} programs:\n"
            + "\n".join(lines)[-8000:]
        )
    return {row["name"]: row for row in rows}


class _Said(logging.Handler):
    """Keeps what the client says of traces."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "daemon_event", "") == "trace":
            self.lines.append(record.getMessage())


def _in_trainer(only: list[str]) -> None:
    """Print one JSON line for each entry, in a process with the client on."""
    import torch

    import compile_client
    from benches.zoo.models import ZOO
    from benches.zoo.results import close, results_of

    compile_client.install()
    said = _Said()
    logging.getLogger("compile_client").addHandler(said)
    for entry in ZOO:
        if only and entry.name not in only:
            continue
        torch._dynamo.reset()
        said.lines.clear()
        before = _counts(compile_client.counters())
        expected = results_of(entry, False, eager=True)
        found = results_of(entry, False)
        after = _counts(compile_client.counters())
        exact = [leaf.tolist() if leaf.numel() < 64 else float(leaf.abs().double().sum()) for leaf in found]
        row = {name: after[name] - before[name] for name in after}
        random = "random" in entry.name or "dropout" in entry.name
        row |= {"name": entry.name, "equal": random or close(expected, found), "said": list(said.lines)}
        print(json.dumps(row | {"result": repr(exact)}), flush=True)


def _counts(counters: dict[str, Any]) -> dict[str, Any]:
    traces = counters.get("traces", {})
    return {name: traces.get(name, 0) for name in _COUNTED} | {"refusals": sum(traces.get("refused", {}).values())}


def _judged(name: str, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the row of a program: `skipped`, `refused`, `missed`, or `difference`, and why."""
    recorded, skipped, verified = (runs[run] for run in _RUNS)
    why = ""
    if verified["differing"] or not all(run["equal"] for run in runs.values()):
        outcome, why = "difference", "; ".join(verified["said"])
    elif skipped["result"] != recorded["result"]:
        outcome, why = "difference", "the results of both processes are not the same, bit for bit"
    elif skipped["refusals"] or skipped["missed"]:
        outcome = "refused" if skipped["refusals"] else "missed"
        why = "; ".join(line for line in skipped["said"] if "is not traced" not in line)
    else:
        outcome = "skipped" if skipped["skipped"] else "nothing to trace"
    counts = {"functions": skipped["skipped"], "verified": verified["verified"]}
    return {"name": name, "outcome": outcome, "why": why, **counts}


def _totals(rows: list[dict[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        found[row["outcome"]] = found.get(row["outcome"], 0) + 1
    return found


def _markdown(rows: list[dict[str, Any]], *, some: bool) -> str:
    import torch

    totals = ", ".join(f"{count} {outcome}" for outcome, count in sorted(_totals(rows).items()))
    command = f"python -m benches.zoo.traces {'--only ... ' if some else ''}--out docs/trust/skipped.md"
    which = "A part of the zoo" if some else "Each program of the zoo"
    lines = [
        "# Programs that a second process need not trace",
        "",
        f"`{command}`, torch {torch.__version__}, {machine_name()}.",
        "",
        f"{which}, with fixed sizes, in three processes with empty caches of torch's and one daemon:",
        "the first traces, the second takes what fits (`TORCH_COMPILE_CLIENT_SKIP_TRACE=1`), the third traces all the",
        "same and compares graphs, guards and bytecode (`verify`). A *difference* would be one of these, or a result",
        "that is not eager's or not the first process's, bit for bit.",
        "",
        f"{len(rows)} programs: {totals}.",
        "",
        "| program | outcome | functions put back | compared | why |",
        "|---|---|---:|---:|---|",
    ]
    for row in rows:
        why = row["why"].replace("|", "\\|")
        lines.append(f"| {row['name']} | {row['outcome']} | {row['functions']} | {row['verified']} | {why} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_bench(main)
