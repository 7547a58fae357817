"""A run's log, sorted by what its records are about, and what can be said from it."""

from __future__ import annotations

from typing import Any

from benches.harness import paired
from benches.harness.run_folder import latest
from diffusion.metrics.panel import overall

Record = dict[str, Any]


class Log:
    """A run's log, sorted by what its records are about."""

    def __init__(self, records: list[Record]) -> None:
        self.steps = latest(records, "step", "mode", "seed", "step")
        self.validation = latest(records, "validation", "mode", "seed", "step", "resolution", "t")
        self.scores = latest(records, "score", "mode", "seed", "step", "resolution", "metric")
        self.fits = latest(records, "fit", "mode", "seed", "step", "resolution")
        self.perfect = latest(records, "perfect", "resolution", "metric")

    def losses(self) -> list[float]:
        """Return the loss of every step, seed after seed and mode after mode."""
        return [record["loss"] for record in self.steps]

    def panel_table(self, mode: str, resolution: int) -> tuple[list[str], list[list[str]]]:
        """Return header and rows of z per metric over training, what the last is worth, and a perfect denoiser's z.

        z is the mean over seeds; the damage is that of the first seed.
        """
        mine = [r for r in self.scores if r["mode"] == mode and r["resolution"] == resolution]
        times = sorted({r["step"] for r in mine})
        seeds = list(dict.fromkeys(r["seed"] for r in mine))
        names = list(dict.fromkeys(r["metric"] for r in mine))
        z = {(r["metric"], r["step"], r["seed"]): r["z"] for r in mine}
        words = {r["metric"]: r["equivalent"] for r in mine if (r["step"], r["seed"]) == (times[-1], seeds[0])}
        best = {r["metric"]: r["z"] for r in self.perfect if r["resolution"] == resolution}
        rows = [
            [
                name,
                *(f"{_mean([z[name, step, seed] for seed in seeds]):.1f}" for step in times),
                words[name],
                f"{best[name]:.1f}" if best else "-",
            ]
            for name in names
        ]
        together = [
            paired.mean_words([overall({name: z[name, step, seed] for name in names}) for seed in seeds])
            for step in times
        ]
        rows.append(["overall", *together, "-", f"{overall(best):.2f}" if best else "-"])
        return ["z at step", *map(str, times), "as true images with", "perfect denoiser"], rows

    def fit_table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows of the median checkerboard R2 of samples over training, and of true draws."""
        times = sorted({r["step"] for r in self.fits})
        groups: dict[tuple[str, int], list[Record]] = {}
        for r in self.fits:
            groups.setdefault((r["mode"], r["resolution"]), []).append(r)
        rows = [
            [f"{mode}, {resolution} px"]
            + [paired.mean_words([r["r2"] for r in group if r["step"] == step]) for step in times]
            + [f"{group[0]['true']:.3f}"]
            for (mode, resolution), group in groups.items()
        ]
        return ["median R2 at step", *map(str, times), "true draws"], rows

    def last(self, name: str) -> dict[tuple[str, int], dict[int, float]]:
        """Return a measure of the last validation, averaged over noise levels: (mode, resolution) -> seed -> value.

        Empty where it is unknown at some level.
        """
        end = max((r["step"] for r in self.validation), default=0)
        groups: dict[tuple[str, int], dict[int, list[float | None]]] = {}
        for r in self.validation:
            if r["step"] == end:
                groups.setdefault((r["mode"], r["resolution"]), {}).setdefault(r["seed"], []).append(r[name])
        return {
            key: {seed: _mean([v for v in values if v is not None]) for seed, values in group.items()}
            for key, group in groups.items()
            if all(v is not None for values in group.values() for v in values)
        }

    def excess_table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows of the last validation, averaged over noise levels; ± is half a 95 % interval."""
        columns = {name: self.last(name) for name in ("loss", "optimal", "excess", "mse_x0")}
        rows = [
            [f"{mode}, {resolution} px"]
            + [paired.mean_words(list(column.get((mode, resolution), {}).values())) for column in columns.values()]
            for mode, resolution in columns["loss"]
        ]
        return ["mode", "loss", "least possible", "excess", "as MSE of x0"], rows

    def answer(self) -> list[str]:
        """Return what the run has to say of its samples, one sentence a resolution and mode, at the last look."""
        end = max((r["step"] for r in self.fits), default=0)
        said = []
        for r in self.fits:
            key = {"mode": r["mode"], "resolution": r["resolution"], "step": end}
            if r["step"] != end or r["seed"] != self.fits[0]["seed"]:
                continue
            r2 = [fit["r2"] for fit in self.fits if {**fit, **key} == fit]
            text = (
                f"At {r['resolution']} px {r['mode']} samples have a median checkerboard R2 of "
                f"{paired.mean_words(r2)}, true draws {r['true']:.3f}"
            )
            panels = self.panels(**key)
            if panels:
                best = {p["metric"]: p["z"] for p in self.perfect if p["resolution"] == r["resolution"]}
                z = {name: _mean([panel[name] for panel in panels]) for name in panels[0]}
                worst = max(z, key=lambda name: abs(z[name]))
                text += (
                    f"; the panel's overall z is {paired.mean_words([overall(panel) for panel in panels])}, and what "
                    f"tells them best is {worst} (z {z[worst]:.0f})"
                )
                text += f", where a perfect denoiser has {overall(best):.2f} and {best[worst]:.1f}" if best else ""
            said.append(text + ".")
        return said

    def panels(self, *, mode: str, resolution: int, step: int) -> list[dict[str, float]]:
        """Return z by metric, one panel a seed."""
        found: dict[int, dict[str, float]] = {}
        for r in self.scores:
            if (r["mode"], r["resolution"], r["step"]) == (mode, resolution, step):
                found.setdefault(r["seed"], {})[r["metric"]] = r["z"]
        return list(found.values())

    def windows(self, count: int = 200) -> list[Record]:
        """Return the steps' records in at most about `count` windows a mode and seed: sums of seconds, means of losses.

        A window ends at its last step, and at every step at which the model was looked at.
        """
        looks = {r["step"] - 1 for r in self.fits}
        size = max(1, len({r["step"] for r in self.steps}) // count)
        found: list[Record] = []
        batch: list[Record] = []
        for i, r in enumerate(self.steps):
            batch.append(r)
            following = self.steps[i + 1] if i + 1 < len(self.steps) else {}
            apart = any(following.get(name) != r[name] for name in ("mode", "seed"))
            if apart or len(batch) >= size or r["step"] in looks:
                means = {name: _mean([one[name] for one in batch]) for name in ("loss", "mse", "grad_norm")}
                sums = {name: sum(one[name] for one in batch) for name in ("seconds", "cpu_seconds")}
                labels = {name: r[name] for name in ("kind", "mode", "seed", "step", "lr")}
                found.append({**labels, **means, **sums})
                batch = []
        return found

    def found(self) -> str:
        """Return in words, one sentence a resolution and mode, how the modes compare to the first."""
        losses = self.last("loss")
        modes = list(dict.fromkeys(mode for mode, _ in losses))
        lines = []
        for resolution in dict.fromkeys(resolution for _, resolution in losses):
            for mode in modes[1:]:
                values = paired.differences(losses[mode, resolution], losses[modes[0], resolution])
                lines.append(f"- Loss at {resolution} px: {paired.verdict(values, mode, modes[0])}.")
        return "\n".join(lines) + "\n" if lines else "One mode was run: there is nothing to compare.\n"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
