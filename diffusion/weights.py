"""Where an error is measured, and how much each noise level counts: numbers by which a batch's errors are multiplied.

Legend: B images.

A loss has three parts: what the network says (`Parametrization`), where its error is measured, and the weight of that
error. For one and the same estimate the errors of x0, epsilon and v differ by known factors of logSNR, so the second
part is a factor, too. Both are computed outside of the compiled graph and enter it as data: a loss that changes during
training compiles nothing again.

All levels are those of the unshifted schedule, so that a weight means the same difficulty at every resolution; an error
"in v" at a shifted resolution is what the same error would be in v at the base resolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from diffusion.errors import ConfigError
from diffusion.parametrization import Parametrization, Target


class Weight(Protocol):
    """How much an error in `loss_in` counts at each noise level."""

    def at(self, logsnr_B: Tensor, loss_in: Target) -> Tensor:
        """Return weight_B, positive."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Uniform:
    """Every level counts alike."""

    def at(self, logsnr_B: Tensor, loss_in: Target) -> Tensor:
        """Return ones."""
        del loss_in
        return logsnr_B.new_ones(logsnr_B.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class MinSNR:
    """An error of x0 counts min(SNR, gamma) (Hang et al., arXiv 2303.09556, eq. 8), wherever it is measured."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if self.gamma <= 0:
            raise ConfigError(f"gamma must be positive, got {self.gamma}")

    def at(self, logsnr_B: Tensor, loss_in: Target) -> Tensor:
        """Return min(SNR, gamma), as a weight of errors in `loss_in`."""
        return logsnr_B.exp().clamp(max=self.gamma) * Parametrization(target=loss_in).x0_weight(logsnr_B)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sigmoid:
    """An error of epsilon counts sigmoid(bias - logSNR) (Hoogeboom et al., arXiv 2410.19324), measured anywhere."""

    bias: float = 0.0

    def at(self, logsnr_B: Tensor, loss_in: Target) -> Tensor:
        """Return e^bias sigmoid(logSNR - bias), which is that weight on x0, as a weight of errors in `loss_in`."""
        of_x0_B = math.exp(self.bias) * (logsnr_B - self.bias).sigmoid()
        return of_x0_B * Parametrization(target=loss_in).x0_weight(logsnr_B)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bell:
    """Levels around `centre` count most: a normal curve over logSNR of deviation `width`, never below `least`."""

    centre: float = -2.0
    width: float = 2.0
    least: float = 0.05

    def __post_init__(self) -> None:
        if self.width <= 0 or not 0 < self.least <= 1:
            raise ConfigError(f"a bell needs a positive width and a least weight in (0, 1], got {self}")

    def at(self, logsnr_B: Tensor, loss_in: Target) -> Tensor:
        """Return the bell; it multiplies the error where it is measured."""
        del loss_in
        return (-0.5 * ((logsnr_B - self.centre) / self.width).square()).exp().clamp(min=self.least)


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """In which quantity an error is measured, and its weight."""

    loss_in: Target | None = None
    """None measures it in what the network says."""
    weight: Weight = field(default_factory=Uniform)
    cap: float = 50.0
    """The most that a squared error of what the network says may count. Without it a network that says x0 would have
    its error multiplied by SNR for a loss in epsilon, which is 5e8 at the clean end. JiT (arXiv 2511.13720) bounds the
    same factor by bounding sigma."""

    def __post_init__(self) -> None:
        if self.cap <= 0:
            raise ConfigError(f"cap must be positive, got {self.cap}")

    def factor(self, logsnr_B: Tensor, says: Target) -> Tensor:
        """Return by how much the mean squared error of what the network says counts, as factor_B."""
        loss_in = says if self.loss_in is None else self.loss_in
        to_x0_B = Parametrization(target=says).x0_weight(logsnr_B)
        from_x0_B = Parametrization(target=loss_in).x0_weight(logsnr_B)
        return (self.weight.at(logsnr_B, loss_in) * to_x0_B / from_x0_B).clamp(max=self.cap)


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A loss that holds until a share of all steps is done."""

    until: float
    loss: LossConfig


def check_phases(phases: tuple[Phase, ...]) -> None:
    """Raise `ConfigError` unless the phases follow each other up to the end of the training."""
    ends = [phase.until for phase in phases]
    if not ends or ends != sorted(set(ends)) or ends[0] <= 0 or ends[-1] != 1.0:
        raise ConfigError(f"phases must end at rising shares of the training, the last at 1, got {ends}")


def loss_at(phases: tuple[Phase, ...], step: int, steps: int) -> LossConfig:
    """Return the loss of a step, counted from 0."""
    return next(phase.loss for phase in phases if step < phase.until * steps)
