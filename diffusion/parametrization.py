"""One object between x0, epsilon and v, and the noising that ties them together.

Legend: B images, C channels, H and W pixels. Every conversion broadcasts logsnr_B over the other dimensions.

With alpha^2 + sigma^2 = 1: z = alpha x0 + sigma eps and v = alpha eps - sigma x0 (Salimans & Ho, arXiv 2202.00512,
section 4 and appendix D), hence x0 = alpha z - sigma v and eps = sigma z + alpha v. For one and the same estimate
MSE_x0 = sigma^2 MSE_v, MSE_eps = alpha^2 MSE_v and MSE_v = MSE_x0 + MSE_eps: the three losses differ by weights only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from diffusion.schedules import alpha_sigma


class Target(StrEnum):
    """A quantity that a network may say, or in which its error may be measured."""

    X0 = "x0"
    EPSILON = "epsilon"
    V = "v"


class Mode(StrEnum):
    """How the network's raw output becomes a prediction, and how the error becomes a loss.

    NAIVE: the raw output is the prediction. FACTORIZED: raw output times a learned scale. FACTORIZED_NLL: the same, and
    the squared error is divided by a learned variance (a Gaussian likelihood; Karras et al., arXiv 2312.02696, eq. 21).
    """

    NAIVE = "naive"
    FACTORIZED = "factorized"
    FACTORIZED_NLL = "factorized+nll"


def _coefficients(logsnr_B: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    alpha_B, sigma_B = alpha_sigma(logsnr_B)
    shape = (-1, *(1,) * (like.dim() - 1))
    return alpha_B.view(shape), sigma_B.view(shape)


def diffuse(x0_BCHW: Tensor, epsilon_BCHW: Tensor, logsnr_B: Tensor) -> Tensor:
    """Return the noisy image z_BCHW = alpha x0 + sigma eps."""
    alpha, sigma = _coefficients(logsnr_B, x0_BCHW)
    return alpha * x0_BCHW + sigma * epsilon_BCHW


@dataclass(frozen=True, kw_only=True, slots=True)
class Parametrization:
    """Conversions for a network that says `target`."""

    target: Target = Target.V

    def of(self, x0_BCHW: Tensor, epsilon_BCHW: Tensor, logsnr_B: Tensor) -> Tensor:
        """Return the training target for known image and noise."""
        if self.target is Target.X0:
            return x0_BCHW
        if self.target is Target.EPSILON:
            return epsilon_BCHW
        alpha, sigma = _coefficients(logsnr_B, x0_BCHW)
        return alpha * epsilon_BCHW - sigma * x0_BCHW

    def x0(self, z_BCHW: Tensor, prediction_BCHW: Tensor, logsnr_B: Tensor) -> Tensor:
        """Return the image that a prediction at z implies. From epsilon it is divided by alpha: noisy at low SNR."""
        alpha, sigma = _coefficients(logsnr_B, z_BCHW)
        if self.target is Target.X0:
            return prediction_BCHW
        if self.target is Target.EPSILON:
            return (z_BCHW - sigma * prediction_BCHW) / alpha
        return alpha * z_BCHW - sigma * prediction_BCHW

    def epsilon(self, z_BCHW: Tensor, prediction_BCHW: Tensor, logsnr_B: Tensor) -> Tensor:
        """Return the noise that a prediction at z implies. From x0 it is divided by sigma: noisy at high SNR."""
        alpha, sigma = _coefficients(logsnr_B, z_BCHW)
        if self.target is Target.X0:
            return (z_BCHW - alpha * prediction_BCHW) / sigma
        if self.target is Target.EPSILON:
            return prediction_BCHW
        return sigma * z_BCHW + alpha * prediction_BCHW

    def v(self, z_BCHW: Tensor, prediction_BCHW: Tensor, logsnr_B: Tensor) -> Tensor:
        """Return the velocity alpha eps - sigma x0 that a prediction at z implies."""
        if self.target is Target.V:
            return prediction_BCHW
        alpha, sigma = _coefficients(logsnr_B, z_BCHW)
        if self.target is Target.X0:
            return (alpha * z_BCHW - prediction_BCHW) / sigma
        return (prediction_BCHW - sigma * z_BCHW) / alpha

    def x0_weight(self, logsnr_B: Tensor) -> Tensor:
        """Return w_B such that MSE_x0 = w MSE_target: 1, 1 / SNR or sigma^2."""
        if self.target is Target.X0:
            return logsnr_B.new_ones(logsnr_B.shape)
        if self.target is Target.EPSILON:
            return (-logsnr_B).exp()
        return (-logsnr_B).sigmoid()
