"""Validation of a trainer's averaged weights, as all benches of the lab do it."""

from __future__ import annotations

import torch

from diffusion.training import Trainer
from diffusion.validation import ValidationPoint, validate

LEAST_IMAGES = 8


def validated(trainer: Trainer, *, bins: int, tokens: int) -> list[ValidationPoint]:
    """Return the losses at every resolution and level, on as many images of each resolution as `tokens` pay for."""

    def predict(noisy: torch.Tensor, logsnr: torch.Tensor, resolution: int) -> torch.Tensor:
        said: torch.Tensor = trainer.averaged(noisy, logsnr, trainer.layout(resolution)).target_BCHW
        return said

    return [
        point
        for bucket in trainer.buckets.buckets
        for point in validate(
            predict,
            trainer.objective.parametrization,
            trainer.schedule,
            trainer.source,
            resolutions=(bucket.resolution,),
            bins=bins,
            images=max(LEAST_IMAGES, tokens // bucket.tokens),
            device=trainer.device,
        )
    ]
