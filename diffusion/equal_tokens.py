"""EqualTokens: a transformer with the same number of tokens at every resolution, and one trunk for all.

Legend: B batch, C colour channels, H and W pixels, N tokens, D width, K channels per head, F Fourier features.

A board is a few numbers at any resolution, so its tokens need not be more at 64 px than at 16. Each resolution has its
own two ends, which cut the image into the same grid of patches; between them a step costs the same everywhere, and what
is learned from small images serves large ones. The trunk sees the noise level of the unshifted schedule: to it the same
difficulty is the same number at every resolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffusion.attention import AttentionBackend, Pattern, attend
from diffusion.data import CHANNELS
from diffusion.embedding import FactorizedHead, FourierFeatures
from diffusion.errors import ConfigError
from diffusion.feedforward import SwiGLU
from diffusion.model import Backbone, ParameterGroup, Prediction
from diffusion.parametrization import Mode
from diffusion.spans import PLACE_FEATURES, Layout, image, layout


@dataclass(frozen=True, kw_only=True, slots=True)
class EqualTokensConfig:
    """The size of an equal-token model, and the resolutions that it is made for."""

    resolutions: tuple[int, ...] = (16, 32, 64)
    side: int = 8
    """Tokens along one side, at every resolution."""
    width: int = 64
    depth: int = 4
    heads: int = 4
    hidden: int = 128
    fourier_features: int = 32
    base_resolution: int = 16
    """The resolution whose noise levels the trunk sees unchanged; that of the schedule's shift."""
    mode: Mode = Mode.NAIVE

    def __post_init__(self) -> None:
        for name in ("side", "width", "depth", "heads", "hidden", "base_resolution"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} must be divisible by {self.heads} heads")
        if self.fourier_features < 4 or self.fourier_features % 2:
            raise ConfigError(f"fourier_features must be even and at least 4, got {self.fourier_features}")
        if not self.resolutions or any(r % self.side or r < 2 * self.side for r in self.resolutions):
            raise ConfigError(f"resolutions must be multiples of {self.side} from {2 * self.side}: {self.resolutions}")
        if any((r // self.side) % 2 for r in self.resolutions):
            raise ConfigError(f"a token must be an even number of pixels wide, got {self.resolutions} / {self.side}")


class _Block(nn.Module):
    """Attention of all to all and a feed-forward, each with scale, shift and gate by the noise level."""

    def __init__(self, config: EqualTokensConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.feedforward = SwiGLU(width=width, hidden=config.hidden)
        self.modulation = nn.Linear(width, 6 * width)
        # With normalised queries and keys, logits are bounded by the root of K; a learned scale lifts the bound.
        self.log_scale_H11 = nn.Parameter(torch.zeros(config.heads, 1, 1))
        nn.init.zeros_(self.modulation.weight)
        with torch.no_grad():
            self.modulation.bias.view(6, -1).copy_(torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 1.0])[:, None])

    def forward(self, x_BND: Tensor, noise_B1D: Tensor) -> Tensor:
        """Return the tokens after both branches."""
        width = x_BND.shape[-1:]
        scale_a, shift_a, gate_a, scale_f, shift_f, gate_f = self.modulation(noise_B1D).chunk(6, dim=-1)
        h_BND = functional.rms_norm(x_BND, width) * (1 + scale_a) + shift_a
        x_BND = x_BND + gate_a * self._attention(h_BND)
        h_BND = functional.rms_norm(x_BND, width) * (1 + scale_f) + shift_f
        y_BND, _ = self.feedforward(h_BND)
        updated_BND: Tensor = x_BND + gate_f * y_BND
        return updated_BND

    def _attention(self, h_BND: Tensor) -> Tensor:
        batch, tokens, width = h_BND.shape
        parts = self.query_key_value(h_BND).view(batch, tokens, 3, self.heads, width // self.heads)
        query_BHNK, key_BHNK, value_BHNK = parts.permute(2, 0, 3, 1, 4).unbind(0)
        channels = query_BHNK.shape[-1:]
        query_BHNK = functional.rms_norm(query_BHNK, channels) * (5 * self.log_scale_H11).exp()
        key_BHNK = functional.rms_norm(key_BHNK, channels)
        mixed_BHNK = attend(query_BHNK, key_BHNK, value_BHNK, Pattern())
        y_BND: Tensor = self.out(mixed_BHNK.transpose(1, 2).flatten(2))
        return y_BND


class _Ends(nn.Module):
    """What one resolution has of its own: pixels to tokens, tokens to pixels, and a vector that names it."""

    def __init__(self, config: EqualTokensConfig, resolution: int) -> None:
        super().__init__()
        self.stride = resolution // config.side
        # Windows overlap by half, as in `embedding`.
        self.embed = nn.Conv2d(CHANNELS, config.width, 2 * self.stride, stride=self.stride, bias=False)
        self.vector_D = nn.Parameter(torch.zeros(config.width))
        self.head = SwiGLU(width=config.width, hidden=2 * config.width)
        self.head.out = nn.Linear(2 * config.width, CHANNELS * self.stride**2, bias=False)
        nn.init.zeros_(self.head.out.weight)

    def tokens(self, z_BCHW: Tensor) -> Tensor:
        """Return the tokens x_BND of an image, in row-major order."""
        padded = functional.pad(z_BCHW, (self.stride // 2,) * 4, mode="reflect")
        x_BDHW: Tensor = self.embed(padded)
        return x_BDHW.flatten(2).transpose(1, 2)

    def pixels(self, x_BND: Tensor, side: int) -> Tensor:
        """Return the raw output raw_BCHW."""
        patch_BND, _ = self.head(functional.rms_norm(x_BND, x_BND.shape[-1:]))
        patch_BDHW = patch_BND.transpose(1, 2).reshape(len(x_BND), -1, side, side)
        return functional.pixel_shuffle(patch_BDHW, self.stride)


class EqualTokens(Backbone):
    """Noisy images at any of a few resolutions to a prediction, through one trunk of `side` x `side` tokens."""

    def __init__(self, config: EqualTokensConfig) -> None:
        super().__init__()
        self.config = config
        self.fourier = FourierFeatures(features=config.fourier_features)
        self.noise_level = nn.Sequential(
            nn.Linear(config.fourier_features, config.width),
            nn.SiLU(),
            nn.Linear(config.width, config.width),
            nn.SiLU(),
        )
        self.place = nn.Linear(PLACE_FEATURES, config.width, bias=False)
        self.ends = nn.ModuleDict({str(r): _Ends(config, r) for r in config.resolutions})
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.factors = FactorizedHead.of(config.mode, width=config.width, features=config.fourier_features)

    @property
    def name(self) -> str:
        """The configuration, as text."""
        return repr(self.config)

    def layout(
        self,
        resolution: int,
        *,
        device: torch.device | str = "cpu",
        backend: AttentionBackend = AttentionBackend.AUTO,
    ) -> Layout:
        """Return the layout of the token grid; raise `ConfigError` for a resolution that the model was not made for."""
        if resolution not in self.config.resolutions:
            raise ConfigError(f"this model was made for {self.config.resolutions} px, not for {resolution} px")
        # Only the places are used: everyone sees everyone, whatever the distance.
        return layout(
            (image(self.config.side, self.config.side),),
            axes=("y", "x"),
            pairs=2,
            radius_per_log2=1.0,
            device=device,
            backend=backend,
        )

    def forward(
        self, z_BCHW: Tensor, logsnr_B: Tensor, where: Layout, router_noise_LBNE: Tensor | None = None
    ) -> Prediction:
        """Predict the target; there are no routers, and their noise is not looked at."""
        del router_noise_LBNE
        resolution = z_BCHW.shape[-1]
        ends = cast(_Ends, self.ends[str(resolution)])
        unshifted_B = logsnr_B - 2 * math.log(self.config.base_resolution / resolution)
        fourier_BF = self.fourier(unshifted_B)
        noise_B1D = (self.noise_level(fourier_BF) + ends.vector_D)[:, None]
        x_BND = ends.tokens(z_BCHW) + self.place(where.place_NF) + noise_B1D
        for block in self.blocks:
            x_BND = block(x_BND, noise_B1D)
        target_BCHW = ends.pixels(x_BND, self.config.side)
        return Prediction(target_BCHW) if self.factors is None else self.factors.predict(target_BCHW, x_BND, fourier_BF)

    def inputs(self) -> list[Tensor]:
        """Return the matrices that read pixels, places and noise levels."""
        ends = [cast(_Ends, one).embed.weight for one in self.ends.values()]
        return [*ends, self.place.weight, cast(nn.Linear, self.noise_level[0]).weight]

    def parameter_groups(self) -> dict[ParameterGroup, list[nn.Parameter]]:
        """Return every parameter once; matrices of blocks, and the first of each head, are hidden ones."""
        groups: dict[ParameterGroup, list[nn.Parameter]] = {"interface": [], "matrices": [], "backbone": []}
        for name, parameter in self.named_parameters():
            in_block = name.startswith("blocks.") and "modulation" not in name
            if parameter.dim() == 2 and (in_block or name.endswith("head.into.weight")):
                groups["matrices"].append(parameter)
            else:
                groups["interface" if name.startswith(("ends.", "place.", "factors.")) else "backbone"].append(
                    parameter
                )
        return groups
