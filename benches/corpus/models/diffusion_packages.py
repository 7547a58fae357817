"""Denoisers of denoising-diffusion-pytorch and k-diffusion. The size is the side of a picture."""

# The packages are not installed everywhere.
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from benches.corpus.models.denoisers import noise, steps
from benches.corpus.registry import Program, entry


@entry(
    "denoising-diffusion-pytorch",
    sizes=(16, 32),
    ema=True,
    dynamic=False,  # torch 2.14 itself cannot compile it with sides that grow
    ways=[("bf16", {"autocast": True, "dynamic": False, "accumulate": 2, "infer": False})],
)
def ddpm_unet() -> Program:
    """The U-Net of its README, with two narrow levels."""
    from denoising_diffusion_pytorch import Unet

    model = Unet(dim=16, dim_mults=(1, 2), attn_dim_head=8, attn_heads=2, full_attn=(False, True))
    return Program(model=model, batch=lambda side: {"x": noise(2, 3, side, side), "time": steps()})


@entry("denoising-diffusion-pytorch", sizes=(16, 32))
def ddpm_unet1d() -> Program:
    """The U-Net of sequences."""
    from denoising_diffusion_pytorch import Unet1D

    model = Unet1D(dim=16, dim_mults=(1, 2), channels=4, attn_dim_head=8, attn_heads=2)
    return Program(model=model, batch=lambda length: {"x": noise(2, 4, length), "time": steps()})


@entry("denoising-diffusion-pytorch", sizes=(2, 3))
def ddpm_karras() -> Program:
    """The U-Net of Karras et al. 2023, whose layers keep magnitudes; here the size is the number of pictures."""
    import torch
    from denoising_diffusion_pytorch import KarrasUnet

    model = KarrasUnet(
        image_size=16, dim=16, dim_max=32, channels=3, num_downsamples=1, num_blocks_per_stage=1, attn_res=(8,)
    )
    return Program(model=model, batch=lambda count: {"x": noise(count, 3, 16, 16), "time": torch.arange(count) / 4})


@entry("k-diffusion", sizes=(16, 32))
def k_image_v1() -> Program:
    """The first image model in its preconditioning."""
    import k_diffusion

    inner = k_diffusion.models.ImageDenoiserModelV1(3, 16, [1, 1], [16, 32], [False, True])
    return Program(
        model=k_diffusion.layers.Denoiser(inner, sigma_data=0.5),
        batch=lambda side: {"input": noise(2, 3, side, side), "sigma": _sigmas()},
    )


@entry("k-diffusion", sizes=(16, 32), ema=True, ways=[("bf16", {"autocast": True, "infer": False})])
def k_transformer_v1() -> Program:
    """The image transformer in its preconditioning."""
    import k_diffusion

    inner = k_diffusion.models.ImageTransformerDenoiserModelV1(
        n_layers=1, d_model=64, d_ff=64, in_features=3, out_features=3, patch_size=(4, 4), sigma_data=0.5
    )
    return Program(
        model=k_diffusion.layers.Denoiser(inner, sigma_data=0.5),
        batch=lambda side: {"input": noise(2, 3, side, side), "sigma": _sigmas()},
    )


def _sigmas() -> Any:
    import torch

    return torch.tensor([0.3, 2.0])
