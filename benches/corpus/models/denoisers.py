"""Denoisers of diffusers. The size is the side of a latent, or the number of words beside it."""

# The packages are not installed everywhere.
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from benches.corpus.registry import Program, entry


def noise(*shape: int) -> Any:
    """Return normal numbers, the same for the same shape."""
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def steps() -> Any:
    """Return a time step for each of two samples."""
    import torch

    return torch.tensor([10, 700])


@entry(
    "diffusers",
    sizes=(16, 24),
    ema=True,
    ways=[("bf16", {"autocast": True, "dynamic": True, "infer": False})],
)
def unet2d() -> Program:
    """UNet2DModel, as the unconditional training script has it, with fewer and narrower blocks."""
    from diffusers import UNet2DModel

    model = UNet2DModel(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=8,
    )
    return Program(model=model, batch=lambda side: {"sample": noise(2, 3, side, side), "timestep": steps()})


@entry(
    "diffusers",
    sizes=(8, 16),
    ways=[("checkpointed", {"checkpoint": True, "compiled_optimizer": True, "infer": False})],
)
def unet2d_condition() -> Program:
    """UNet2DConditionModel, as Stable Diffusion has it."""
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        norm_num_groups=4,
        attention_head_dim=4,
    )

    def batch(side: int) -> dict[str, Any]:
        return {"sample": noise(2, 4, side, side), "timestep": steps(), "encoder_hidden_states": noise(2, 6, 16)}

    return Program(model=model, batch=batch)


@entry("diffusers", sizes=(8, 16))
def unet1d() -> Program:
    """UNet1DModel, over time."""
    from diffusers import UNet1DModel

    model = UNet1DModel(
        sample_size=16,
        in_channels=2,
        out_channels=2,
        extra_in_channels=64,  # the width of the time steps that it appends
        block_out_channels=(32, 32),
        down_block_types=("DownBlock1DNoSkip", "AttnDownBlock1D"),
        up_block_types=("AttnUpBlock1D", "UpBlock1DNoSkip"),
        mid_block_type="UNetMidBlock1D",
    )
    return Program(model=model, batch=lambda size: {"sample": noise(2, 2, 2 * size), "timestep": steps()})


@entry("diffusers", sizes=(2, 3), ways=[("regional", {"regional": True, "dynamic": True, "infer": False})])
def dit() -> Program:
    """DiT; the batch changes."""
    import torch
    from diffusers import DiTTransformer2DModel

    model = DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=8, in_channels=4, num_layers=2, sample_size=8, norm_num_groups=4
    )

    def batch(count: int) -> dict[str, Any]:
        return {
            "hidden_states": noise(count, 4, 8, 8),
            "timestep": torch.arange(count) * 100,
            "class_labels": torch.arange(count) % 4,
        }

    return Program(model=model, batch=batch, blocks=list(model.transformer_blocks))


@entry("diffusers", sizes=(6, 10), autocast=True)
def sd3() -> Program:
    """The transformer of Stable Diffusion 3."""
    from diffusers import SD3Transformer2DModel

    model = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=16,
        caption_projection_dim=32,
        pooled_projection_dim=16,
        pos_embed_max_size=16,
    )

    def batch(words: int) -> dict[str, Any]:
        return {
            "hidden_states": noise(2, 4, 8, 8),
            "encoder_hidden_states": noise(2, words, 16),
            "pooled_projections": noise(2, 16),
            "timestep": steps(),
        }

    return Program(model=model, batch=batch, blocks=list(model.transformer_blocks))


@entry("diffusers", sizes=(6, 10), ways=[("regional", {"regional": True, "autocast": True, "infer": False})])
def flux() -> Program:
    """The transformer of Flux."""
    import torch
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
    )

    def batch(words: int) -> dict[str, Any]:
        return {
            "hidden_states": noise(2, 16, 4),
            "encoder_hidden_states": noise(2, words, 16),
            "pooled_projections": noise(2, 16),
            "timestep": torch.tensor([0.25, 0.75]),
            "img_ids": torch.arange(48.0).reshape(16, 3),
            "txt_ids": torch.zeros(words, 3),
        }

    return Program(model=model, batch=batch, blocks=[*model.transformer_blocks, *model.single_transformer_blocks])


@entry("diffusers", sizes=(6, 10))
def pixart() -> Program:
    """The transformer of PixArt."""
    from diffusers import PixArtTransformer2DModel

    model = PixArtTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=32,
        caption_channels=16,
        sample_size=8,
        use_additional_conditions=False,
        norm_num_groups=4,
    )

    def batch(words: int) -> dict[str, Any]:
        return {
            "hidden_states": noise(2, 4, 8, 8),
            "encoder_hidden_states": noise(2, words, 16),
            "timestep": steps(),
            "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
        }

    return Program(model=model, batch=batch)
