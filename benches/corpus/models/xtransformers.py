"""Models of x-transformers. The size is the length of a sequence, or the number of pictures."""

# The packages are not installed everywhere.
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from benches.corpus.models.denoisers import noise
from benches.corpus.models.language import VOCABULARY, tokens
from benches.corpus.registry import Program, entry


@entry("x-transformers", sizes=(16, 24), ways=[("bf16", {"autocast": True, "accumulate": 2, "infer": False})])
def x_decoder() -> Program:
    """An autoregressive decoder with rotary positions."""
    from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper

    net = TransformerWrapper(
        num_tokens=VOCABULARY,
        max_seq_len=64,
        attn_layers=Decoder(dim=32, depth=1, heads=4, attn_dim_head=8, rotary_pos_emb=True),
    )
    return Program(model=AutoregressiveWrapper(net), batch=lambda size: {"x": tokens(size)}, loss=lambda loss: loss)


@entry("x-transformers", sizes=(16, 24), dynamic=True)
def x_encoder() -> Program:
    """An encoder with ALiBi, gated linear units and root-mean-square norms."""
    from x_transformers import Encoder, TransformerWrapper

    layers = Encoder(dim=32, depth=1, heads=4, attn_dim_head=8, alibi_pos_bias=True, ff_glu=True, use_rmsnorm=True)
    model = TransformerWrapper(num_tokens=VOCABULARY, max_seq_len=64, attn_layers=layers)
    return Program(model=model, batch=lambda size: {"x": tokens(size)})


@entry("x-transformers", sizes=(2, 3))
def x_vit() -> Program:
    """A vision transformer."""
    from x_transformers import Encoder, ViTransformerWrapper

    layers = Encoder(dim=32, depth=1, heads=4, attn_dim_head=8)
    model = ViTransformerWrapper(image_size=16, patch_size=4, num_classes=4, attn_layers=layers)
    return Program(model=model, batch=lambda count: {"img": noise(count, 3, 16, 16)})


@entry("x-transformers", sizes=(16, 24), ema=True)
def x_continuous() -> Program:
    """A decoder of vectors, with flash attention and grouped keys."""
    from x_transformers import ContinuousTransformerWrapper, Decoder

    layers = Decoder(dim=32, depth=1, heads=4, attn_dim_head=8, attn_flash=True, attn_kv_heads=2)
    model = ContinuousTransformerWrapper(dim_in=8, dim_out=8, max_seq_len=64, attn_layers=layers)
    return Program(model=model, batch=lambda size: {"x": noise(2, size, 8)})


@entry("x-transformers", sizes=(16, 24))
def x_encoder_decoder() -> Program:
    """An encoder and a decoder that share their tokens."""
    from x_transformers import XTransformer

    model = XTransformer(
        dim=32,
        enc_num_tokens=VOCABULARY,
        enc_depth=1,
        enc_heads=4,
        enc_attn_dim_head=8,
        enc_max_seq_len=64,
        dec_num_tokens=VOCABULARY,
        dec_depth=1,
        dec_heads=4,
        dec_attn_dim_head=8,
        dec_max_seq_len=64,
        tie_token_emb=True,
    )

    def batch(size: int) -> dict[str, Any]:
        return {"src": tokens(size), "tgt": tokens(size + 1)}

    return Program(model=model, batch=batch, loss=lambda loss: loss)
