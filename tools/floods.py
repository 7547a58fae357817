"""Play every flood against a real daemon for longer than the tests do, and write down what others noticed.

    python tools/floods.py [--seconds 30] [--out docs/trust]

Each flood has a daemon of its own, with 256 descriptors as its soft limit, and begins with a quiet stretch. Fails (exit
code 1) where the daemon passes 300 MiB, another client's `GetStatus` has a p99 above 200 ms, or one in a hundred of its
calls fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from benches.harness.processes import run_bench

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.daemon.flood_samples import FLOODS, Noticed, flooded

MOST_MIB, MOST_MS, MOST_FAILED = 300.0, 200.0, 0.01

_WHAT = {
    "lists": "values of nothing but lists, as graphs that are explained and as manifests, by 8 at once",
    "heavy": "a graph of the right form with as many lists as are read, explained by 8 at once",
    "environments": "handshakes that each name another environment, by 4 at once",
    "silence": "connections to the TLS port that say nothing, or stop in the middle, as fast as one thread makes them",
    "silence of another address": "the same from another address; the other client connects anew for each call",
    "silence of the same address": "the same from the other client's own address; it connects anew for each call",
    "half a greeting": "connections that stop in the middle of TLS's first message, from the other client's address",
}


def main() -> int:
    """Play all of them; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[tuple[Noticed, Noticed]] = []
    for flood in _WHAT:
        with tempfile.TemporaryDirectory(prefix="floods-") as folder, flooded(Path(folder) / "d") as scene:
            before = scene.run("quiet, new connections" if FLOODS[flood][1] else "quiet", options.seconds / 3)
            rows.append((before, scene.run(flood, options.seconds)))
            sys.stderr.write(f"{rows[-1]}\n")
    load = os.getloadavg()[1]
    text = _text(rows, options.seconds, load)
    if options.out:
        (options.out / "floods.md").write_text(text)
        rounded = [[_rounded(one) for one in row] for row in rows]
        (options.out / "floods.json").write_text(json.dumps({"load": round(load, 1), "rows": rounded}, indent=1) + "\n")
    sys.stdout.write(text)
    return 0 if all(_holds(row[1]) for row in rows) else 1


def _holds(noticed: Noticed) -> bool:
    few_failed = noticed.failed <= MOST_FAILED * noticed.calls
    return noticed.rss_mib < MOST_MIB and noticed.p99_ms < MOST_MS and few_failed


def _rounded(noticed: Noticed) -> dict[str, object]:
    return {name: round(v, 1) if isinstance(v, float) else v for name, v in noticed.as_json().items()}


def _text(rows: list[tuple[Noticed, Noticed]], seconds: float, load: float) -> str:
    lines = [
        "# Floods",
        "",
        f"`make floods`: each flood for {seconds:.0f} s against a real daemon over TLS, after a quiet stretch a third",
        "as long. The other client asks for `GetStatus` all the time. Goals: memory of the daemon below 300 MiB, p99",
        "below 200 ms, one call in a hundred fails at most.",
        "",
        "| flood | attempts | MiB | `GetStatus`: calls | failed | p50, ms | p99, ms | before: p50, p99, ms | held |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for before, noticed in rows:
        held = "yes" if _holds(noticed) else "**no**"
        lines.append(
            f"| {noticed.flood}: {_WHAT[noticed.flood]} | {noticed.attempts} | {noticed.rss_mib:.0f} | {noticed.calls} "
            f"| {noticed.failed} | {noticed.p50_ms:.0f} | {noticed.p99_ms:.0f} "
            f"| {before.p50_ms:.0f}, {before.p99_ms:.0f} | {held} |"
        )
    cores = len(os.sched_getaffinity(0))
    lines += [
        "",
        f"Machine: {platform.machine()}, {cores} cores, load average {load:.1f} at the end: shared with other work.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_bench(main)
