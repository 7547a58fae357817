"""Concurrent resolutions: which shape is trained at which step.

The set of shapes is closed and announced (`BucketSchedule.buckets`), because a compiler wants one static graph per
shape and a cache wants to know them beforehand. Every step costs about the same number of tokens: small images come in
large batches. The schedule is a pure function of (seed, step), so a resumed or a second process agrees with the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import torch

from diffusion.errors import CheckpointMismatchError, ConfigError, ResolutionError
from diffusion.random_streams import stream


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """One static shape: `batch` square images of `resolution` pixels a side, `tokens` tokens each."""

    resolution: int
    batch: int
    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketConfig:
    """Which resolutions are trained together, and how much of each."""

    resolutions: tuple[int, ...] = (16, 32, 64)
    tokens_per_step: int = 4096
    """The budget that fixes each bucket's batch size: floor(budget / tokens of one image), at least 1."""
    visits: tuple[int, ...] | None = None
    """How often each resolution occurs in a round; once each when None."""
    stride: int = 2
    """Pixels per token along one side; the patch embedding's stride."""
    tokens: int | None = None
    """Tokens of one image where a model has equally many at every resolution; (side / stride)^2 when None."""

    def __post_init__(self) -> None:
        if not self.resolutions:
            raise ConfigError("at least one resolution is needed")
        for resolution in self.resolutions:
            # A side of two tokens is the least for which the reflected border of the embedding exists.
            if resolution < 2 * self.stride or resolution % self.stride:
                raise ResolutionError(resolution, self.stride)
        if len(set(self.resolutions)) != len(self.resolutions):
            raise ConfigError(f"each resolution may be named once, got {self.resolutions}")
        if self.tokens_per_step < 1 or (self.tokens is not None and self.tokens < 1):
            raise ConfigError(f"tokens must be positive, got {self.tokens_per_step} a step, {self.tokens} an image")
        if self.visits is not None and (len(self.visits) != len(self.resolutions) or min(self.visits) < 1):
            raise ConfigError(f"visits {self.visits} must name a positive number for each of {self.resolutions}")


class BucketState(TypedDict):
    """What `BucketSchedule.state_dict` saves: the identity of the schedule. Its position is the trainer's step."""

    seed: int
    resolutions: tuple[int, ...]
    batches: tuple[int, ...]
    visits: tuple[int, ...]


class BucketSchedule:
    """(seed, step) -> bucket. Each round is a seeded permutation of all visits, so no bucket starves.

    A bucket with v visits in rounds of r steps is seen v times in every round; the gap between two of its visits is
    below 2r steps.
    """

    def __init__(self, config: BucketConfig, *, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.buckets = tuple(self._bucket(resolution) for resolution in config.resolutions)
        self._visits = config.visits or (1,) * len(self.buckets)
        self._round = tuple(bucket for bucket, n in zip(self.buckets, self._visits, strict=True) for _ in range(n))

    def _bucket(self, resolution: int) -> Bucket:
        tokens = self.config.tokens or (resolution // self.config.stride) ** 2
        return Bucket(resolution=resolution, batch=max(1, self.config.tokens_per_step // tokens), tokens=tokens)

    @property
    def round_length(self) -> int:
        """Steps after which every bucket has been seen."""
        return len(self._round)

    def at(self, step: int) -> Bucket:
        """Return the bucket of a step, counted from 0."""
        number, position = divmod(step, len(self._round))
        order = torch.randperm(len(self._round), generator=stream(self.seed, "buckets", number))
        return self._round[int(order[position])]

    def state_dict(self) -> BucketState:
        """Return what a checkpoint needs to recognise this schedule."""
        return BucketState(
            seed=self.seed,
            resolutions=self.config.resolutions,
            batches=tuple(bucket.batch for bucket in self.buckets),
            visits=self._visits,
        )

    def load_state_dict(self, state: BucketState) -> None:
        """Accept the state of an equal schedule; raise `CheckpointMismatchError` for any other."""
        mine = self.state_dict()
        different = tuple(name for name, value in mine.items() if state.get(name) != value)
        if different:
            raise CheckpointMismatchError("the checkpoint's bucket schedule", different)
