"""The two feed-forward layers: SwiGLU, and a sigmoid-routed mixture of SwiGLU experts.

Legend: B batch, N tokens, D width, M hidden channels, E experts.

The mixture computes all experts for all tokens and weighs the inactive ones with zero. On the small sizes of this lab
that costs less than gathering, it drops no token, its shapes are static and it has no graph break. `flops.py` counts
the active experts, and says beside it what was really computed.
"""

# ruff: noqa: N815 (fields that are tensors carry shape suffixes)

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class FeedForwardOutput(NamedTuple):
    """A layer's output, and its router's z-loss where there is a router."""

    y_BND: Tensor
    z_loss: Tensor | None = None


class SwiGLU(nn.Module):
    """W_out (silu(W_gate x) * W_in x) (Shazeer, arXiv 2002.05202, eq. 6)."""

    def __init__(self, *, width: int, hidden: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x_BND: Tensor, router_noise_BNE: Tensor | None = None) -> FeedForwardOutput:
        """Return y_BND; the noise is accepted so that both layers are called alike."""
        del router_noise_BNE
        gate_BNM, value_BNM = self.into(x_BND).chunk(2, dim=-1)
        return FeedForwardOutput(self.out(functional.silu(gate_BNM) * value_BNM))


class MixtureOfExperts(nn.Module):
    """Each token goes to the `active` experts of highest sigmoid score, weighted by their normalised scores.

    Routing follows DeepSeek-V3 (arXiv 2412.19437, eqs. 12 to 15) without its balancing bias. Noise added to the logits
    during training explores other experts (Shazeer et al., arXiv 1701.06538, eq. 4, with a fixed scale). The z-loss is
    the mean squared log-sum-exp of the logits (Zoph et al., ST-MoE, arXiv 2202.08906, eq. 5).
    """

    def __init__(self, *, width: int, hidden: int, experts: int, active: int) -> None:
        super().__init__()
        self.active = active
        self.router = nn.Linear(width, experts, bias=False)
        self.into_E2MD = nn.Parameter(torch.empty(experts, 2 * hidden, width))
        self.out_EDM = nn.Parameter(torch.empty(experts, width, hidden))
        # The bounds of nn.Linear, expert by expert, so that a mixture starts like the dense layer it replaces.
        nn.init.uniform_(self.into_E2MD, -1 / math.sqrt(width), 1 / math.sqrt(width))
        nn.init.uniform_(self.out_EDM, -1 / math.sqrt(hidden), 1 / math.sqrt(hidden))

    def route(self, x_BND: Tensor, router_noise_BNE: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return (weight_BNE with `active` positive entries a token that sum to 1, z-loss)."""
        logit_BNE = self.router(x_BND).float()
        z_loss = logit_BNE.logsumexp(dim=-1).square().mean()
        if router_noise_BNE is not None:
            logit_BNE = logit_BNE + router_noise_BNE
        score_BNE = logit_BNE.sigmoid()
        chosen_BNA = score_BNE.topk(self.active, dim=-1).indices
        kept_BNE = score_BNE * torch.zeros_like(score_BNE).scatter(-1, chosen_BNA, 1.0)
        weight_BNE = kept_BNE / kept_BNE.sum(dim=-1, keepdim=True)
        return weight_BNE.to(x_BND.dtype), z_loss

    def forward(self, x_BND: Tensor, router_noise_BNE: Tensor | None = None) -> FeedForwardOutput:
        """Return the weighted sum of the active experts' outputs, y_BND, and the z-loss (a scalar)."""
        weight_BNE, z_loss = self.route(x_BND, router_noise_BNE)
        batch, tokens, width = x_BND.shape
        x_TD = x_BND.reshape(batch * tokens, width)
        hidden_ET2M = torch.matmul(x_TD, self.into_E2MD.mT)
        gate_ETM, value_ETM = hidden_ET2M.chunk(2, dim=-1)
        weight_ET1 = weight_BNE.reshape(batch * tokens, -1).t().unsqueeze(-1)
        # Weighing before the output projection costs M instead of D multiplications a token and expert.
        y_ETD = torch.bmm(functional.silu(gate_ETM) * value_ETM * weight_ET1, self.out_EDM.mT)
        return FeedForwardOutput(y_ETD.sum(dim=0).view(batch, tokens, width), z_loss)
