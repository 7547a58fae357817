"""The best possible denoiser of hard-edged boards, in closed form but for one angle.

Legend: B images, C colour channels, P pixels, K rotations on a grid, R = 2 regions of a board.

Given the rotation, a board's two colours are independent and uniform in [-1, 1], and the noisy pixels of one region are
Gaussian around its colour: the posterior of each channel is a truncated normal. The rotation is integrated on a grid
over a quarter turn (a further quarter turn only swaps the colours, which are exchangeable). This gives E[x0 | z], and
with it the loss that no model can go below, for an infinite data set; estimates from a finite set of images do not
(they memorise), compare arXiv 2506.13763. All in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from diffusion.data import Checkerboards
from diffusion.errors import ConfigError
from diffusion.schedules import alpha_sigma


def _truncated_normal(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Return (log mass in [-1, 1], mean given that) of normal laws, element by element."""
    low, high = (-1 - mean) / deviation, (1 - mean) / deviation
    # Mirror to the lower tail, where differences of log_ndtr keep their digits.
    flip = low + high > 0
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    log_mass = log_high + torch.log(-torch.expm1((log_low - log_high).clamp(max=-1e-300)))
    log_density = -0.5 * math.log(2 * math.pi)
    ratio = torch.exp(log_density - 0.5 * low**2 - log_mass) - torch.exp(log_density - 0.5 * high**2 - log_mass)
    inside = mean + torch.where(flip, -deviation, deviation) * ratio
    return log_mass, inside.clamp(-1, 1)


@lru_cache(maxsize=4)
def _distinct_boards(boards: Checkerboards, angles: int, resolution: int) -> tuple[Tensor, Tensor]:
    """Return (odd_KP, shares_K): where the odd tiles are, each board once, and how many of the angles paint it.

    Distinct rotations often paint the same pixels. A sampler asks for the same boards at every step.
    """
    theta_K = (torch.arange(angles, dtype=torch.float64) + 0.5) * (math.pi / 2 / angles)
    odd_KP = boards.coverage(theta_K, resolution).flatten(1)
    odd_KP, shares_K = torch.unique(odd_KP, dim=0, return_counts=True)
    return odd_KP, shares_K


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimalDenoiser:
    """E[x0 | z] for `Checkerboards` with hard edges."""

    boards: Checkerboards
    angles: int = 1024
    """Grid points over a quarter turn. At 64 px and 1024 points neighbouring boards differ in about four pixels."""

    def __post_init__(self) -> None:
        if self.boards.supersampling != 1:
            raise ConfigError("the optimal denoiser is known in closed form for hard edges only")
        if self.angles < 2:
            raise ConfigError(f"at least two angles are needed, got {self.angles}")

    def __call__(self, z_BCHW: Tensor, logsnr_B: Tensor) -> Tensor:
        """Return the posterior mean x0_BCHW in float64, on the CPU."""
        z_BCP = z_BCHW.detach().cpu().double().flatten(2)
        alpha_B, sigma_B = alpha_sigma(logsnr_B.detach().cpu().double())
        odd_KP, shares_K = _distinct_boards(self.boards, self.angles, z_BCHW.shape[-1])
        log_weight_BK = shares_K.double().log().expand(len(z_BCP), -1)
        colours = []
        for region_KP in (odd_KP, 1 - odd_KP):
            pixels_K = region_KP.sum(dim=1)
            mean_BCK = (z_BCP @ region_KP.T) / pixels_K
            deviation_B1K = sigma_B[:, None, None] / pixels_K.sqrt()
            log_mass_BCK, scaled_BCK = _truncated_normal(
                mean_BCK / alpha_B[:, None, None], deviation_B1K / alpha_B[:, None, None]
            )
            # The region's sum of squares about its mean is what remains of the common sum of squares.
            evidence_BCK = 0.5 * (mean_BCK / deviation_B1K) ** 2 + log_mass_BCK + deviation_B1K.log()
            log_weight_BK = log_weight_BK + evidence_BCK.sum(dim=1)
            colours.append(scaled_BCK)
        weight_BK = log_weight_BK.softmax(dim=1)
        odd_BCK, even_BCK = (colour_BCK * weight_BK[:, None] for colour_BCK in colours)
        x0_BCP: Tensor = odd_BCK @ odd_KP + even_BCK @ (1 - odd_KP)
        return x0_BCP.view(z_BCHW.shape)
