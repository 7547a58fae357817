"""What `benches.multires` runs under each preset."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusion.backbone import BackboneConfig
from diffusion.buckets import BucketConfig
from diffusion.data import Checkerboards, ImageSource
from diffusion.equal_tokens import EqualTokensConfig
from diffusion.errors import ConfigError, PresetError
from diffusion.models import ModelConfig
from diffusion.optimizer import OptimizerConfig, Policy
from diffusion.parametrization import Mode, Target
from diffusion.sampling import Drawing
from diffusion.schedules import CosineLogSNR, LinearLogSNR, ResolutionShifted, Schedule
from diffusion.training import TrainConfig
from diffusion.weights import LossConfig, Phase


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """How a trained model is looked at and measured."""

    times: int = 3
    """How often during training the panel is taken, evenly spaced, the last at the end."""
    images: int = 256
    """Samples per resolution and metric."""
    max_resolution: int = 32
    """The panel is taken up to this side; of larger images only the checkerboard R2 is."""
    perfect_up_to: int = 32
    """A perfect denoiser is sampled up to this side: what it costs grows with the side's fourth power."""
    fitted: int = 32
    """Samples of such a larger side whose R2 is taken."""
    drawn: int = 16
    """Samples shown of each resolution."""
    drawing: Drawing = field(default_factory=Drawing)
    nulls: int = 20
    """Independent true draws behind each null mean and spread."""
    validation_bins: int = 8
    validation_tokens: int = 8192
    """Validation images of each resolution are as many as fit, at least 8."""

    def __post_init__(self) -> None:
        if min(self.times, self.images - 1, self.drawn, self.fitted, self.nulls - 1, self.validation_bins) < 1:
            raise ConfigError("evaluation needs at least one time, two images and two nulls")


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiresConfig:
    """One run: the same backbone trained once per mode, on all resolutions together."""

    preset: str
    backbone: ModelConfig = field(default_factory=BackboneConfig)
    buckets: BucketConfig = field(default_factory=BucketConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    phases: tuple[Phase, ...] | None = None
    """What the loss is, phase after phase; None is the plain error of what the network says."""
    schedule: Schedule = field(default_factory=LinearLogSNR)
    source: ImageSource = field(default_factory=Checkerboards)
    target: Target = Target.V
    modes: tuple[Mode, ...] = (Mode.NAIVE, Mode.FACTORIZED)
    seeds: tuple[int, ...] = (0,)
    """Every mode is trained once a seed; modes of one seed share weights at the start, data, noise and times."""
    evaluation: EvaluationConfig | None = field(default_factory=EvaluationConfig)
    """None trains only, which is what a compiler's workload needs."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 writes none."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.modes or not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError("at least one mode and one seed are needed, and each seed once")
        if self.checkpoint_every < 0:
            raise ConfigError(f"checkpoint_every must not be negative, got {self.checkpoint_every}")


FAST = OptimizerConfig(backbone_lr=6e-3, interface_lr=6e-3)
LEARNER = BackboneConfig(width=64, depth=4, heads=4, hidden=128, places=True)
"""With target x0, which draws boards after the same steps that leave target v with shapeless regions: docs/log.md."""


def evaluation_steps(steps: int, times: int) -> tuple[int, ...]:
    """Return after how many steps the model is looked at: evenly spaced, the last at the end."""
    return tuple(sorted({max(1, round(steps * (i + 1) / times)) for i in range(times)}))


def _demo() -> MultiresConfig:
    # One local and one global layer, no modulation: 22 kernels a resolution instead of 42, so that a machine with two
    # cores compiles all three resolutions from nothing in well under a minute.
    return MultiresConfig(
        preset="demo",
        backbone=BackboneConfig(
            width=48, depth=2, heads=3, hidden=96, interface_depth=0, global_every=2, reflections=1, modulation=False
        ),
        buckets=BucketConfig(tokens_per_step=2048),
        train=TrainConfig(steps=9),
        modes=(Mode.NAIVE,),
        evaluation=None,
    )


def _cpu() -> MultiresConfig:
    # A quarter of cpu-long's sizes where that saves time; eager, because compiling costs more than the run.
    return MultiresConfig(
        preset="cpu",
        backbone=LEARNER,
        target=Target.X0,
        buckets=BucketConfig(tokens_per_step=2048, visits=(6, 2, 1)),
        train=TrainConfig(steps=270, compile=False, optimizer=FAST),
        schedule=ResolutionShifted(inner=CosineLogSNR()),
        evaluation=EvaluationConfig(times=2, images=128, drawn=8, max_resolution=16, nulls=10, validation_tokens=4096),
    )


BOARDS = (
    Phase(until=0.6, loss=LossConfig(loss_in=Target.X0)),
    Phase(until=1.0, loss=LossConfig(loss_in=Target.V, cap=4.0)),
)
"""Geometry first: the error of v spends itself where local averaging is enough (docs/lab.md)."""


def _cpu_long() -> MultiresConfig:
    # A board is no more at 64 px than at 16: 64 tokens and 32 images at every resolution, as often.
    return MultiresConfig(
        preset="cpu-long",
        backbone=EqualTokensConfig(),
        target=Target.X0,
        buckets=BucketConfig(tokens_per_step=2048, tokens=64),
        train=TrainConfig(
            steps=8000,
            optimizer=OptimizerConfig(
                backbone_lr=4e-3, interface_lr=4e-3, muon_lr=1e-2, policy=Policy.WSD, warmup=0.02, decay=0.4
            ),
        ),
        phases=BOARDS,
        schedule=ResolutionShifted(inner=CosineLogSNR()),
        modes=(Mode.NAIVE,),
        seeds=(0, 1, 2),
        evaluation=EvaluationConfig(times=2, images=192, drawn=8, max_resolution=64, perfect_up_to=64),
        checkpoint_every=1000,
    )


def _gpu() -> MultiresConfig:
    return MultiresConfig(
        preset="gpu",
        backbone=BackboneConfig(width=256, depth=8, heads=8, hidden=512, interface_depth=2, places=True),
        target=Target.X0,
        buckets=BucketConfig(tokens_per_step=65536, visits=(2, 1, 1)),
        train=TrainConfig(steps=20000, optimizer=OptimizerConfig(backbone_lr=1e-3, interface_lr=1e-3)),
        schedule=ResolutionShifted(inner=CosineLogSNR()),
        modes=(Mode.NAIVE, Mode.FACTORIZED, Mode.FACTORIZED_NLL),
        seeds=(0, 1, 2),
        evaluation=EvaluationConfig(times=8, images=2048, max_resolution=64, drawing=Drawing(steps=32), nulls=50),
        checkpoint_every=2000,
        device="cuda",
    )


PRESETS = {"demo": _demo, "cpu": _cpu, "cpu-long": _cpu_long, "gpu": _gpu}


def preset(name: str) -> MultiresConfig:
    """Return a preset; raise `PresetError` for a name nobody defined."""
    if name not in PRESETS:
        raise PresetError(name, tuple(PRESETS))
    return PRESETS[name]()
