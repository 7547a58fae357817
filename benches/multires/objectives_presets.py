"""What `benches.multires.objectives` runs under each preset: the rows, and how they are trained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from benches.multires.presets import FAST, LEARNER
from diffusion.backbone import BackboneConfig
from diffusion.buckets import BucketConfig
from diffusion.data import Checkerboards
from diffusion.errors import ConfigError, PresetError
from diffusion.parametrization import Target
from diffusion.schedules import CosineLogSNR, ResolutionShifted, Schedule
from diffusion.training import TrainConfig
from diffusion.weights import Bell, LossConfig, MinSNR, Sigmoid


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One objective in its three parts."""

    name: str
    says: Target
    loss: LossConfig


PAIRS = tuple(
    Row(name=f"{says.value} / {loss_in.value}", says=says, loss=LossConfig(loss_in=loss_in))
    for says in Target
    for loss_in in Target
)
WEIGHTED = (
    Row(name="x0 / x0, min-SNR", says=Target.X0, loss=LossConfig(loss_in=Target.X0, weight=MinSNR())),
    Row(name="x0 / epsilon, sigmoid", says=Target.X0, loss=LossConfig(loss_in=Target.EPSILON, weight=Sigmoid())),
    Row(name="x0 / v, bell", says=Target.X0, loss=LossConfig(loss_in=Target.V, weight=Bell())),
    Row(name="x0 / v, cap 4", says=Target.X0, loss=LossConfig(loss_in=Target.V, cap=4.0)),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectivesConfig:
    """One run: every row is trained once a seed; rows are compared to the first, seed by seed."""

    preset: str
    backbone: BackboneConfig = LEARNER
    rows: tuple[Row, ...] = (*PAIRS, *WEIGHTED)
    seeds: tuple[int, ...] = (0, 1, 2)
    buckets: BucketConfig = field(default_factory=lambda: BucketConfig(resolutions=(16,), tokens_per_step=2048))
    train: TrainConfig = field(default_factory=TrainConfig)
    schedule: Schedule = field(default_factory=lambda: ResolutionShifted(inner=CosineLogSNR()))
    source: Checkerboards = field(default_factory=Checkerboards)
    validation_bins: int = 8
    validation_tokens: int = 4096
    """Validation images of each resolution are as many as fit, at least 8."""
    drawn: int = 64
    """Samples at the smallest resolution, whose checkerboard R2 is taken."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.rows or len({row.name for row in self.rows}) != len(self.rows):
            raise ConfigError("rows must be there and have names of their own")
        if not self.seeds or self.drawn < 2:
            raise ConfigError("at least one seed and two samples are needed")


def _demo() -> ObjectivesConfig:
    return ObjectivesConfig(
        preset="demo",
        backbone=replace(LEARNER, width=32, depth=2, heads=2, hidden=64),
        rows=PAIRS[:3],
        seeds=(0, 1),
        buckets=BucketConfig(resolutions=(16,), tokens_per_step=512),
        train=TrainConfig(steps=20, compile=False, optimizer=FAST),
        validation_tokens=512,
        drawn=8,
    )


def _cpu() -> ObjectivesConfig:
    return ObjectivesConfig(
        preset="cpu", seeds=(0, 1), train=TrainConfig(steps=100, compile=False, optimizer=FAST), validation_tokens=2048
    )


def _gpu() -> ObjectivesConfig:
    return ObjectivesConfig(
        preset="gpu",
        backbone=BackboneConfig(width=256, depth=8, heads=8, hidden=512, places=True),
        buckets=BucketConfig(tokens_per_step=65536),
        train=TrainConfig(steps=5000),
        drawn=512,
        device="cuda",
    )


def _cpu_long() -> ObjectivesConfig:
    return ObjectivesConfig(preset="cpu-long", train=TrainConfig(steps=240, compile=False, optimizer=FAST))


PRESETS = {"demo": _demo, "cpu": _cpu, "cpu-long": _cpu_long, "gpu": _gpu}


def preset(name: str) -> ObjectivesConfig:
    """Return a preset; raise `PresetError` for a name nobody defined."""
    if name not in PRESETS:
        raise PresetError(name, tuple(PRESETS))
    return PRESETS[name]()
