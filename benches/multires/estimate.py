"""What a run of `benches.multires` will need, before it is started: memory of one step, operations, time.

Everything is counted on this machine, from one image of each resolution; nothing is measured on the device that the
run is for. What autograd keeps is counted without a compiler, which keeps less, so the memory is an upper bound.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from benches.multires.presets import MultiresConfig
from diffusion.attention import AttentionBackend
from diffusion.buckets import BucketSchedule
from diffusion.flops import counted_flops
from diffusion.model import Backbone
from diffusion.models import backbone_of
from diffusion.objective import DenoisingObjective
from diffusion.parametrization import Parametrization

ASSUMED_FLOPS = 1e14
"""Operations a second: a tenth of what an H100's data sheet promises in bfloat16, since these models are narrow."""


class Estimate(NamedTuple):
    """What a run needs."""

    parameters: int
    state_bytes: int  # weights, gradients, two moments and the average, in float32
    step_bytes: int  # what autograd keeps of the largest batch; half in bfloat16 on a CUDA device
    operations: float  # of all steps, modes and seeds, forward and backward
    trainings: int
    hours: float | None  # at `ASSUMED_FLOPS`; None for a CPU, of which nothing is assumed

    def words(self) -> str:
        """Return it in one line."""
        gib = (self.state_bytes + self.step_bytes) / 2**30
        time = "" if self.hours is None else f": {self.hours:.2g} h at an assumed {ASSUMED_FLOPS:.0e} a second"
        return (
            f"estimate: {self.parameters / 1e6:.2f} M parameters, at most {gib:.2f} GiB a step, "
            f"{self.operations:.2g} operations in {self.trainings} trainings{time}; nothing was measured"
        )


def kept_bytes(backbone: Backbone, resolution: int) -> int:
    """Return how many bytes autograd keeps of one image's loss, weights aside."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in backbone.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    objective = DenoisingObjective(backbone, Parametrization())
    image = torch.zeros(1, 3, resolution, resolution)
    where = backbone.layout(resolution, backend=AttentionBackend.SDPA)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        terms = objective(image, image, image.new_zeros(1), where)
    del terms
    return sum(kept.values())


def estimate(config: MultiresConfig) -> Estimate:
    """Return what a run of this configuration needs; the first mode stands for all."""
    backbone = backbone_of(replace(config.backbone, mode=config.modes[0]))
    schedule = BucketSchedule(config.buckets, seed=0)
    parameters = sum(p.numel() for p in backbone.parameters())
    on_cuda = config.device.startswith("cuda")
    half = 2 if config.train.mixed_precision and on_cuda else 1
    images = [bucket for step in range(schedule.round_length) for bucket in (schedule.at(step),)]
    of_side = {bucket.resolution: counted_flops(backbone, bucket.resolution, "cpu") for bucket in schedule.buckets}
    # Forward and backward are three times the forward.
    a_step = sum(3 * of_side[bucket.resolution] * bucket.batch for bucket in images) / len(images)
    trainings = len(config.modes) * len(config.seeds)
    operations = a_step * config.train.steps * trainings
    return Estimate(
        parameters=parameters,
        state_bytes=5 * 4 * parameters,
        step_bytes=max(kept_bytes(backbone, b.resolution) * b.batch // half for b in schedule.buckets),
        operations=operations,
        trainings=trainings,
        hours=operations / ASSUMED_FLOPS / 3600 if on_cuda else None,
    )
