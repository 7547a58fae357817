"""`python -m tests.attack` generates attacks on what a worker reads, and reports what came of them.

    python -m tests.attack [--cases N] [--seed N] [--old-operators] [--write]

The seed decides all cases. Each process runs a few thousand of them: a case is read, rebuilt and run on fake tensors as
tracing does, and some cases go through AOTAutograd. The exit code is 1 if an attack got through. `--old-operators` uses
the table of operators from before it was closed. Attacks must then get through: a harness that cannot fail shows
nothing.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benches.harness.processes import run_bench
from tests.attack.run import run_batch

REPOSITORY = Path(__file__).parents[2]
_TRUST = REPOSITORY / "docs" / "trust"


def main() -> int:
    """Run the attacks; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=5000, help="cases of one process")
    parser.add_argument("--trace", type=int, default=10, help="one case of so many goes through AOTAutograd")
    parser.add_argument("--compiles", type=int, default=1, help="so many cases of a process are compiled to the end")
    parser.add_argument("--old-operators", action="store_true", help="with the table of operators as it was")
    parser.add_argument("--write", action="store_true", help="write docs/trust/attack.md and attack.json")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(run_batch(**options.child)), flush=True)
        return 0
    summary = _run(options)
    print(json.dumps({name: value for name, value in summary.items() if name != "fields"}))
    if options.write:
        _write(summary)
    return 1 if summary["successes"] else 0


def _run(options: argparse.Namespace) -> dict[str, Any]:
    begun = time.monotonic()
    totals: collections.Counter[str] = collections.Counter()
    fields: collections.Counter[str] = collections.Counter()
    successes: list[str] = []
    lost = 0
    waiting = [(first, min(options.batch, options.cases - first)) for first in range(0, options.cases, options.batch)]
    while waiting:
        first, count = waiting.pop(0)
        with tempfile.TemporaryDirectory(prefix="attack-") as folder:
            batch = {
                "folder": folder, "first": first, "count": count, "seed": options.seed, "trace": options.trace,
                "compiles": options.compiles, "old": options.old_operators,
            }  # fmt: skip
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "tests.attack", "--child", json.dumps(batch)],
                cwd=REPOSITORY, capture_output=True, text=True, check=False,
            )  # fmt: skip
            progress = Path(folder) / "progress"
            at = int(progress.read_text() or first) if progress.exists() else first
        if done.returncode == 0:
            result = json.loads(done.stdout.splitlines()[-1])
            totals.update(result["reached"])
            fields.update(result["fields"])
            successes += result["successes"]
        elif not progress.name or at >= first + count or done.returncode > 0:
            raise RuntimeError(f"a batch could not be run: {done.stderr[-2000:]}")
        else:
            # This case ended its process: a worker is lost, but nothing got through. The cases before it are run again.
            lost += 1
            sys.stderr.write(f"case {at} ended its process with {done.returncode}\n")
            waiting[:0] = [(first, at - first)] * (at > first) + [(at + 1, first + count - at - 1)] * (
                first + count > at + 1
            )
        sys.stderr.write(f"\r{sum(totals.values())} of {options.cases}, {len(successes)} got through ")
    sys.stderr.write("\n")
    return {
        "cases": sum(totals.values()) + lost,
        "seed": options.seed,
        "old_operators": options.old_operators,
        "successes": len(successes),
        "kinds": dict(collections.Counter(each.split(" ", 1)[1].partition(":")[0] for each in successes)),
        "first_successes": successes[:20],
        "reached": dict(totals.most_common()),
        "lost_processes": lost,
        "fields": dict(sorted(fields.items())),
        "seconds": round(time.monotonic() - begun),
        "python": platform.python_version(),
        "torch": _torch_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": f"python -m tests.attack --cases {options.cases} --seed {options.seed} --batch {options.batch} "
        f"--compiles {options.compiles}",
    }


def _torch_version() -> str:
    from importlib.metadata import version

    return version("torch")


def _write(summary: dict[str, Any]) -> None:
    (_TRUST / "attack.json").write_text(json.dumps(summary, indent=1) + "\n")
    reached = "\n".join(f"| {name} | {count} |" for name, count in summary["reached"].items())
    fields = "\n".join(f"| `{name}` | {count} |" for name, count in summary["fields"].items())
    (_TRUST / "attack.md").write_text(
        f"""# Attacks on a worker

{summary["cases"]} graphs and kernels, each changed in one to four places of its message, so that a worker would open a
file, start a process, reach a port, run code, lower text that the graph put together, or keep a state that is not its
own. **{summary["successes"]} got through**, {summary["lost_processes"]} ended the process that read them.

`{summary["command"]}`, torch {summary["torch"]}, Python {summary["python"]}, {summary["date"]}. With `--old-operators`,
the table of operators from before it was closed, attacks do get through (`tests/attack/test_attack.py`).

How far they came: `refused` when read, `rebuilt` as a graph, `run` on fakes as tracing runs them, `traced` by
AOTAutograd up to where inductor would lower them, `compiled` to the end; kernels: `parsed`, with nothing in them that
was to be refused.

| reached | cases |
|---|---:|
{reached}

What was changed, a case counted once for each:

| field | cases |
|---|---:|
{fields}
"""
    )


if __name__ == "__main__":
    run_bench(main)
