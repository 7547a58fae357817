"""What the sampler alone costs: the panel of a perfect denoiser that is sampled as the model is."""

from __future__ import annotations

from pathlib import Path

from diffusion.data import Checkerboards, ImageSource
from diffusion.metrics.panel import Score, panel
from diffusion.optimal import OptimalDenoiser
from diffusion.parametrization import Parametrization, Target
from diffusion.sampling import Drawing, draw_images
from diffusion.schedules import Schedule


def perfect_scores(
    source: ImageSource,
    schedule: Schedule,
    *,
    resolution: int,
    images: int,
    drawing: Drawing,
    seed: int,
    nulls: int,
    cache: Path | None = None,
) -> list[Score] | None:
    """Return the panel of a perfect denoiser; None for images whose best denoiser is unknown.

    No model can be asked for more under the same sampler.
    """
    if not isinstance(source, Checkerboards) or source.supersampling != 1:
        return None
    best = OptimalDenoiser(boards=source, angles=64 * resolution)
    samples = draw_images(
        lambda noisy, logsnr: best(noisy, logsnr).float(),
        Parametrization(target=Target.X0),
        schedule,
        count=images,
        resolution=resolution,
        drawing=drawing,
        seed=seed,
    )
    return panel(samples, source, nulls=nulls, cache=cache)
