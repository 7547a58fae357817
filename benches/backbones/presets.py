"""What `benches.backbones` runs under each preset: a base backbone and what is varied around it."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusion.backbone import BackboneConfig, FeedForward
from diffusion.buckets import BucketConfig
from diffusion.data import Checkerboards
from diffusion.errors import ConfigError, PresetError
from diffusion.optimizer import OptimizerConfig
from diffusion.parametrization import Target
from diffusion.schedules import CosineLogSNR, ResolutionShifted, Schedule
from diffusion.training import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One point of the grid: along `axis`, the base with `changes` to its fields.

    Changes are kept as data until the variant's turn, so that an impossible one is a failed cell and not a failed run.
    """

    axis: str
    name: str
    changes: tuple[tuple[str, int | str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class BackbonesConfig:
    """One grid: every variant is trained on the same budget of effective operations, once per seed."""

    preset: str
    base: BackboneConfig = field(default_factory=BackboneConfig)
    variants: tuple[Variant, ...] = ()
    budget_flops: float = 2e11
    """Effective operations of one training run, forward and backward."""
    seeds: tuple[int, ...] = (0, 1, 2)
    buckets: BucketConfig = field(default_factory=BucketConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    """`steps` is not used: the budget decides."""
    schedule: Schedule = field(default_factory=lambda: ResolutionShifted(inner=CosineLogSNR()))
    source: Checkerboards = field(default_factory=Checkerboards)
    target: Target = Target.X0
    max_steps: int | None = None
    validation_bins: int = 8
    validation_images: int = 64
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.budget_flops <= 0:
            raise ConfigError(f"the budget must be positive, got {self.budget_flops}")
        if not self.variants or not self.seeds:
            raise ConfigError("a grid needs at least one variant and one seed")
        if len({v.name for v in self.variants}) != len(self.variants):
            raise ConfigError("each variant needs its own name")
        if self.max_steps is not None and self.max_steps < 1:
            raise ConfigError(f"steps must be positive, got {self.max_steps}")


BASE = BackboneConfig(width=48, depth=4, heads=3, hidden=96, places=True)

GRID = (
    Variant(axis="base", name="base"),
    Variant(axis="depth", name="depth 2", changes=(("depth", 2),)),
    Variant(axis="depth", name="depth 8", changes=(("depth", 8),)),
    Variant(axis="interface depth", name="interface 0", changes=(("interface_depth", 0),)),
    Variant(axis="interface depth", name="interface 4", changes=(("interface_depth", 4),)),
    Variant(axis="feed-forward", name="8 experts, 3 active", changes=(("feedforward", FeedForward.MOE.value),)),
    Variant(axis="width", name="width 32", changes=(("width", 32), ("heads", 2), ("hidden", 64))),
    Variant(axis="width", name="width 80", changes=(("width", 80), ("heads", 5), ("hidden", 160))),
)

EAGER = TrainConfig(compile=False, optimizer=OptimizerConfig(backbone_lr=6e-3, interface_lr=6e-3))


def _demo() -> BackbonesConfig:
    return BackbonesConfig(
        preset="demo",
        base=BASE,
        variants=(GRID[0], GRID[1], GRID[5]),
        budget_flops=2e9,
        seeds=(0,),
        buckets=BucketConfig(resolutions=(16,), tokens_per_step=512),
        train=EAGER,
        validation_images=16,
    )


def _cpu() -> BackbonesConfig:
    return BackbonesConfig(
        preset="cpu",
        base=BASE,
        variants=GRID,
        budget_flops=6e10,
        seeds=(0, 1),
        buckets=BucketConfig(resolutions=(16,), tokens_per_step=2048),
        train=EAGER,
    )


def _cpu_long() -> BackbonesConfig:
    return BackbonesConfig(
        preset="cpu-long",
        base=BASE,
        variants=GRID,
        budget_flops=6e11,
        buckets=BucketConfig(resolutions=(16,), tokens_per_step=2048),
        train=EAGER,
    )


def _gpu() -> BackbonesConfig:
    base = BackboneConfig(width=256, depth=8, heads=8, hidden=512, places=True)
    return BackbonesConfig(
        preset="gpu",
        base=base,
        variants=(
            Variant(axis="base", name="base"),
            Variant(axis="depth", name="depth 4", changes=(("depth", 4),)),
            Variant(axis="depth", name="depth 16", changes=(("depth", 16),)),
            Variant(axis="interface depth", name="interface 0", changes=(("interface_depth", 0),)),
            Variant(axis="interface depth", name="interface 4", changes=(("interface_depth", 4),)),
            GRID[5],
            Variant(axis="width", name="width 128", changes=(("width", 128), ("heads", 4), ("hidden", 256))),
            Variant(axis="width", name="width 512", changes=(("width", 512), ("heads", 16), ("hidden", 1024))),
        ),
        budget_flops=1e16,
        buckets=BucketConfig(resolutions=(16, 32, 64), tokens_per_step=65536),
        train=TrainConfig(optimizer=OptimizerConfig(backbone_lr=1e-3, interface_lr=1e-3)),
        device="cuda",
    )


PRESETS = {"demo": _demo, "cpu": _cpu, "cpu-long": _cpu_long, "gpu": _gpu}


def preset(name: str) -> BackbonesConfig:
    """Return a preset; raise `PresetError` for a name nobody defined."""
    if name not in PRESETS:
        raise PresetError(name, tuple(PRESETS))
    return PRESETS[name]()
