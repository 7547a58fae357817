"""Ten families of timm, narrow and shallow. The size is the number of pictures, or the side of one."""

# The packages are not installed everywhere.
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from benches.corpus.models.pictures import pictures
from benches.corpus.registry import Program, entry


def classified(model: Any, count: int, side: int) -> Program:
    """Return a classifier that is fed `count` pictures of `side` pixels; one of both may be the size."""
    import torch
    from torch.nn import functional

    def batch(size: int) -> dict[str, Any]:
        return {"x": pictures(count or size, side or size)}

    def loss(logits: Any) -> Any:
        return functional.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1])

    return Program(model=model, batch=batch, loss=loss)


@entry("timm", sizes=(32, 64), ways=[("bf16", {"autocast": True, "infer": False})])
def timm_resnet() -> Program:
    """ResNet, with batch normalization; the pictures grow."""
    from timm.models.resnet import BasicBlock, ResNet

    model = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=4, channels=(8, 16, 16, 32), stem_width=8)
    return classified(model, 2, 0)


@entry("timm", sizes=(2, 3))
def timm_regnet() -> Program:
    """RegNet with squeeze and excitation."""
    from timm.models.regnet import RegNet, RegNetCfg

    cfg = RegNetCfg(depth=5, w0=16, wa=24.0, wm=2.0, group_size=8, se_ratio=0.25, stem_width=8)
    return classified(RegNet(cfg, num_classes=4), 0, 32)


@entry("timm", sizes=(2, 3))
def timm_densenet() -> Program:
    """DenseNet, whose layers are concatenated."""
    from timm.models.densenet import DenseNet

    return classified(DenseNet(growth_rate=8, block_config=(2, 2), num_classes=4, bn_size=2), 0, 32)


@entry("timm", sizes=(2, 3), ema=True)
def timm_efficientnet() -> Program:
    """EfficientNet, as timm's own tests have it."""
    import timm

    return classified(timm.create_model("test_efficientnet", num_classes=4), 0, 32)


# With sides that grow torch 2.14's inductor ends in "cannot determine truth value of Relational": fixed sizes.
@entry("timm", sizes=(32, 64), dynamic=False)
def timm_convnext() -> Program:
    """ConvNeXt V2, with global response normalization; the pictures grow."""
    from timm.models.convnext import ConvNeXt

    model = ConvNeXt(num_classes=4, depths=(1, 1, 1, 1), dims=(8, 16, 16, 32), use_grn=True, ls_init_value=None)
    return classified(model, 2, 0)


@entry("timm", sizes=(2, 3))
def timm_mambaout() -> Program:
    """MambaOut: gated convolutions."""
    from timm.models.mambaout import MambaOut

    return classified(MambaOut(num_classes=4, depths=(1, 1), dims=(16, 32), kernel_size=3), 0, 32)


@entry("timm", sizes=(2, 3), ways=[("bf16", {"accumulate": 2, "autocast": True, "infer": False})])
def timm_vit() -> Program:
    """A vision transformer with a class token."""
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(img_size=16, patch_size=4, num_classes=4, embed_dim=32, depth=1, num_heads=4)
    return classified(model, 0, 16)


@entry("timm", sizes=(2, 3), dynamic=True)
def timm_eva() -> Program:
    """EVA with rotary positions and SwiGLU."""
    from timm.models.eva import Eva

    model = Eva(
        img_size=16,
        patch_size=4,
        num_classes=4,
        embed_dim=32,
        depth=1,
        num_heads=4,
        swiglu_mlp=True,
        use_rot_pos_emb=True,
    )
    return classified(model, 0, 16)


@entry("timm", sizes=(2, 3))
def timm_swin() -> Program:
    """Swin, whose windows move."""
    from timm.models.swin_transformer import SwinTransformer

    model = SwinTransformer(
        img_size=16, patch_size=2, num_classes=4, embed_dim=16, depths=(2, 1), num_heads=(2, 4), window_size=4
    )
    return classified(model, 0, 16)


@entry("timm", sizes=(2, 3))
def timm_mixer() -> Program:
    """An MLP mixer."""
    from timm.models.mlp_mixer import MlpMixer

    return classified(MlpMixer(num_classes=4, img_size=16, patch_size=4, num_blocks=1, embed_dim=32), 0, 16)


@entry("timm", sizes=(2, 3), mode="max-autotune", train=False)
def timm_poolformer() -> Program:
    """PoolFormer, whose tokens are mixed by pooling."""
    from timm.models.metaformer import MetaFormer

    return classified(MetaFormer(num_classes=4, depths=(1, 1), dims=(16, 32)), 0, 32)
