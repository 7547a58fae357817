"""Rotary position embedding in N dimensions, in an orthogonal basis that is learned.

Legend: B batch, H heads, N tokens, K channels per head, P = K / 2 rotary pairs, R reflections.

Axis-wise rotary embedding assigns each axis its own channels. A learned orthogonal change of basis before the rotation
lets channels mix axes and keeps the property that only relative positions enter the attention scores (Liu & Zhou,
arXiv 2504.06308; Schenck et al., STRING, arXiv 2502.02562). The basis is a product of Householder reflections, so it
is orthogonal for any parameter values. Queries and keys of all layers use the same basis, one for each head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class HouseholderBasis(nn.Module):
    """A product of R reflections I - 2 v v^T / |v|^2 for each head (Householder 1958)."""

    def __init__(self, *, heads: int, channels: int, reflections: int) -> None:
        super().__init__()
        self.v_HRK = nn.Parameter(torch.randn(heads, reflections, channels))

    def matrix(self) -> Tensor:
        """Return the orthogonal matrices as basis_HKK."""
        # v is drawn from a Gaussian and has no decay, so its length stays far from zero.
        unit_HRK = self.v_HRK * self.v_HRK.square().sum(dim=-1, keepdim=True).rsqrt()
        heads, reflections, channels = unit_HRK.shape
        basis_HKK = torch.eye(channels, device=unit_HRK.device, dtype=unit_HRK.dtype).expand(heads, -1, -1)
        for r in range(reflections):
            v_HK1 = unit_HRK[:, r, :, None]
            basis_HKK = basis_HKK - 2 * (basis_HKK @ v_HK1) @ v_HK1.mT
        return basis_HKK


def rotate(x_BHNK: Tensor, cos_NP: Tensor, sin_NP: Tensor) -> Tensor:
    """Turn pair (p, p + P) of each token by its angle (Su et al., arXiv 2104.09864, eq. 34). Same shape and dtype."""
    first_BHNP, second_BHNP = x_BHNK.float().chunk(2, dim=-1)
    turned = (
        first_BHNP * cos_NP - second_BHNP * sin_NP,
        second_BHNP * cos_NP + first_BHNP * sin_NP,
    )
    return torch.cat(turned, dim=-1).to(x_BHNK.dtype)
