"""Floating point operations of a backbone, counted by hand: what is needed, and what a dense kernel computes.

Legend: N tokens, D width, M hidden channels, W keys seen by a token.

A multiplication with its addition counts as two operations, as in torch's `FlopCounterMode`. Effective operations count
local attention at the keys a token really sees and only the active experts; dense ones count what the masked and
all-experts kernels compute, and are what `FlopCounterMode` reports. Pointwise work and normalisation are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffusion.attention import AttentionBackend
from diffusion.backbone import BackboneConfig, FeedForward
from diffusion.data import CHANNELS
from diffusion.embedding import STRIDE, WINDOW
from diffusion.model import Backbone
from diffusion.parametrization import Mode
from diffusion.spans import PLACE_FEATURES, local_radius


@dataclass(frozen=True, kw_only=True, slots=True)
class Flops:
    """Operations of one forward pass on one image."""

    effective: float
    dense: float

    @property
    def training(self) -> float:
        """Effective operations of forward and backward: three times the forward (Kaplan et al., arXiv 2001.08361)."""
        return 3 * self.effective


def local_pairs(rows: int, columns: int, radius: int) -> int:
    """Return the number of (query, key) pairs within a square window clipped at the border."""

    def along(side: int) -> int:
        return sum(min(i + radius, side - 1) - max(i - radius, 0) + 1 for i in range(side))

    return along(rows) * along(columns)


def forward_flops(config: BackboneConfig, resolution: int) -> Flops:
    """Return the operations of one forward pass on one image of `resolution` pixels a side."""
    side = resolution // STRIDE
    tokens, width = side * side, config.width
    channels = width // config.heads
    embed = 2 * tokens * width * CHANNELS * WINDOW**2
    head = 2 * tokens * width * CHANNELS * STRIDE**2
    place = 2 * tokens * PLACE_FEATURES * width if config.places else 0
    interface = 2 * config.interface_depth * (2 * tokens * width * 2 * width * 2)
    noise = 2 * config.fourier_features * width + (2 * width * width if config.modulation else 0)
    # Two matrix-vector products a reflection and head for the basis itself.
    basis = config.heads * config.reflections * 4 * channels**2
    shared = float(embed + place + head + interface + noise + basis)
    if config.mode is not Mode.NAIVE:
        heads = 2 if config.mode is Mode.FACTORIZED_NLL else 1
        shared += 2 * width + 2 * heads * config.fourier_features
    effective = dense = shared
    for layer in range(config.depth):
        projections = 2 * tokens * 5 * width * width + 2 * 2 * width * width * channels
        modulation = 2 * width * 4 * width if config.modulation else 0
        pairs = tokens * tokens
        seen = (
            pairs if config.is_global(layer) else local_pairs(side, side, local_radius(tokens, config.radius_per_log2))
        )
        effective += projections + modulation + 4 * seen * width
        dense += projections + modulation + 4 * pairs * width
        if config.feedforward is FeedForward.MOE:
            hidden = max(1, config.hidden // config.active_experts)
            expert = 2 * tokens * 3 * width * hidden
            router = 2 * tokens * width * config.experts
            effective += router + config.active_experts * expert
            dense += router + config.experts * expert
        else:
            effective += 2 * tokens * 3 * width * config.hidden
            dense += 2 * tokens * 3 * width * config.hidden
    return Flops(effective=effective, dense=dense)


def counted_flops(backbone: Backbone, resolution: int, device: str) -> int:
    """Return what torch's counter says of one forward pass on one image.

    It knows one attention kernel for CPUs and none of flex_attention's, which a CUDA device would be given.
    """
    image = torch.zeros(1, CHANNELS, resolution, resolution, device=device)
    where = backbone.layout(resolution, device=device, backend=AttentionBackend.SDPA)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        backbone(image, image.new_zeros(1), where)
    return int(counter.get_total_flops())
