"""What `benches.gradients` runs under each preset."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusion.backbone import BackboneConfig
from diffusion.buckets import BucketConfig
from diffusion.data import Checkerboards, ImageSource
from diffusion.errors import ConfigError, PresetError
from diffusion.pairs import LEAST_IMAGES
from diffusion.parametrization import Mode, Target
from diffusion.schedules import CosineLogSNR, ResolutionShifted, Schedule
from diffusion.training import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientsConfig:
    """One run: every target and mode is trained for a while, and measured before and after at every resolution."""

    preset: str
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    buckets: BucketConfig = field(default_factory=BucketConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    schedule: Schedule = field(default_factory=lambda: ResolutionShifted(inner=CosineLogSNR()))
    source: ImageSource = field(default_factory=Checkerboards)
    targets: tuple[Target, ...] = tuple(Target)
    modes: tuple[Mode, ...] = (Mode.NAIVE, Mode.FACTORIZED)
    seeds: tuple[int, ...] = (0,)
    """Every target and mode is trained once a seed; cells of one seed share weights at the start, data and noise."""
    levels: int = 12
    """Noise levels, evenly spaced in logSNR."""
    highest: float = 6.0
    lowest: float = -10.0
    """logSNR of the first and the last level, before the schedule's shift: outside there is no signal to be found."""
    images: int = 24
    """Single-image gradients at each noise level. All of one resolution are held in memory at once."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.targets or not self.modes or not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError("at least one target, one mode and one seed are needed, and each seed once")
        if self.levels < 2 or self.images <= LEAST_IMAGES or self.highest <= self.lowest:
            raise ConfigError(f"gradients need two levels from high to low and {LEAST_IMAGES + 1} images")


# Without place features: gradients are to be those of the plain backbone.
SMALL = BackboneConfig(width=48, depth=4, heads=3, hidden=96)


def _demo() -> GradientsConfig:
    return GradientsConfig(
        preset="demo",
        backbone=SMALL,
        buckets=BucketConfig(resolutions=(16, 32), tokens_per_step=512),
        train=TrainConfig(steps=6, compile=False),
        targets=(Target.V,),
        modes=(Mode.NAIVE,),
        levels=4,
        images=6,
    )


def _cpu() -> GradientsConfig:
    return GradientsConfig(
        preset="cpu",
        backbone=SMALL,
        buckets=BucketConfig(tokens_per_step=2048, visits=(4, 2, 1)),
        train=TrainConfig(steps=100, compile=False),
        levels=5,
        images=6,
    )


def _cpu_long() -> GradientsConfig:
    return GradientsConfig(
        preset="cpu-long",
        backbone=SMALL,
        buckets=BucketConfig(tokens_per_step=2048, visits=(4, 2, 1)),
        train=TrainConfig(steps=80, compile=False),
        seeds=(0, 1, 2),
        levels=5,
        images=12,
    )


def _gpu() -> GradientsConfig:
    return GradientsConfig(
        preset="gpu",
        backbone=BackboneConfig(width=128, depth=8, heads=8, hidden=256),
        buckets=BucketConfig(tokens_per_step=16384),
        train=TrainConfig(steps=2000),
        modes=tuple(Mode),
        seeds=(0, 1, 2),
        levels=16,
        images=48,
        device="cuda",
    )


PRESETS = {"demo": _demo, "cpu": _cpu, "cpu-long": _cpu_long, "gpu": _gpu}


def preset(name: str) -> GradientsConfig:
    """Return a preset; raise `PresetError` for a name nobody defined."""
    if name not in PRESETS:
        raise PresetError(name, tuple(PRESETS))
    return PRESETS[name]()
