"""What a sampler alone costs: its order on a flow that is known, and the panel of a perfect denoiser.

python -m benches.multires.samplers --out benches/results/multires     three minutes

The probability flow of Gaussian data is linear, so its end is known exactly. The panel's rows are what an ideal model
would be given by the same sampler: a trained model cannot be asked for more.
"""

# ruff: noqa: N803, N806 (tensors carry shape suffixes)

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benches.harness import markdown as reports
from diffusion.data import Checkerboards
from diffusion.parametrization import Parametrization, Target
from diffusion.random_streams import stream
from diffusion.sampling import Drawing, Sampler, Spacing, levels, sample
from diffusion.schedules import CosineLogSNR, LinearLogSNR, ResolutionShifted, alpha_sigma

VARIANCE = 0.2
STEPS = (32, 64, 128, 256)
"""With fewer steps the error is not yet in proportion to a power of their number."""


class Order(NamedTuple):
    """How a sampler's error falls."""

    order: float  # minus the slope of log error over log steps
    errors: dict[int, float]  # mean absolute error by steps


def observed_order(sampler: Sampler, target: Target = Target.V, steps: tuple[int, ...] = STEPS) -> Order:
    """Return the errors of a deterministic sampler on Gaussian data of variance `VARIANCE`, and their slope."""
    parametrization = Parametrization(target=target)

    def denoise(z_BCHW: Tensor, logsnr_B: Tensor) -> Tensor:
        alpha, sigma = (part[:, None, None, None] for part in alpha_sigma(logsnr_B))
        total = alpha**2 * VARIANCE + sigma**2
        return parametrization.of(alpha * VARIANCE / total * z_BCHW, sigma / total * z_BCHW, logsnr_B)

    noise_BCHW = torch.randn(32, 3, 8, 8, generator=stream(0, "order"), dtype=torch.float64)
    errors = {}
    for count in steps:
        logsnr_S1 = levels(LinearLogSNR(start=8, end=-8), 16, count).double()
        alpha, sigma = alpha_sigma(logsnr_S1)
        # Along the flow z keeps its place among the deviations of its own level; the last step ends at E[x0 | z].
        deviation = (alpha**2 * VARIANCE + sigma**2).sqrt()
        exact_BCHW = alpha[-2] * VARIANCE / deviation[-2] * noise_BCHW / deviation[0]
        found_BCHW = sample(denoise, parametrization, logsnr_S1, noise_BCHW, sampler=sampler)
        errors[count] = float((found_BCHW - exact_BCHW).abs().mean())
    x = torch.tensor([math.log(count) for count in steps])
    y = torch.tensor([math.log(error) for error in errors.values()])
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return Order(-float(slope), errors)


def order_table() -> str:
    """Return the table of errors and orders of all deterministic samplers."""
    rows = []
    for sampler in (Sampler.DDIM, Sampler.HEUN, Sampler.DPM_2M):
        found = observed_order(sampler)
        rows.append([sampler.value, *(f"{found.errors[n]:.1e}" for n in STEPS), f"{found.order:.2f}"])
    return reports.table(["sampler", *(f"{n} steps" for n in STEPS), "order"], rows)


DRAWINGS = (
    *(Drawing(sampler=sampler, steps=16) for sampler in (Sampler.DDIM, Sampler.HEUN, Sampler.DPM_2M)),
    *(Drawing(sampler=sampler, steps=16, spacing=Spacing.LOGSNR) for sampler in (Sampler.DDIM, Sampler.DPM_2M)),
    Drawing(sampler=Sampler.DPM_2M, steps=24),
    Drawing(sampler=Sampler.HEUN, steps=24),
)
ALL_UP_TO = 32
SHOWN = ("fd_hist_rgb_marg16", "fd_palette", "fd_autocorrelation", "w1_checkerboard_r2", "w1_two_colours")


def panel_table(resolution: int, images: int, nulls: int) -> str:
    """Return the table of z of a perfect denoiser under each sampler, at one resolution."""
    # Imported here: the order of a sampler needs no metric.
    from benches.multires.perfect import perfect_scores
    from diffusion.metrics.panel import overall

    rows = []
    # A perfect denoiser costs the fourth power of the side: of large images only the sampler in use is shown.
    drawings = DRAWINGS if resolution <= ALL_UP_TO else (Drawing(),)
    with tempfile.TemporaryDirectory() as folder:
        for drawing in drawings:
            scores = perfect_scores(
                Checkerboards(),
                ResolutionShifted(inner=CosineLogSNR()),
                resolution=resolution,
                images=images,
                drawing=drawing,
                seed=0,
                nulls=nulls,
                cache=Path(folder),
            )
            z = {score.metric: score.z for score in scores or ()}
            worst = max(z, key=lambda name: abs(z[name]))
            rows.append(
                [f"{drawing.sampler.value}, {drawing.steps} steps, even in {drawing.spacing.value}"]
                + [f"{z[name]:.1f}" for name in SHOWN]
                + [f"{z[worst]:.1f} ({worst})", f"{overall(z):.2f}"]
            )
    return reports.table(["sampler", *SHOWN, "worst", "overall"], rows)


def main() -> None:
    """Write samplers.md, or print it."""
    parser = argparse.ArgumentParser(prog="python -m benches.multires.samplers", description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--resolutions", default="16,32,64", help="of the panels; nothing leaves them out")
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--nulls", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = (
        f"# Samplers\n\nCommand: `{reports.command()}`\n\n## Order\n\nMean absolute error on Gaussian data of variance "
        f"{VARIANCE}, logSNR -8 to 8; order is the slope of a line through the logarithms.\n\n" + order_table()
    )
    for side in filter(None, options.resolutions.split(",")):
        text += (
            f"\n## The panel of a perfect denoiser, {side} px\n\nz of {options.images} images against "
            f"{options.nulls} true draws; below 3 is not told apart. Shifted cosine schedule.\n\n"
            + panel_table(int(side), options.images, options.nulls)
        )
    if options.out is None:
        print(text, end="")
    else:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "samplers.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
