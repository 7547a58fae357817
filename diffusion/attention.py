"""One `attend()`: flex_attention where it trains, scaled dot-product attention with the dense mask elsewhere.

Legend: B batch, H heads, N tokens, K channels per head.

flex_attention has no compiled backward on CPUs, so there the same `mask_mod` is written out as a dense N x N mask. A
test holds both equal.
"""

# ruff: noqa: N815 (fields that are tensors carry shape suffixes)

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(batch, head, query index, key index) -> may attend; the signature that flex_attention uses."""


class AttentionBackend(StrEnum):
    """Which kernel computes attention; AUTO is FLEX on CUDA devices and SDPA elsewhere."""

    AUTO = "auto"
    FLEX = "flex"
    SDPA = "sdpa"


class Pattern(NamedTuple):
    """Who attends to whom, in the form its backend needs. Both None means everyone to everyone."""

    mask_NN: Tensor | None = None  # bool, True where a query (row) may see a key (column)
    blocks: BlockMask | None = None


def dense_mask(mask_mod: MaskMod, tokens: int, device: torch.device) -> Tensor:
    """Return mask_mod written out as mask_NN (bool)."""
    index_N = torch.arange(tokens, device=device)
    zero = torch.zeros((), dtype=torch.long, device=device)
    return mask_mod(zero, zero, index_N[:, None], index_N[None, :])


def pattern(mask_mod: MaskMod | None, tokens: int, device: torch.device, backend: AttentionBackend) -> Pattern:
    """Return the pattern of a mask_mod for the backend that will use it."""
    if mask_mod is None:
        return Pattern()
    if backend is AttentionBackend.FLEX or (backend is AttentionBackend.AUTO and device.type == "cuda"):
        # Imported here: a CPU trainer never needs it.
        from torch.nn.attention.flex_attention import create_block_mask

        # The device is always named: the default is cuda, even on a machine without one.
        blocks = create_block_mask(mask_mod, None, None, tokens, tokens, device=device)
        return Pattern(blocks=blocks)
    return Pattern(mask_NN=dense_mask(mask_mod, tokens, device))


def attend(query_BHNK: Tensor, key_BHNK: Tensor, value_BHNK: Tensor, seen: Pattern) -> Tensor:
    """Return softmax(q k^T / sqrt K, over the seen keys) v as out_BHNK."""
    if seen.blocks is not None:
        from torch.nn.attention.flex_attention import flex_attention

        return flex_attention(query_BHNK, key_BHNK, value_BHNK, block_mask=seen.blocks)
    return functional.scaled_dot_product_attention(query_BHNK, key_BHNK, value_BHNK, attn_mask=seen.mask_NN)
