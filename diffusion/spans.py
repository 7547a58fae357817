"""What one sequence is made of, and who may attend to whom.

Legend: N tokens, A coordinate axes, P rotary pairs per head.

A sequence is a row of spans. Tokens of a causal (text-like) span see their predecessors in it; tokens of a
bidirectional (image-like) span see all of it; everyone sees all earlier spans (Zhou et al., Transfusion, arXiv
2408.11039, section 3.2). Every span has coordinates of its own. A `Layout` holds the tensors that follow from this, so
that the compiled region receives them as inputs and holds no closure that differs between processes.
"""

# ruff: noqa: N815 (fields that are tensors carry shape suffixes)

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion.attention import AttentionBackend, MaskMod, Pattern, pattern
from diffusion.errors import ConfigError

MIN_FREQUENCY = math.pi / 2
"""Radians per half image: the slowest pair tells the left from the right and turns by pi across the image."""

PLACE_FEATURES = 24
"""Six frequencies, two axes, sin and cos."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A run of tokens on a grid: `shape` is (n,) for text and (rows, columns) for an image."""

    shape: tuple[int, ...]
    causal: bool = False

    def __post_init__(self) -> None:
        if len(self.shape) not in {1, 2} or min(self.shape) < 1:
            raise ConfigError(f"a span is (n,) or (rows, columns) with positive sides, got {self.shape}")
        if self.causal != (len(self.shape) == 1):
            raise ConfigError("a causal span has one axis and a bidirectional one has two")

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return math.prod(self.shape)


def text(tokens: int) -> Span:
    """Return a causal span of `tokens` tokens."""
    return Span(shape=(tokens,), causal=True)


def image(rows: int, columns: int) -> Span:
    """Return a bidirectional span of rows x columns tokens."""
    return Span(shape=(rows, columns))


class Layout(NamedTuple):
    """Everything a backbone needs to know about a sequence besides its values."""

    cos_NP: Tensor
    sin_NP: Tensor
    place_NF: Tensor  # sin and cos of each token's own y and x, the same for the same place at every resolution
    everywhere: Pattern  # for global layers
    nearby: Pattern  # for local layers


def local_radius(tokens: int, per_log2: float) -> int:
    """Return the window radius in tokens: proportional to log2 of the token count, at least 1."""
    return max(1, round(per_log2 * math.log2(max(tokens, 2))))


def mask_mods(spans: tuple[Span, ...], per_log2: float, device: torch.device) -> tuple[MaskMod, MaskMod]:
    """Return (everywhere, nearby) as functions of (batch, head, query index, key index), broadcasting over indices."""
    owner_N = torch.cat([torch.full((span.tokens,), i) for i, span in enumerate(spans)]).to(device)
    causal_N = torch.cat([torch.full((span.tokens,), span.causal) for span in spans]).to(device)
    radius_N = torch.cat([torch.full((span.tokens,), local_radius(span.tokens, per_log2)) for span in spans]).to(device)
    row_N = torch.cat([_grid(span)[:, 0] for span in spans]).to(device)
    column_N = torch.cat([_grid(span)[:, -1] for span in spans]).to(device)

    def everywhere(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del batch, head
        own = (owner_N[query] == owner_N[key]) & (~causal_N[query] | (key <= query))
        return own | (owner_N[key] < owner_N[query])

    def nearby(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        close = ((row_N[query] - row_N[key]).abs() <= radius_N[query]) & (
            (column_N[query] - column_N[key]).abs() <= radius_N[query]
        )
        elsewhere = owner_N[query] != owner_N[key]
        return everywhere(batch, head, query, key) & (close | elsewhere)

    return everywhere, nearby


def _grid(span: Span) -> Tensor:
    """Return integer positions as index_NA with one column per side of the span."""
    return torch.cartesian_prod(*(torch.arange(side) for side in span.shape)).reshape(span.tokens, -1)


def angles(spans: tuple[Span, ...], axes: tuple[str, ...], pairs: int) -> Tensor:
    """Return rotary angles as angle_NP in radians; pair p turns with axis p mod A.

    Along y and x, coordinates run from -1 to 1 and frequencies from `MIN_FREQUENCY` geometrically to a quarter turn per
    token: the slow ones mean the same place at every resolution and the fast ones resolve the token grid of each.
    Along t (text order; an image is one instant) frequencies are those of Su et al., arXiv 2104.09864, section 3.3.
    """
    if any(span.causal for span in spans) and "t" not in axes:
        raise ConfigError(f"a text span needs a time axis, but the backbone has axes {axes}")
    per_axis = [len(range(axis, pairs, len(axes))) for axis in range(len(axes))]
    rows: list[Tensor] = []
    start = 0
    for span in spans:
        grid_NA = _grid(span).double()
        angle_NP = torch.zeros(span.tokens, pairs, dtype=torch.float64)
        for a, axis in enumerate(axes):
            steps = torch.linspace(0, 1, max(per_axis[a], 2), dtype=torch.float64)[: per_axis[a]]
            if axis == "t":
                position_N = start + (grid_NA[:, 0] if span.causal else torch.zeros(span.tokens))
                frequency_F = 10000.0**-steps
            elif span.causal:
                continue
            else:
                side = span.shape[0] if axis == "y" else span.shape[1]
                index_N = grid_NA[:, 0] if axis == "y" else grid_NA[:, 1]
                position_N = (2 * index_N + 1) / side - 1
                fastest = max(math.pi * side / 4, MIN_FREQUENCY)
                frequency_F = MIN_FREQUENCY * (fastest / MIN_FREQUENCY) ** steps
            angle_NP[:, a :: len(axes)] = position_N[:, None] * frequency_F
        rows.append(angle_NP)
        start += span.tokens if span.causal else 1
    return torch.cat(rows)


def places(spans: tuple[Span, ...]) -> Tensor:
    """Return features_NF of where a token is in its own image, with F = `PLACE_FEATURES`; zeros for text.

    sin and cos of both coordinates, which run from -1 to 1, at frequencies from an eighth of a turn per half image up.
    """
    frequency_F = math.pi / 4 * 2 ** (0.75 * torch.arange(PLACE_FEATURES // 4, dtype=torch.float64))
    rows = []
    for span in spans:
        if span.causal:
            rows.append(torch.zeros(span.tokens, PLACE_FEATURES, dtype=torch.float64))
            continue
        side_A = torch.tensor(span.shape)
        position_NA = (2 * _grid(span).double() + 1) / side_A - 1
        angle_NF = (position_NA[:, :, None] * frequency_F).flatten(1)
        rows.append(torch.cat((angle_NF.sin(), angle_NF.cos()), dim=1))
    return torch.cat(rows)


def layout(
    spans: tuple[Span, ...],
    *,
    axes: tuple[str, ...],
    pairs: int,
    radius_per_log2: float,
    device: torch.device | str = "cpu",
    backend: AttentionBackend = AttentionBackend.AUTO,
) -> Layout:
    """Build the layout of a sequence on `device`."""
    if not spans:
        raise ConfigError("a sequence needs at least one span")
    device = torch.device(device)
    tokens = sum(span.tokens for span in spans)
    everywhere, nearby = mask_mods(spans, radius_per_log2, device)
    angle_NP = angles(spans, axes, pairs)
    # One image sees all of itself: no mask at all is faster than a mask of ones.
    unmasked = len(spans) == 1 and not spans[0].causal
    return Layout(
        cos_NP=angle_NP.cos().float().to(device),
        sin_NP=angle_NP.sin().float().to(device),
        place_NF=places(spans).float().to(device),
        everywhere=pattern(None if unmasked else everywhere, tokens, device, backend),
        nearby=pattern(nearby, tokens, device, backend),
    )
