"""Pictures for people: grids of images as PNG, and the ground truth beside them.

Legend: B images, C colour channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from diffusion.data import ImageSource


def grid(x_BCHW: Tensor, *, columns: int = 8, margin: int = 2, side: int = 64) -> Tensor:
    """Return images laid out in rows on white, as rgb_HWC (uint8). Small images are enlarged to about `side` pixels.

    Enlargement repeats pixels: what is looked at is what was drawn.
    """
    factor = max(1, side // x_BCHW.shape[-1])
    byte_BCHW = ((x_BCHW.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
    byte_BCHW = byte_BCHW.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)
    height, width = byte_BCHW.shape[-2:]
    rows = -(-len(byte_BCHW) // columns)
    rgb_HWC = torch.full(
        (rows * (height + margin) + margin, columns * (width + margin) + margin, 3), 255, dtype=torch.uint8
    )
    for i, image_CHW in enumerate(byte_BCHW):
        top = margin + (i // columns) * (height + margin)
        left = margin + (i % columns) * (width + margin)
        rgb_HWC[top : top + height, left : left + width] = image_CHW.permute(1, 2, 0)
    return rgb_HWC


def save_grid(path: Path, rows: Mapping[int, Tensor], *, columns: int = 8) -> None:
    """Write one PNG with a block of images for each resolution, smallest first."""
    # Imported here: training needs no image library.
    from PIL import Image

    blocks = [grid(x_BCHW, columns=columns) for _, x_BCHW in sorted(rows.items())]
    width = max(block.shape[1] for block in blocks)
    padded = [torch.nn.functional.pad(block, (0, 0, 0, width - block.shape[1]), value=255) for block in blocks]
    Image.fromarray(torch.cat(padded).numpy()).save(path)


def save_ground_truth(path: Path, source: ImageSource, resolutions: tuple[int, ...], *, seed: int) -> None:
    """Write what a perfect model would draw: sixteen true images at each resolution, the same boards in each."""
    save_grid(path, {side: source.draw(16, side, seed=seed, step=0) for side in resolutions})
