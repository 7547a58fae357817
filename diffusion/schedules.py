"""Noise schedules: from time t in [0, 1] (0 clean, 1 noise) to logSNR and back.

Legend: B images. logSNR is the natural logarithm of alpha^2 / sigma^2, with alpha^2 + sigma^2 = 1 throughout
("variance preserving", Kingma et al., arXiv 2107.00630, section 3.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffusion.errors import ConfigError


class Schedule(Protocol):
    """A decreasing map between time and logSNR that may depend on the resolution."""

    def logsnr(self, t_B: Tensor, resolution: int) -> Tensor:
        """Return logsnr_B at times t_B in [0, 1] for images of `resolution` pixels a side."""
        ...

    def time(self, logsnr_B: Tensor, resolution: int) -> Tensor:
        """Return the t_B at which `logsnr` gives logsnr_B."""
        ...


def alpha_sigma(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    """Return (alpha, sigma) = (sqrt sigmoid(l), sqrt sigmoid(-l)), element by element."""
    return logsnr.sigmoid().sqrt(), (-logsnr).sigmoid().sqrt()


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearLogSNR:
    """logSNR linear in t, from `start` at t = 0 to `end` at t = 1. The lab's own schedule runs from 20 to -20."""

    start: float = 20.0
    end: float = -20.0

    def __post_init__(self) -> None:
        if not self.start > self.end:
            raise ConfigError(f"logSNR must fall with time, got {self.start} to {self.end}")

    def logsnr(self, t_B: Tensor, resolution: int) -> Tensor:
        """Return start + (end - start) t; the resolution plays no part."""
        del resolution
        return self.start + (self.end - self.start) * t_B

    def time(self, logsnr_B: Tensor, resolution: int) -> Tensor:
        """Invert `logsnr`."""
        del resolution
        return (logsnr_B - self.start) / (self.end - self.start)


@dataclass(frozen=True, kw_only=True, slots=True)
class CosineLogSNR:
    """logSNR = -2 log tan(pi t / 2) (Nichol & Dhariwal, arXiv 2102.09672; in this form Hoogeboom et al., 2301.11093).

    Time is first squeezed so that the ends are exactly `start` and `end` instead of plus and minus infinity.
    """

    start: float = 20.0
    end: float = -20.0

    def __post_init__(self) -> None:
        if not self.start > self.end:
            raise ConfigError(f"logSNR must fall with time, got {self.start} to {self.end}")

    def _ends(self) -> tuple[float, float]:
        return math.atan(math.exp(-0.5 * self.start)), math.atan(math.exp(-0.5 * self.end))

    def logsnr(self, t_B: Tensor, resolution: int) -> Tensor:
        """Return the squeezed cosine schedule; the resolution plays no part."""
        del resolution
        low, high = self._ends()
        # float64 inside: near the ends tan() of a float32 angle loses the last three digits of logSNR.
        angle_B = low + (high - low) * t_B.double()
        return (-2 * torch.log(torch.tan(angle_B))).to(t_B.dtype)

    def time(self, logsnr_B: Tensor, resolution: int) -> Tensor:
        """Invert `logsnr`."""
        del resolution
        low, high = self._ends()
        angle_B = torch.atan(torch.exp(-0.5 * logsnr_B.double()))
        return ((angle_B - low) / (high - low)).to(logsnr_B.dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolutionShifted:
    """Another schedule, moved by 2 log(base_resolution / resolution) (Hoogeboom et al., arXiv 2301.11093, eq. 3).

    Averaging s x s pixels divides the noise variance by s^2, so an image of twice the side needs a logSNR lower by
    2 log 2 to hide as much. This is the "power 2" convention; some codes shift by log(base / resolution).
    """

    inner: Schedule
    base_resolution: int = 16

    def __post_init__(self) -> None:
        if self.base_resolution < 1:
            raise ConfigError(f"base_resolution must be positive, got {self.base_resolution}")

    def shift(self, resolution: int) -> float:
        """Return what is added to the inner logSNR; negative above the base resolution."""
        return 2 * math.log(self.base_resolution / resolution)

    def logsnr(self, t_B: Tensor, resolution: int) -> Tensor:
        """Return the inner logSNR plus the shift of this resolution."""
        return self.inner.logsnr(t_B, resolution) + self.shift(resolution)

    def time(self, logsnr_B: Tensor, resolution: int) -> Tensor:
        """Invert `logsnr`."""
        return self.inner.time(logsnr_B - self.shift(resolution), resolution)


def shift_of(schedule: Schedule, resolution: int) -> float:
    """Return by how much a schedule moves its logSNR at this resolution; 0 for one that knows no resolutions."""
    return schedule.shift(resolution) if isinstance(schedule, ResolutionShifted) else 0.0


def even_logsnr(
    schedule: Schedule, resolution: int, count: int, *, highest: float = 6.0, lowest: float = -10.0
) -> Tensor:
    """Return `count` levels logsnr_T, evenly spaced and rising in noise, moved as the schedule moves its own.

    The defaults hold all levels at which colours and geometry of boards are decided (docs/lab.md).
    """
    if count < 2 or highest <= lowest:
        raise ConfigError(f"two levels or more from high to low are needed, got {count} from {highest} to {lowest}")
    return torch.linspace(highest, lowest, count) + shift_of(schedule, resolution)
