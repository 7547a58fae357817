"""How often the 95 % intervals of the gradient statistics hold a truth that is known, by simulation.

python -m benches.gradients.coverage --out benches/results/gradients     about two minutes

Gradients are drawn from laws with a known mean and covariance. "plain" noise is equal in all directions; "few
directions" has variances 1, 1/2, 1/3, ...; "uneven images" scales each image's noise by a log-normal number. The
expected gradient lies where the noise does: each of its parts is in proportion to the noise's deviation.
"""

# ruff: noqa: N806 (tensors carry shape suffixes)

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benches.harness import markdown as reports
from diffusion.gradients import cosine_of, gram, norm_of, signal_share, spatial_spread, squared_norm
from diffusion.pairs import Interval
from diffusion.random_streams import stream

PARAMETERS = 1000
SIDE = 8


class Case(NamedTuple):
    """A law of gradients: `noise_scale` is B_simple, and |G| is 1."""

    noise: str
    images: int
    noise_scale: float


CASES = (
    *(Case("plain", images, scale) for images, scale in ((8, 16), (16, 4), (16, 16), (16, 64), (64, 16))),
    Case("few directions", 16, 16),
    Case("few directions", 64, 64),
    Case("uneven images", 16, 16),
    Case("uneven images", 64, 64),
)
COSINE = 0.5
"""Of the two expected gradients whose cosine is estimated."""
SPREAD = 0.3
"""Deviation over pixels of the expected loss map, whose mean is 1; the single images' own is 0.8."""


def deviations(case: Case) -> Tensor:
    """Return the noise's deviation along each parameter, as deviation_P of length 1."""
    variance_P = torch.ones(PARAMETERS, dtype=torch.float64)
    if case.noise == "few directions":
        variance_P = 1 / torch.arange(1, PARAMETERS + 1, dtype=torch.float64)
    return (variance_P / variance_P.sum()).sqrt()


def draw(case: Case, generator: torch.Generator) -> Tensor:
    """Return noise of gradients as n_BP with expected square `noise_scale`."""
    n_BP = torch.randn(case.images, PARAMETERS, generator=generator, dtype=torch.float64)
    n_BP = n_BP * deviations(case) * math.sqrt(case.noise_scale)
    if case.noise == "uneven images":
        # E exp(2 s n) = exp(2 s^2)
        size_B1 = torch.randn(case.images, 1, generator=generator, dtype=torch.float64)
        n_BP = n_BP * torch.exp(0.5 * size_B1 - 0.25)
    return n_BP


def means(case: Case) -> tuple[Tensor, Tensor]:
    """Return two expected gradients of length 1 whose cosine is `COSINE`."""
    first_P = deviations(case)
    other_P = first_P.clone()
    other_P[1::2] *= -1
    other_P = other_P - (other_P @ first_P) * first_P
    return first_P, COSINE * first_P + math.sqrt(1 - COSINE**2) * other_P / other_P.norm()


def holds(interval: Interval, truth: float) -> bool:
    """Return whether an interval holds the truth."""
    return interval.low <= truth <= interval.high


def coverage(case: Case, trials: int, seed: int = 0) -> dict[str, float]:
    """Return the share of intervals that hold the truth, by what was estimated, and the share of cosines shown.

    A cosine of which nothing is known may be anything, which holds the truth; "cosine_shown" leaves those out.
    """
    generator = stream(seed, case.noise, case.images, int(case.noise_scale))
    first_P, second_P = means(case)
    hits = {"norm": 0, "share": 0, "cosine": 0, "spread": 0}
    shown = 0
    pattern_HW = torch.ones(SIDE, SIDE, dtype=torch.float64)
    pattern_HW[:, : SIDE // 2] = -1
    for _ in range(trials):
        # The same images at both levels: their noise is shared, as the bench shares it.
        shared_BP = draw(case, generator)
        g_BP = first_P + shared_BP
        other_BP = second_P + math.sqrt(0.5) * (shared_BP + draw(case, generator))
        k_BB = gram(g_BP)
        hits["norm"] += holds(norm_of(squared_norm(k_BB).interval()), 1.0)
        hits["share"] += holds(signal_share(k_BB), 1 / case.noise_scale)
        cosine = cosine_of(k_BB, gram(other_BP), gram(g_BP, other_BP))
        if cosine is not None:
            shown += 1
            hits["cosine"] += holds(cosine, COSINE)
        noise_BHW = torch.randn(case.images, SIDE, SIDE, generator=generator, dtype=torch.float64)
        hits["spread"] += holds(spatial_spread(1 + SPREAD * pattern_HW + 0.8 * noise_BHW), SPREAD)
    return {
        **{name: hits[name] / trials for name in ("norm", "share", "spread")},
        "cosine": (hits["cosine"] + trials - shown) / trials,
        "cosine_shown": hits["cosine"] / max(1, shown),
        "shown": shown / trials,
    }


def table(measure: Callable[[Case], dict[str, float]]) -> str:
    """Return the table of all cases."""
    header = ["noise, images, B_simple", "norm", "1 / B_simple", "spread", "cosine", "of those shown", "cosines shown"]
    rows = []
    for case in CASES:
        found = measure(case)
        rows.append(
            [f"{case.noise}, {case.images}, {case.noise_scale:g}"]
            + [f"{found[name]:.3f}" for name in ("norm", "share", "spread", "cosine", "cosine_shown", "shown")]
        )
    return reports.table(header, rows)


def main() -> None:
    """Simulate every case and write coverage.md, or print it."""
    parser = argparse.ArgumentParser(prog="python -m benches.gradients.coverage", description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = (
        "# Coverage of 95 % intervals, by simulation\n\n"
        f"Command: `{reports.command()}`  \n{options.trials} trials a row, so a share of 0.95 has a standard error of "
        f"{math.sqrt(0.95 * 0.05 / options.trials):.4f}. Truth: |G| = 1, cosine {COSINE}, spread {SPREAD}.\n\n"
        + table(lambda case: coverage(case, options.trials))
    )
    if options.out is None:
        print(text, end="")
    else:
        (options.out / "coverage.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
