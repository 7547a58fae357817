"""What the sandbox costs a job: the same graphs compiled by a worker that is confined and by one that is not.

    python tools/sandbox_cost.py [--graphs 40] [--out docs/trust]

Workers live side by side, and get each graph one after the other, every time in another order. Every graph is one that
none of them has seen, so that C++ compilers run for each. Compared is the processor time of a worker with all that it
started, and the time until the answer; of each pair the ratio, and of the ratios the median. A third worker, which is
not confined either, tells how far two of the same kind are apart: the noise. Fails where the processor time's ratio is
above 1.02 and above the noise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

from benches.harness.processes import run_bench

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from compiler_daemon.worker import confinement
from tests.e2e.conftest import with_probes
from tests.worker.worker_samples import Worker, captured

MOST = 1.02
_KINDS = ("confined", "free", "again")


@dataclass
class Measured:
    """What each job took on one worker."""

    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)


def main() -> int:
    """Measure; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if reason := confinement.why_not():
        sys.stderr.write(f"no worker can be confined here: {reason}\n")
        return 1
    starts: dict[str, float] = {}
    measured = {kind: Measured() for kind in _KINDS}
    with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
        (temporary := Path(folder) / "t").mkdir()
        with_probes(temporary)
        workers: dict[str, Worker] = {}
        for kind in _KINDS:
            (Path(folder) / kind).mkdir()
            began = time.monotonic()
            workers[kind] = Worker(Path(folder) / kind, temporary, confined=kind == "confined")
            starts[kind] = time.monotonic() - began
            assert (workers[kind].hello["unconfined"] == "") is (kind == "confined")
            workers[kind].compile("?", b"")
        for number in range(options.graphs + 1):
            spec = _graph(number)
            order = [_KINDS[(number + at) % len(_KINDS)] for at in range(len(_KINDS))]
            for kind in order:
                _compile(workers[kind], spec, measured[kind] if number else Measured())  # the first is not counted
            sys.stderr.write(f"{number} of {options.graphs}\r")
        for worker in workers.values():
            worker.end()
    ratios = {
        what: {
            "confined": _ratios(getattr(measured["confined"], what), getattr(measured["free"], what)),
            "noise": _ratios(getattr(measured["again"], what), getattr(measured["free"], what)),
        }
        for what in ("cpu_s", "wall_s")
    }
    medians = {kind: statistics.median(one.cpu_s) for kind, one in measured.items()}
    result = {
        "graphs": options.graphs,
        "ratios": ratios,
        "median_cpu_s": medians,
        "start_s": starts,
        "load": os.getloadavg()[0],
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "torch": str(torch.__version__),
        "landlock": confinement.landlock.abi(),
    }
    text = _text(result)
    if options.out:
        (options.out / "sandbox-cost.json").write_text(json.dumps(result, indent=1) + "\n")
        (options.out / "sandbox-cost.md").write_text(text)
    sys.stdout.write(text)
    found, noise = ratios["cpu_s"]["confined"]["median"], ratios["cpu_s"]["noise"]["median"]
    return 0 if found <= max(MOST, noise) else 1


def _graph(number: int) -> bytes:
    """Return a small graph with a few kernels, in sizes that no other has."""
    size = 16 + number

    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z = torch.nn.functional.layer_norm((x @ y).relu(), (size,))
        return (z.softmax(-1) * number).sum(0) + z.cos().mean()

    return captured(function, torch.randn(8, size), torch.randn(size, size)).spec


def _compile(worker: Worker, spec: bytes, into: Measured) -> None:
    before, began = _cpu_s(worker.pid), time.monotonic()
    answer = worker.compile_whatever_its_key(spec)
    if answer["type"] != "done":
        raise SystemExit(f"a graph was not compiled: {answer}")
    into.wall_s.append(time.monotonic() - began)
    into.cpu_s.append(_cpu_s(worker.pid) - before)


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def _ratios(ours: list[float], theirs: list[float]) -> dict[str, float]:
    each = sorted(one / other for one, other in zip(ours, theirs, strict=True))
    quarter = len(each) // 4
    return {
        "median": statistics.median(each),
        "lower_quartile": each[quarter],
        "upper_quartile": each[-1 - quarter],
        "of_sums": sum(ours) / sum(theirs),
    }


def _text(result: dict[str, object]) -> str:
    ratios = result["ratios"]
    assert isinstance(ratios, dict)
    lines = [
        "# What the sandbox costs",
        "",
        f"`python tools/sandbox_cost.py`: {result['graphs']} graphs, each compiled by a confined worker and by two",
        "that are not, in turns. Ratios to the first of the two; the second shows the noise. Goal: at most 1.02.",
        "",
        "| of each job | worker | median ratio | quartiles | ratio of the sums |",
        "|---|---|---:|---:|---:|",
    ]
    words = {"cpu_s": "processor time", "wall_s": "time to the answer"}
    for what, kinds in ratios.items():
        for kind, one in kinds.items():
            name = "confined" if kind == "confined" else "not confined (noise)"
            quartiles = f"{one['lower_quartile']:.3f} to {one['upper_quartile']:.3f}"
            lines.append(f"| {words[what]} | {name} | {one['median']:.3f} | {quartiles} | {one['of_sums']:.3f} |")
    lines += [
        "",
        f"Machine: {result['machine']}, torch {result['torch']}, Landlock version {result['landlock']}; load average "
        f"{result['load']:.1f} at the end, from other work beside it.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_bench(main)
