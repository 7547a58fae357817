"""The trainers of the lab's three benches, as the speed benches start them: a step or so, and no metrics.

Each has the model, target, schedule and data of its bench, and the small budget of tokens of the bench's `demo` preset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from benches.backbones import presets as backbones_presets
from benches.gradients import presets as gradients_presets
from benches.multires import presets as multires_presets
from diffusion.buckets import BucketConfig, BucketSchedule
from diffusion.data import ImageSource
from diffusion.models import ModelConfig, backbone_of
from diffusion.objective import DenoisingObjective
from diffusion.parametrization import Parametrization, Target
from diffusion.schedules import Schedule
from diffusion.training import TrainConfig, Trainer


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What one of the benches trains."""

    backbone: ModelConfig
    target: Target
    schedule: Schedule
    source: ImageSource
    buckets: BucketConfig
    train: TrainConfig


def trainer_of(
    model: str, *, depth: int | None, resolutions: tuple[int, ...], steps: int, backend: str | None
) -> Trainer:
    """Return a bench's trainer with so many steps at each resolution.

    `depth` is the bench's own where None; `backend` is torch.compile's, and None is eager.
    """
    recipe = MODELS[model]()
    train = replace(recipe.train, steps=steps * len(resolutions), compile=backend is not None)
    if backend is not None:
        train = replace(train, backend=backend)
    torch.manual_seed(train.seed)
    backbone = backbone_of(replace(recipe.backbone, depth=depth or recipe.backbone.depth))
    buckets = replace(recipe.buckets, resolutions=resolutions, visits=(steps,) * len(resolutions))
    return Trainer(
        objective=DenoisingObjective(backbone, Parametrization(target=recipe.target)),
        schedule=recipe.schedule,
        source=recipe.source,
        buckets=BucketSchedule(buckets, seed=train.seed),
        config=train,
    )


def _multires() -> _Recipe:
    its = multires_presets.preset("demo")
    return _Recipe(its.backbone, its.target, its.schedule, its.source, its.buckets, its.train)


def _gradients() -> _Recipe:
    its = gradients_presets.preset("demo")
    return _Recipe(its.backbone, its.targets[0], its.schedule, its.source, its.buckets, its.train)


def _backbones() -> _Recipe:
    its = backbones_presets.preset("demo")
    return _Recipe(its.base, its.target, its.schedule, its.source, its.buckets, its.train)


MODELS: dict[str, Callable[[], _Recipe]] = {"multires": _multires, "gradients": _gradients, "backbones": _backbones}
