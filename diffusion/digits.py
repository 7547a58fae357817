"""Handwritten digits in two colours: a source whose law is not known in closed form.

Legend: B images, C = 3 colour channels (RGB in [-1, 1]), H and W pixels.

The 1797 digits of 8 x 8 pixels that scikit-learn carries (Alpaydin & Kaynak 1998), each turned a little about its
centre and painted as boards are: paper and ink in two uniform colours. So all metrics apply, and no image comes twice;
the least possible loss is unknown.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from diffusion.data import CHANNELS
from diffusion.errors import ConfigError
from diffusion.random_streams import stream


@lru_cache(maxsize=1)
def _ink() -> Tensor:
    """Return how much ink each pixel has, as share_NHW in [0, 1]."""
    try:
        # By name: it is no dependency of the lab, and has no types.
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise ConfigError("the digits are scikit-learn's, which is not installed: pip install scikit-learn") from error
    return torch.from_numpy(datasets.load_digits().images).float() / 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Digits:
    """Digits of two uniformly drawn colours, turned by a uniform angle of at most `tilt` degrees either way."""

    tilt: float = 15.0

    def __post_init__(self) -> None:
        if not 0 <= self.tilt <= 180:
            raise ConfigError(f"digits are turned by 0 to 180 degrees, got {self.tilt}")

    @property
    def name(self) -> str:
        """Name of this law, for cache keys and file names."""
        return f"digits-{self.tilt:g}deg"

    def draw(self, count: int, resolution: int, *, seed: int, step: int, device: torch.device | str = "cpu") -> Tensor:
        """Return x_BCHW in [-1, 1]; one (seed, step) is the same digits at every resolution.

        Raises `ConfigError` for a count or resolution below one, and where scikit-learn is not installed.
        """
        if count < 1 or resolution < 1:
            raise ConfigError(f"cannot draw {count} images of {resolution} px; both numbers must be at least 1")
        ink_NHW = _ink()
        generator = stream(seed, "digits", step)
        index_B = torch.randint(len(ink_NHW), (count,), generator=generator)
        angle_B = (torch.rand(count, generator=generator) * 2 - 1) * math.radians(self.tilt)
        colour_B2C11 = (torch.rand(count, 2, CHANNELS, generator=generator) * 2 - 1)[..., None, None]
        cos_B, sin_B, zero_B = angle_B.cos(), angle_B.sin(), torch.zeros(count)
        turn_B23 = torch.stack((torch.stack((cos_B, -sin_B, zero_B), 1), torch.stack((sin_B, cos_B, zero_B), 1)), 1)
        places_BHW2 = functional.affine_grid(turn_B23, [count, 1, resolution, resolution], align_corners=False)
        share_B1HW = functional.grid_sample(ink_NHW[index_B, None], places_BHW2, align_corners=False).clamp(0, 1)
        paper_BC11, ink_BC11 = colour_B2C11.unbind(1)
        return (paper_BC11 + share_B1HW * (ink_BC11 - paper_BC11)).to(device)
