"""What the rows of the GPU check show: each promise as one verdict with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TOLERANCE = 0.02
"""Of a loss, relative, where torch has chosen other kernels: the arithmetic is in bfloat16 then."""

Said = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """A promise, whether it holds, and what was seen."""

    name: str
    ok: bool
    said: str

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the document."""
        return {"name": self.name, "ok": self.ok, "said": self.said}


def mode_checks(mode: str, said: Mapping[str, Said]) -> list[Check]:
    """Return what the rows of one mode show; nothing where the daemon's were not run."""
    found = []
    served = {start: one for start, one in said.items() if start.startswith("daemon")}
    own = [one["losses"] for start, one in said.items() if start.startswith("torch")]
    repeats = len(own) < 2 or own[0] == own[1]
    if len(served) > 1:
        losses = [one["losses"] for one in served.values()]
        equal = all(one == losses[0] for one in losses)
        # Where torch's own two runs of the same kernels differ, bits are not the daemon's to promise.
        text = f"{', '.join(served)}: {'equal' if equal else _apart(losses[0], losses[-1])}"
        found.append(
            Check(
                f"{mode}: losses of a cold and of warm starts are the same bit for bit",
                ok=equal or not repeats,
                said=text if repeats else f"{text}; torch's own two runs differ as well, so this is not judged",
            )
        )
    if served and own:
        first = next(iter(served.values()))["losses"]
        equal = first == own[0]
        # With autotuning two cold starts may choose differently, and then only rounding separates them.
        exact = mode == "default" and repeats
        near = _difference(first, own[0]) <= TOLERANCE
        found.append(
            Check(
                f"{mode}: losses with the daemon are torch's{' bit for bit' if exact else ', within rounding'}",
                ok=equal if exact else near,
                said="equal" if equal else _apart(first, own[0]),
            )
        )
    for start in ("daemon_warm_empty", "daemon_warm_counted"):
        if (one := served.get(start)) is not None:
            found += _warm(mode, start, one)
    return found


def reduce_overhead_check(said: Mapping[str, Said]) -> list[Check]:
    """Check that CUDA graphs work, or are refused with a reason, and that either way the losses are torch's."""
    if not (own := said.get("torch_cold")):
        return []
    found = []
    for start in ("daemon_cold", "daemon_warm_empty"):
        if (one := said.get(start)) is None:
            continue
        client = one["client"]
        served = client.get("hits", 0) + client.get("compiled_by_daemon", 0)
        apart = _difference(one["losses"], own["losses"])
        works = client.get("graphs", 0) > 0 and served == client["graphs"]
        what = "works" if works else f"refused: {client.get('refused')}"
        found.append(
            Check(
                f"reduce-overhead, {start}: works, or is refused with a reason",
                ok=(works or bool(client.get("refused"))) and not client.get("fallbacks") and apart <= TOLERANCE,
                said=f"{what}; losses {apart:.2g} from torch's; failures {client.get('fallbacks')}",
            )
        )
    return found


def kernel_checks(runs: Sequence[Said], device: str) -> list[Check]:
    """Check the numbers of every run, and that the second compiled and timed nothing."""
    found = [
        Check(
            f"kernels, run {number + 1}: as torch computes", ok=not run["wrong"], said="; ".join(run["wrong"]) or "all"
        )
        for number, run in enumerate(runs)
    ]
    if len(runs) > 1 and device != "cpu":  # Triton's interpreter compiles nothing
        second = runs[1]
        found.append(
            Check(
                "kernels: the second run compiles nothing and times nothing",
                ok=not second["compiles"] and not second["autotunes"] and not second["client"].get("fallbacks"),
                said=f"{second['compiles']} compiles, {second['autotunes']} timings, client {second['client']}",
            )
        )
    return found


def _warm(mode: str, start: str, one: Said) -> list[Check]:
    client = one["client"]
    counts = {name: one[name] for name in ("triton_compiles", "autotunes", "cpp_builds")}
    return [
        Check(
            f"{mode}, {start}: everything is a hit in empty folders",
            ok=client.get("graphs", 0) > 0 and client["hits"] == client["graphs"] and not client["fallbacks"],
            said=f"{client.get('hits')} hits of {client.get('graphs')} graphs, refused {client.get('refused')}, "
            f"failures {client.get('fallbacks')}",
        ),
        Check(
            f"{mode}, {start}: nothing is compiled or timed",
            ok=not any(counts.values()),
            said=", ".join(f"{count} {name}" for name, count in counts.items()),
        ),
    ]


def _difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return max((abs(a - b) / max(abs(b), 1e-12) for a, b in zip(ours, theirs, strict=True)), default=0.0)


def _apart(ours: Sequence[float], theirs: Sequence[float]) -> str:
    return f"{_difference(ours, theirs):.2g} apart, relative"
