"""Rotated two-colour checkerboards: images whose law is known exactly, at any resolution.

Legend: B images, C = 3 colour channels (RGB in [-1, 1]), H and W pixels, K boards given by their rotation.

A board is one angle and two colours, so a perfect generator is known, every corruption can be named and measured, and
the best possible denoising loss is a one-dimensional integral (`optimal.py`). Nothing here needs a supervising model.
"""

# ruff: noqa: N815 (fields that are tensors carry shape suffixes)

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from diffusion.errors import ConfigError
from diffusion.random_streams import stream

CHANNELS = 3


class ImageSource(Protocol):
    """A law over images. Draws are deterministic per (seed, step) and equal on every device."""

    @property
    def name(self) -> str:
        """A short text that changes whenever the law changes; part of every cache key."""
        ...

    def draw(self, count: int, resolution: int, *, seed: int, step: int, device: torch.device | str = "cpu") -> Tensor:
        """Return x_BCHW in [-1, 1], float32."""
        ...


class BoardParameters(NamedTuple):
    """What distinguishes one board from another."""

    theta_B: Tensor  # radians, anticlockwise
    colour_B2C: Tensor  # RGB in [-1, 1] of the even and the odd tiles


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkerboards:
    """Two uniformly drawn colours on a board rotated about the image's centre by a uniform angle.

    The tiles scale with the image: there are `tiles` of them across at every resolution. With `supersampling` 1 (the
    lab's classic law) a pixel has the colour of its centre and edges are hard; with s > 1 it is the mean of s x s
    points, which softens the edges.
    """

    tiles: int = 4
    supersampling: int = 1

    def __post_init__(self) -> None:
        if self.tiles < 1:
            raise ConfigError(f"a board needs at least one tile across, got {self.tiles}")
        if self.supersampling < 1:
            raise ConfigError(f"supersampling must be at least 1, got {self.supersampling}")

    @property
    def name(self) -> str:
        """Name of this law, for cache keys and file names."""
        return f"boards-{self.tiles}t-{self.supersampling}s"

    def parameters(self, count: int, *, seed: int, step: int) -> BoardParameters:
        """Draw the angles (uniform in [0, 2 pi)) and colours (uniform in [-1, 1]^3) of `count` boards."""
        generator = stream(seed, "boards", step)
        theta_B = torch.rand(count, generator=generator) * (2 * math.pi)
        colour_B2C = torch.rand(count, 2, CHANNELS, generator=generator) * 2 - 1
        return BoardParameters(theta_B, colour_B2C)

    def coverage(self, theta_K: Tensor, resolution: int) -> Tensor:
        """Return how much of each pixel the odd tiles cover, as share_KHW in [0, 1]; 0 or 1 for hard edges."""
        side = resolution * self.supersampling
        position = ((torch.arange(side, device=theta_K.device) + 0.5) / side - 0.5) * self.tiles
        y_HW, x_HW = torch.meshgrid(position, position, indexing="ij")
        cos_K, sin_K = theta_K.cos()[:, None, None], theta_K.sin()[:, None, None]
        column_KHW = torch.floor(cos_K * x_HW + sin_K * y_HW)
        row_KHW = torch.floor(cos_K * y_HW - sin_K * x_HW)
        odd_KHW = (column_KHW + row_KHW).remainder(2)
        if self.supersampling == 1:
            return odd_KHW
        return torch.nn.functional.avg_pool2d(odd_KHW[:, None], self.supersampling)[:, 0]

    def render(self, parameters: BoardParameters, resolution: int) -> Tensor:
        """Return x_BCHW in [-1, 1] for known parameters, on their device."""
        share_B1HW = self.coverage(parameters.theta_B, resolution)[:, None]
        even_BC11, odd_BC11 = parameters.colour_B2C[..., None, None].unbind(1)
        return even_BC11 + share_B1HW * (odd_BC11 - even_BC11)

    def draw(self, count: int, resolution: int, *, seed: int, step: int, device: torch.device | str = "cpu") -> Tensor:
        """Return x_BCHW in [-1, 1]; one (seed, step) is the same boards at every resolution.

        Raises `ConfigError` for a count or resolution below one. Rendering happens on the CPU, so that the pixels on
        an edge do not depend on a device's rounding of the rotation.
        """
        if count < 1 or resolution < 1:
            raise ConfigError(f"cannot draw {count} images of {resolution} px; both numbers must be at least 1")
        return self.render(self.parameters(count, seed=seed, step=step), resolution).to(device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Composite:
    """A mixture: each image comes from source i with probability ratio i / sum of ratios."""

    sources: tuple[ImageSource, ...]
    ratios: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.sources or len(self.sources) != len(self.ratios):
            raise ConfigError(f"{len(self.sources)} sources cannot be mixed by {len(self.ratios)} ratios")
        if min(self.ratios) < 0 or sum(self.ratios) <= 0:
            raise ConfigError(f"ratios must not be negative and must have a positive sum, got {self.ratios}")

    @property
    def name(self) -> str:
        """Name of this mixture, for cache keys and file names."""
        return "+".join(f"{ratio:g}x{source.name}" for source, ratio in zip(self.sources, self.ratios, strict=True))

    def choices(self, count: int, *, seed: int, step: int) -> Tensor:
        """Return which source image i of a draw comes from, as index_B."""
        weights = torch.tensor(self.ratios, dtype=torch.float64)
        return torch.multinomial(weights, count, replacement=True, generator=stream(seed, "mixture", step))

    def draw(self, count: int, resolution: int, *, seed: int, step: int, device: torch.device | str = "cpu") -> Tensor:
        """Return x_BCHW in [-1, 1], in random order of sources. Every source draws all images; the mixture picks."""
        index_B = self.choices(count, seed=seed, step=step)
        drawn = [source.draw(count, resolution, seed=seed, step=step) for source in self.sources]
        return torch.stack(drawn)[index_B, torch.arange(count)].to(device)
