"""Training as a generator: `Trainer.steps()` yields one record a step, and its driver owns logging and plots.

Legend: B batch, C colour channels, H and W pixels.

A step depends on (seed, step) and the weights only, so a run resumed from a checkpoint repeats the losses it would
have had, bit for bit on the same machine and device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from diffusion.buckets import Bucket, BucketSchedule
from diffusion.data import ImageSource
from diffusion.errors import CheckpointMismatchError, ConfigError, LossDivergedError
from diffusion.model import Backbone
from diffusion.objective import DenoisingObjective, LossTerms
from diffusion.optimizer import OptimizerConfig, optimizers
from diffusion.random_streams import stream
from diffusion.schedules import Schedule, shift_of
from diffusion.spans import Layout
from diffusion.weights import Phase, check_phases, loss_at


class TimeSampling(StrEnum):
    """How the times of one batch are spread over [0, 1]."""

    UNIFORM = "uniform"  # independent
    ANTITHETIC = "antithetic"  # (u + i / B) mod 1, one u a batch (Kingma et al., arXiv 2107.00630, appendix I.1)
    STRATIFIED = "stratified"  # (i + u_i) / B, one u an image


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How a backbone is trained; what it is and what it learns are configured elsewhere."""

    steps: int = 100
    seed: int = 0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    grad_clip: float = 1.0
    ema_decay: float = 0.999
    time_sampling: TimeSampling = TimeSampling.ANTITHETIC
    router_noise: float = 0.1
    """Standard deviation of what is added to router logits, where there are routers."""
    compile: bool = True
    backend: str = "inductor"
    """torch.compile's backend."""
    mixed_precision: bool = True
    """bfloat16 autocast on CUDA devices; CPUs always compute in float32."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps must be positive, got {self.steps}")
        if self.grad_clip <= 0:
            raise ConfigError(f"grad_clip must be positive, got {self.grad_clip}")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay must be in [0, 1), got {self.ema_decay}")
        if self.router_noise < 0:
            raise ConfigError(f"router_noise must not be negative, got {self.router_noise}")


class StepRecord(NamedTuple):
    """What one step reports."""

    step: int  # from 0
    resolution: int  # pixels a side
    batch: int
    loss: float
    mse: float  # of what the network says, unweighted, mean over the batch
    grad_norm: float  # before clipping
    lr: float  # of the backbone group
    seconds: float  # on the wall
    cpu_seconds: float  # of all threads of this process


def sample_times(batch: int, how: TimeSampling, generator: torch.Generator) -> Tensor:
    """Return t_B in [0, 1), float32."""
    index_B = torch.arange(batch) / batch
    if how is TimeSampling.UNIFORM:
        return torch.rand(batch, generator=generator)
    if how is TimeSampling.ANTITHETIC:
        return (torch.rand(1, generator=generator) + index_B) % 1
    return index_B + torch.rand(batch, generator=generator) / batch


def allow_graphs(count: int) -> None:
    """Let one compiled function hold `count` static graphs; beyond its limit dynamo would quietly run eagerly."""
    import torch._dynamo.config as dynamo

    dynamo.recompile_limit = max(dynamo.recompile_limit, count)


def _ema(decay: float) -> Any:
    def blend(averaged: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
        # Early averages forget their random start: (1 + n) / (10 + n) until it exceeds `decay`.
        warm = min(decay, (1 + float(steps)) / (10 + float(steps)))
        return averaged.lerp(current, 1 - warm)

    return blend


class Trainer:
    """Holds the weights, their average and the optimizer; `steps()` moves them."""

    def __init__(
        self,
        *,
        objective: DenoisingObjective,
        schedule: Schedule,
        source: ImageSource,
        buckets: BucketSchedule,
        config: TrainConfig,
        phases: tuple[Phase, ...] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Take the parts of a training. Without `phases` the loss is the error of what the network says, unweighted."""
        if phases is not None:
            check_phases(phases)
        self.device = torch.device(device)
        self.config = config
        self.schedule = schedule
        self.source = source
        self.buckets = buckets
        self.phases = phases
        self.objective = objective.to(self.device)
        self.step = 0
        backbone = objective.backbone
        self._average = AveragedModel(backbone, avg_fn=_ema(config.ema_decay))
        self.optimizer = optimizers(backbone, config.optimizer, steps=config.steps)
        self._layouts: dict[int, Layout] = {}
        self._forward: Any = objective
        if config.compile:
            # Several trainers of one process share the code object of the objective, and so its limit.
            allow_graphs(16 * len(buckets.buckets))
            self._forward = torch.compile(objective, dynamic=False, fullgraph=True, backend=config.backend)

    @property
    def averaged(self) -> Backbone:
        """The backbone with exponentially averaged weights; the one to sample from."""
        return cast(Backbone, self._average.module)

    def layout(self, resolution: int) -> Layout:
        """Return the layout of one image of this resolution, made once."""
        if resolution not in self._layouts:
            self._layouts[resolution] = self.objective.backbone.layout(resolution, device=self.device)
        return self._layouts[resolution]

    def loss(self, step: int, bucket: Bucket) -> LossTerms:
        """Return the loss terms of the batch that belongs to (seed, step), with their graph."""
        seed, shape = self.config.seed, (bucket.batch, 3, bucket.resolution, bucket.resolution)
        x0_BCHW = self.source.draw(bucket.batch, bucket.resolution, seed=seed, step=step, device=self.device)
        t_B = sample_times(bucket.batch, self.config.time_sampling, stream(seed, "time", step))
        logsnr_B = self.schedule.logsnr(t_B, bucket.resolution).to(self.device)
        epsilon_BCHW = torch.randn(shape, generator=stream(seed, "noise", step)).to(self.device)
        where = self.layout(bucket.resolution)
        noise_LBNE = None
        noise_shape = self.objective.backbone.router_noise_shape(bucket.batch, where)
        if noise_shape is not None:
            noise_LBNE = torch.randn(noise_shape, generator=stream(seed, "router", step)).to(self.device)
            noise_LBNE = noise_LBNE * self.config.router_noise
        weight_B = None
        if self.phases is not None:
            loss = loss_at(self.phases, step, self.config.steps)
            unshifted_B = logsnr_B - shift_of(self.schedule, bucket.resolution)
            weight_B = loss.factor(unshifted_B, self.objective.parametrization.target)
        autocast = self.config.mixed_precision and self.device.type == "cuda"
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            terms: LossTerms = self._forward(x0_BCHW, epsilon_BCHW, logsnr_B, where, noise_LBNE, weight_B)
        return terms

    def steps(self) -> Iterator[StepRecord]:
        """Train from where the trainer stands to the last step. Raises `LossDivergedError` before a bad update."""
        self.objective.train()
        while self.step < self.config.steps:
            started, spent = time.perf_counter(), time.process_time()
            bucket = self.buckets.at(self.step)
            terms = self.loss(self.step, bucket)
            loss = float(terms.loss.detach())
            if not math.isfinite(loss):
                raise LossDivergedError(self.step, bucket.resolution, loss)
            self.optimizer.zero_grad()
            terms.loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
            norm = nn.utils.clip_grad_norm_(self.objective.parameters(), self.config.grad_clip)
            lr = float(self.optimizer.param_groups[-1]["lr"])
            self.optimizer.step()
            self._average.update_parameters(self.objective.backbone)
            record = StepRecord(
                step=self.step,
                resolution=bucket.resolution,
                batch=bucket.batch,
                loss=loss,
                mse=float(terms.mse_B.mean()),
                grad_norm=float(norm),
                lr=lr,
                seconds=time.perf_counter() - started,
                cpu_seconds=time.process_time() - spent,
            )
            self.step += 1
            yield record

    def fingerprint(self) -> dict[str, str]:
        """Return what must be equal for a checkpoint to continue this run, as text."""
        return {
            "train": repr(self.config),
            "backbone": self.objective.backbone.name,
            "target": self.objective.parametrization.target.value,
            "phases": repr(self.phases),
            "z_weight": repr(self.objective.z_weight),
            "schedule": repr(self.schedule),
            "source": self.source.name,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the remaining steps depend on."""
        return {
            "step": self.step,
            "fingerprint": self.fingerprint(),
            "buckets": self.buckets.state_dict(),
            "weights": self.objective.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; raise `CheckpointMismatchError` if this trainer is configured otherwise."""
        mine = self.fingerprint()
        different = tuple(name for name in mine if state["fingerprint"].get(name) != mine[name])
        if different:
            raise CheckpointMismatchError("the checkpoint", different)
        self.buckets.load_state_dict(state["buckets"])
        self.objective.load_state_dict(state["weights"])
        self._average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
