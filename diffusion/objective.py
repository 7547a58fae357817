"""The loss of one batch: a module, so that forward and loss are one graph.

Legend: B batch, C colour channels, H and W pixels, L layers, N tokens, E experts.
"""

# ruff: noqa: N815 (fields that are tensors carry shape suffixes)

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffusion.errors import ConfigError
from diffusion.model import Backbone, Prediction
from diffusion.parametrization import Parametrization, diffuse
from diffusion.spans import Layout


class LossTerms(NamedTuple):
    """What a training step needs and what it reports."""

    loss: Tensor  # scalar, to be minimised
    mse_B: Tensor  # mean squared error of each image in what the network says, unweighted, detached


class DenoisingObjective(nn.Module):
    """Mean squared error of what the network says, or its Gaussian likelihood where the backbone predicts a variance.

    Where that error is measured, and how much each noise level counts, comes in as weight_B (`weights`).

    The likelihood of one image is mse exp(-u) + u (Karras et al., EDM2, arXiv 2312.02696, eq. 21); at its optimum u is
    the logarithm of the expected mse at that noise level, which flattens the loss over logSNR.
    """

    def __init__(self, backbone: Backbone, parametrization: Parametrization, *, z_weight: float = 1e-3) -> None:
        super().__init__()
        if z_weight < 0:
            raise ConfigError(f"z_weight must not be negative, got {z_weight}")
        self.backbone = backbone
        self.parametrization = parametrization
        self.z_weight = z_weight

    def forward(
        self,
        x0_BCHW: Tensor,
        epsilon_BCHW: Tensor,
        logsnr_B: Tensor,
        where: Layout,
        router_noise_LBNE: Tensor | None = None,
        weight_B: Tensor | None = None,
    ) -> LossTerms:
        """Return the loss of predicting the target from x0 noised by epsilon at logsnr_B; None weighs all by 1."""
        z_BCHW = diffuse(x0_BCHW, epsilon_BCHW, logsnr_B)
        wanted_BCHW = self.parametrization.of(x0_BCHW, epsilon_BCHW, logsnr_B)
        said: Prediction = self.backbone(z_BCHW, logsnr_B, where, router_noise_LBNE)
        mse_B = (said.target_BCHW.float() - wanted_BCHW).square().mean(dim=(1, 2, 3))
        loss_B = mse_B
        if said.logvar_B is not None:
            loss_B = mse_B * torch.exp(-said.logvar_B) + said.logvar_B
        if weight_B is not None:
            loss_B = loss_B * weight_B
        loss = loss_B.mean()
        if said.z_loss is not None:
            loss = loss + self.z_weight * said.z_loss
        return LossTerms(loss, mse_B.detach())

    @torch.no_grad()
    def error_map(self, x0_BCHW: Tensor, epsilon_BCHW: Tensor, logsnr_B: Tensor, where: Layout) -> Tensor:
        """Return the squared error of the target per pixel, mean over channels, as error_BHW."""
        z_BCHW = diffuse(x0_BCHW, epsilon_BCHW, logsnr_B)
        wanted_BCHW = self.parametrization.of(x0_BCHW, epsilon_BCHW, logsnr_B)
        said: Prediction = self.backbone(z_BCHW, logsnr_B, where)
        return (said.target_BCHW.float() - wanted_BCHW).square().mean(dim=1)
