"""What the lab asks of a model: a `Backbone` says something about noisy images, and names its parts.

Legend: B batch, C colour channels, H and W pixels, L layers, N tokens, E experts.

Trainer, objective, samplers and benches know nothing else of a model. `backbone.HybridDiT` and
`equal_tokens.EqualTokens` are two; `docs/lab.md` writes a third in a few lines.
"""

# ruff: noqa: N815 (fields that are tensors carry shape suffixes)

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from diffusion.attention import AttentionBackend
from diffusion.spans import Layout

ParameterGroup = Literal["householder", "interface", "matrices", "backbone"]
"""Parts that are trained each in its own way: rotary bases; both ends; hidden matrices, which Muon may train; the
rest."""


class Prediction(NamedTuple):
    """What a backbone says about noisy images."""

    target_BCHW: Tensor  # in the parametrization the backbone is trained with
    logvar_B: Tensor | None = None  # of the error, in mode factorized+nll
    z_loss: Tensor | None = None  # mean over layers, where there are routers


class Backbone(nn.Module, ABC):
    """A network from noisy images and their logSNR to a prediction.

    For a compiler's sake its shapes are static per resolution, and all randomness and position data are inputs.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Everything that decides what the weights mean, as text: a checkpoint fits a backbone of the same name."""

    @abstractmethod
    def layout(
        self,
        resolution: int,
        *,
        device: torch.device | str = "cpu",
        backend: AttentionBackend = AttentionBackend.AUTO,
    ) -> Layout:
        """Return what `forward` needs to know about images of this side; raise `ConfigError` for an impossible one."""

    @abstractmethod
    def forward(
        self, z_BCHW: Tensor, logsnr_B: Tensor, where: Layout, router_noise_LBNE: Tensor | None = None
    ) -> Prediction:
        """Predict the target of noisy images."""

    def router_noise_shape(self, batch: int, where: Layout) -> tuple[int, int, int, int] | None:
        """Return (L, B, N, E) of the router noise to pass in while training; None without routers."""
        del batch, where
        return None

    def parameter_groups(self) -> dict[ParameterGroup, list[nn.Parameter]]:
        """Return every parameter once, under its group; by default all are the backbone's own."""
        return {"backbone": list(self.parameters())}

    def inputs(self) -> list[Tensor]:
        """Return the matrices whose inputs stay as many when the model is made wider; by default there are none."""
        return []
