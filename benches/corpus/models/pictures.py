"""Models of pictures of transformers. The size is the number of pictures, or the side of one."""

# The packages are not installed everywhere.
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benches.corpus.models.language import tokens
from benches.corpus.registry import Program, entry


def pictures(count: int, side: int) -> Any:
    """Return `count` pictures with `side` pixels a side."""
    import torch

    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(count * side))


def classified(count: int, side: int) -> dict[str, Any]:
    """Return pictures with their classes."""
    import torch

    return {"pixel_values": pictures(count, side), "labels": torch.arange(count) % 2}


def classifier(config: Any, batch: Callable[[int], dict[str, Any]]) -> Program:
    """Return a classifier of pictures of a configuration."""
    from transformers import AutoModelForImageClassification

    return Program(model=AutoModelForImageClassification.from_config(config), batch=batch)


_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 16,
    "patch_size": 4,
}


@entry(
    "transformers",
    sizes=(2, 3),
    ways=[("regional", {"regional": True, "ema": True}), ("bf16", {"autocast": True, "accumulate": 2})],
)
def vit() -> Program:
    """ViT; the batch changes."""
    from transformers import ViTConfig, ViTForImageClassification

    model = ViTForImageClassification(ViTConfig(**_VISION | {"num_hidden_layers": 2}))
    kind = type(next(module for module in model.modules() if type(module).__name__ == "ViTLayer"))
    blocks = [module for module in model.modules() if isinstance(module, kind)]
    return Program(model=model, batch=lambda count: classified(count, 16), blocks=blocks)


@entry("transformers", sizes=(2, 3), autocast=True)
def dinov2() -> Program:
    """DINOv2."""
    from transformers import Dinov2Config

    small = {name: value for name, value in _VISION.items() if name != "intermediate_size"}
    return classifier(Dinov2Config(**small), lambda count: classified(count, 16))


@entry("transformers", sizes=(2, 3))
def swin() -> Program:
    """Swin, whose windows move."""
    from transformers import SwinConfig

    config = SwinConfig(image_size=16, patch_size=2, embed_dim=16, depths=[2, 1], num_heads=[2, 4], window_size=4)
    return classifier(config, lambda count: classified(count, 16))


# With sides that grow torch 2.13's inductor ends in "cannot determine truth value of Relational": fixed sizes.
@entry("transformers", sizes=(16, 32), dynamic=False)
def convnext() -> Program:
    """ConvNeXt; the pictures grow."""
    from transformers import ConvNextConfig

    config = ConvNextConfig(num_stages=2, hidden_sizes=[16, 32], depths=[1, 1], drop_path_rate=0.1)
    return classifier(config, lambda side: classified(2, side))


@entry("transformers", sizes=(32, 64))
def resnet() -> Program:
    """ResNet, with batch normalization."""
    from transformers import ResNetConfig

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return classifier(config, lambda side: classified(2, side))


@entry("transformers", sizes=(32, 64))
def segformer() -> Program:
    """SegFormer, whose attention looks at fewer keys."""
    from transformers import SegformerConfig

    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[4, 2],
        hidden_sizes=[16, 32],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
    )
    return classifier(config, lambda side: classified(2, side))


@entry("transformers", sizes=(8, 12))
def clip() -> Program:
    """CLIP: pictures and words, compared. The size is the number of words."""
    from transformers import CLIPConfig, CLIPModel

    text = {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
        "eos_token_id": 2,
    }
    vision = {**_VISION, "num_hidden_layers": 1}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))

    def batch(size: int) -> dict[str, Any]:
        return {"input_ids": tokens(size), "pixel_values": pictures(2, 16), "return_loss": True}

    return Program(model=model, batch=batch)
