"""The two ends of the backbone: pixels to tokens, noise level to features, tokens to prediction.

Legend: B images, C colour channels, H and W pixels, N = H W / stride^2 tokens, D width, F Fourier features.
"""

# ruff: noqa: N815 (fields that are tensors carry shape suffixes)

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffusion.model import Prediction
from diffusion.parametrization import Mode

STRIDE = 2
WINDOW = 4
"""Each token sees a 4 x 4 window at stride 2, so that neighbours share half of what they see."""


class FourierFeatures(nn.Module):
    """sin and cos of logSNR at geometrically spaced frequencies (Tancik et al., arXiv 2006.10739), not learned.

    The slowest turns a quarter over logSNR 20 to -20, the fastest resolves about a quarter of a unit.
    """

    frequency_F: Tensor

    def __init__(self, *, features: int) -> None:
        super().__init__()
        half = features // 2
        slowest, fastest = math.pi / 80, math.pi
        exponent = torch.linspace(0, 1, half, dtype=torch.float64)
        frequency_F = (slowest * (fastest / slowest) ** exponent).float()
        self.register_buffer("frequency_F", frequency_F, persistent=False)

    def forward(self, logsnr_B: Tensor) -> Tensor:
        """Return features_BF, each in [-1, 1]."""
        angle_BF = logsnr_B[:, None].float() * self.frequency_F
        return torch.cat((angle_BF.sin(), angle_BF.cos()), dim=-1)


class PatchEmbedding(nn.Module):
    """Overlapping 4 x 4 windows at stride 2 with a reflected border of one pixel."""

    def __init__(self, *, channels: int, width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, width, WINDOW, stride=STRIDE, bias=False)

    def forward(self, z_BCHW: Tensor) -> Tensor:
        """Return tokens x_BND in row-major order."""
        margin = (WINDOW - STRIDE) // 2
        padded = functional.pad(z_BCHW, (margin,) * 4, mode="reflect")
        x_BDHW: Tensor = self.project(padded)
        return x_BDHW.flatten(2).transpose(1, 2)


class InterfaceBlock(nn.Module):
    """A residual two-layer perceptron on single tokens, between pixels and attention."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(2 * width, width, bias=False)
        # Starts as the identity, so that depth at the interface can be added without changing the rest.
        nn.init.zeros_(self.out.weight)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Return x + W_out silu(W_in norm(x)), same shape."""
        normed_BND = functional.rms_norm(x_BND, x_BND.shape[-1:])
        update_BND: Tensor = self.out(functional.silu(self.into(normed_BND)))
        return x_BND + update_BND


class PixelHead(nn.Module):
    """Tokens to pixels: each token writes its own 2 x 2 pixels. Starts at zero (Peebles & Xie, arXiv 2212.09748)."""

    def __init__(self, *, channels: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, channels * STRIDE**2, bias=False)
        nn.init.zeros_(self.project.weight)

    def forward(self, x_BND: Tensor, rows: int, columns: int) -> Tensor:
        """Return the raw output raw_BCHW for a grid of rows x columns tokens."""
        patch_BND: Tensor = self.project(functional.rms_norm(x_BND, x_BND.shape[-1:]))
        patch_BDHW = patch_BND.transpose(1, 2).reshape(len(x_BND), -1, rows, columns)
        return functional.pixel_shuffle(patch_BDHW, STRIDE)


class Scales(NamedTuple):
    """What the factorized head adds to a raw output."""

    scale_B: Tensor
    logvar_B: Tensor | None


class FactorizedHead(nn.Module):
    """The learned scale g(logSNR) sqrt(sigmoid(-l)) of a raw output, and a learned log variance of its error.

    g is the exponential of a linear map of Fourier features that starts at zero, so g starts at 1. l (lambda) is read
    from the image's mean token; it starts at `LAMBDA_START`, where its factor is 0.99. The log variance, only for a
    likelihood, is one number per noise level that starts at 0 (Karras et al., EDM2, arXiv 2312.02696, eq. 21).
    """

    LAMBDA_START = -4.0

    def __init__(self, *, width: int, features: int, likelihood: bool) -> None:
        """Take the width of tokens and the number of Fourier features."""
        super().__init__()
        self.log_g = nn.Linear(features, 1)
        self.lambda_ = nn.Linear(width, 1)
        self.logvar = nn.Linear(features, 1) if likelihood else None
        for layer in (self.log_g, self.lambda_, self.logvar):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
        nn.init.constant_(self.lambda_.bias, self.LAMBDA_START)

    @classmethod
    def of(cls, mode: Mode, *, width: int, features: int) -> FactorizedHead | None:
        """Return the head of a mode; None where the raw output is the prediction."""
        if mode is Mode.NAIVE:
            return None
        return cls(width=width, features=features, likelihood=mode is Mode.FACTORIZED_NLL)

    def forward(self, x_BND: Tensor, fourier_BF: Tensor) -> Scales:
        """Return the scale (positive) and, for a likelihood, the log variance, one number an image."""
        pooled_BD = functional.rms_norm(x_BND, x_BND.shape[-1:]).mean(dim=1)
        lambda_B = self.lambda_(pooled_BD).squeeze(-1)
        g_B = self.log_g(fourier_BF).squeeze(-1).exp()
        logvar_B = None if self.logvar is None else self.logvar(fourier_BF).squeeze(-1)
        return Scales(g_B * torch.sigmoid(-lambda_B).sqrt(), logvar_B)

    def predict(self, raw_BCHW: Tensor, x_BND: Tensor, fourier_BF: Tensor) -> Prediction:
        """Return the raw output under its scale, with the log variance."""
        scale_B, logvar_B = self(x_BND, fourier_BF)
        return Prediction(raw_BCHW * scale_B[:, None, None, None], logvar_B)
