"""What `benches.backbones` runs under each preset: a base backbone and what is varied around it."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusion.backbone import BackboneConfig, FeedForward
from diffusion.buckets import BucketConfig
from diffusion.data import Checkerboards
from diffusion.errors import ConfigError, PresetError
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
    """One grid: every variant is trained on each budget of effective operations, once per seed.

    Before it, every width is trained on the smallest budget at each of `rates`, and keeps the best. After it, every
    variant is trained for equally many steps: as many as the base takes on `control_budget`.
    """

    preset: str
    base: BackboneConfig = field(default_factory=BackboneConfig)
    variants: tuple[Variant, ...] = ()
    budgets: tuple[float, ...] = (2e11,)
    """Effective operations of one training run, forward and backward."""
    rates: tuple[float, ...] = (6e-3,)
    """Learning rates that are tried, for both ends and the trunk, at the base's width."""
    equal_steps: bool = True
    """Whether every variant is also trained for as many steps as the base takes on the middle one of the budgets."""
    seeds: tuple[int, ...] = (0, 1, 2)
    buckets: BucketConfig = field(default_factory=BucketConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    """`steps` and the optimizer's rates are not used: budgets and `rates` decide."""
    schedule: Schedule = field(default_factory=lambda: ResolutionShifted(inner=CosineLogSNR()))
    source: Checkerboards = field(default_factory=Checkerboards)
    target: Target = Target.X0
    max_steps: int | None = None
    validation_bins: int = 6
    validation_tokens: int = 4096
    """Validation images of each resolution are as many as fit, at least 8."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.budgets or min(self.budgets) <= 0 or list(self.budgets) != sorted(set(self.budgets)):
            raise ConfigError(f"budgets must be positive and rise, got {self.budgets}")
        if not self.rates or min(self.rates) <= 0 or len(set(self.rates)) != len(self.rates):
            raise ConfigError(f"rates must be positive and each named once, got {self.rates}")
        if not self.variants or not self.seeds:
            raise ConfigError("a grid needs at least one variant and one seed")
        if len({v.name for v in self.variants}) != len(self.variants):
            raise ConfigError("each variant needs its own name")
        if self.max_steps is not None and self.max_steps < 1:
            raise ConfigError(f"steps must be positive, got {self.max_steps}")

    @property
    def control_budget(self) -> float:
        """The budget whose steps of the base every variant is given in the control."""
        return self.budgets[len(self.budgets) // 2]


BASE = BackboneConfig(width=32, depth=4, heads=2, hidden=64, places=True)

GRID = (
    Variant(axis="base", name="base"),
    Variant(axis="depth", name="depth 2", changes=(("depth", 2),)),
    Variant(axis="depth", name="depth 8", changes=(("depth", 8),)),
    Variant(axis="interface depth", name="interface 0", changes=(("interface_depth", 0),)),
    Variant(axis="interface depth", name="interface 4", changes=(("interface_depth", 4),)),
    Variant(axis="feed-forward", name="8 experts, 3 active", changes=(("feedforward", FeedForward.MOE.value),)),
    Variant(axis="width", name="width 16", changes=(("width", 16), ("heads", 1), ("hidden", 32))),
    Variant(axis="width", name="width 64", changes=(("width", 64), ("heads", 4), ("hidden", 128))),
)

EAGER = TrainConfig(compile=False)


def _demo() -> BackbonesConfig:
    return BackbonesConfig(
        preset="demo",
        base=BASE,
        variants=(GRID[0], GRID[1], GRID[5]),
        budgets=(2e9,),
        equal_steps=False,
        seeds=(0,),
        buckets=BucketConfig(resolutions=(16,), tokens_per_step=512),
        train=EAGER,
        validation_tokens=1024,
    )


def _cpu() -> BackbonesConfig:
    return BackbonesConfig(
        preset="cpu",
        base=BASE,
        variants=GRID,
        budgets=(6e9, 1.8e10),
        seeds=(0, 1),
        buckets=BucketConfig(tokens_per_step=1024),
        train=EAGER,
        validation_tokens=2048,
    )


def _cpu_long() -> BackbonesConfig:
    return BackbonesConfig(
        preset="cpu-long",
        base=BASE,
        variants=GRID,
        budgets=(1e10, 3e10, 9e10),
        rates=(3e-3, 6e-3, 1.2e-2),
        buckets=BucketConfig(tokens_per_step=1024),
        train=EAGER,
        validation_tokens=2048,
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
        budgets=(1e15, 3e15, 1e16),
        rates=(5e-4, 1e-3, 2e-3),
        buckets=BucketConfig(resolutions=(16, 32, 64), tokens_per_step=65536),
        device="cuda",
    )


PRESETS = {"demo": _demo, "cpu": _cpu, "cpu-long": _cpu_long, "gpu": _gpu}


def preset(name: str) -> BackbonesConfig:
    """Return a preset; raise `PresetError` for a name nobody defined."""
    if name not in PRESETS:
        raise PresetError(name, tuple(PRESETS))
    return PRESETS[name]()
