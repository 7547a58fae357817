"""Autoencoders of diffusers. The size is the side of a picture."""

# The packages are not installed everywhere.
# pyright: reportMissingImports=false

from __future__ import annotations

from benches.corpus.models.denoisers import noise
from benches.corpus.registry import Program, entry


# With sides that grow torch 2.13's inductor ends in "cannot determine truth value of Relational": fixed sizes.
@entry(
    "diffusers",
    sizes=(16, 24),
    dynamic=False,
    ways=[("bf16", {"autocast": True, "accumulate": 2, "infer": False, "dynamic": False})],
)
def autoencoder_kl() -> Program:
    """AutoencoderKL: the VAE of Stable Diffusion."""
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    )
    return Program(model=model, batch=lambda side: {"sample": noise(2, 3, side, side), "sample_posterior": False})


@entry("diffusers", sizes=(16, 24))
def autoencoder_tiny() -> Program:
    """AutoencoderTiny."""
    from diffusers import AutoencoderTiny

    model = AutoencoderTiny(
        encoder_block_out_channels=(16, 16),
        decoder_block_out_channels=(16, 16),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    return Program(model=model, batch=lambda side: {"sample": noise(2, 3, side, side)})


@entry("diffusers", sizes=(16, 24), dynamic=False)  # as above
def vq_model() -> Program:
    """VQModel, with a book of codes."""
    from diffusers import VQModel

    model = VQModel(
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(16,),
        latent_channels=4,
        num_vq_embeddings=16,
        norm_num_groups=4,
    )
    return Program(model=model, batch=lambda side: {"sample": noise(2, 3, side, side)})
