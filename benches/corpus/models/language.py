"""Language models of transformers: decoders, encoders, and both."""

# The packages are not installed everywhere.
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from benches.corpus.registry import Program, entry

VOCABULARY = 96
BATCH = 2
_DECODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_ENCODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 66,
    "pad_token_id": 0,
}


def tokens(size: int) -> Any:
    """Return `BATCH` sequences of `size` tokens, none of them a special one."""
    import torch

    return torch.randint(3, VOCABULARY, (BATCH, size), generator=torch.Generator().manual_seed(size))


def labelled(size: int) -> dict[str, Any]:
    """Return tokens that are their own labels."""
    ids = tokens(size)
    return {"input_ids": ids, "labels": ids}


def causal(config: Any) -> Program:
    """Return a causal language model of a configuration."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(config)
    return Program(model=model, batch=labelled, blocks=list(getattr(model.base_model, "layers", ())))


def masked(config: Any) -> Program:
    """Return a masked language model of a configuration; its second sequence is padded."""
    from transformers import AutoModelForMaskedLM

    def batch(size: int) -> dict[str, Any]:
        found = labelled(size)
        mask = found["input_ids"] * 0 + 1
        mask[1, size // 2 :] = 0
        return {**found, "attention_mask": mask}

    return Program(model=AutoModelForMaskedLM.from_config(config), batch=batch)


@entry(
    "transformers",
    sizes=(16, 24),
    ways=[
        ("bf16", {"autocast": True, "checkpoint": True}),
        ("regional", {"regional": True, "dynamic": True, "compiled_optimizer": True}),
    ],
)
def llama() -> Program:
    """Llama, with grouped queries."""
    from transformers import LlamaConfig

    return causal(LlamaConfig(**_DECODER | {"num_hidden_layers": 2}))


@entry("transformers", sizes=(16, 24), autocast=True)
def mistral() -> Program:
    """Mistral, with a window shorter than the sequences."""
    from transformers import MistralConfig

    return causal(MistralConfig(**_DECODER, sliding_window=8))


@entry("transformers", sizes=(16, 24), dynamic=True)
def qwen3() -> Program:
    """Qwen 3, whose queries and keys are normalized."""
    from transformers import Qwen3Config

    return causal(Qwen3Config(**_DECODER, head_dim=8))


@entry("transformers", sizes=(16, 24))
def gemma2() -> Program:
    """Gemma 2, with soft caps and layers that take turns."""
    from transformers import Gemma2Config

    return causal(
        Gemma2Config(**_DECODER | {"num_hidden_layers": 2}, head_dim=8, sliding_window=8, query_pre_attn_scalar=8)
    )


@entry("transformers", sizes=(16, 24), train=False)
def phi3() -> Program:
    """Phi 3, whose projections are fused."""
    from transformers import Phi3Config

    return causal(Phi3Config(**_DECODER))


@entry(
    "transformers",
    sizes=(16, 24),
    accumulate=2,
    compiled_optimizer=True,
    ways=[("autotuned", {"mode": "max-autotune", "train": False})],
)
def gpt2() -> Program:
    """GPT-2, with its dropout."""
    from transformers import GPT2Config

    return causal(GPT2Config(vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=1, n_head=4))


@entry("transformers", sizes=(16, 24))
def gpt_neox() -> Program:
    """GPT-NeoX, whose attention and multilayer perceptron stand side by side."""
    from transformers import GPTNeoXConfig

    small = {name: value for name, value in _DECODER.items() if name != "num_key_value_heads"}
    return causal(GPTNeoXConfig(**small))


@entry("transformers", sizes=(16, 24))
def opt() -> Program:
    """OPT, with learned positions."""
    from transformers import OPTConfig

    return causal(
        OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            word_embed_proj_dim=32,
            ffn_dim=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            max_position_embeddings=64,
        )
    )


@entry("transformers", sizes=(16, 24))
def bloom() -> Program:
    """BLOOM, with biases that fall with the distance."""
    from transformers import BloomConfig

    return causal(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=1, n_head=4))


@entry("transformers", sizes=(16, 24), ways=[("autotuned", {"mode": "max-autotune", "dynamic": True, "infer": False})])
def bert() -> Program:
    """BERT, masked, with padding."""
    from transformers import BertConfig

    return masked(BertConfig(**_ENCODER))


@entry("transformers", sizes=(16, 24), autocast=True)
def roberta() -> Program:
    """RoBERTa, which counts its positions from the padding."""
    from transformers import RobertaConfig

    return masked(RobertaConfig(**_ENCODER))


@entry("transformers", sizes=(16, 24))
def distilbert() -> Program:
    """DistilBERT."""
    from transformers import DistilBertConfig

    return masked(
        DistilBertConfig(
            vocab_size=VOCABULARY, dim=32, hidden_dim=64, n_layers=1, n_heads=4, max_position_embeddings=64
        )
    )


@entry("transformers", sizes=(16, 24))
def deberta() -> Program:
    """DeBERTa, version 2, whose attention is disentangled."""
    from transformers import DebertaV2Config

    return masked(DebertaV2Config(**_ENCODER, relative_attention=True, pos_att_type=["p2c", "c2p"]))


@entry("transformers", sizes=(16, 24), ema=True)
def modernbert() -> Program:
    """ModernBERT, with windows and rotations."""
    from transformers import ModernBertConfig

    return masked(ModernBertConfig(**_ENCODER, local_attention=8, attn_implementation="sdpa"))


@entry("transformers", sizes=(16, 24), ways=[("bf16", {"autocast": True, "accumulate": 2, "infer": False})])
def t5() -> Program:
    """T5: an encoder and a decoder with relative positions."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, decoder_start_token_id=0
    )
    return Program(model=T5ForConditionalGeneration(config), batch=labelled)


@entry("transformers", sizes=(16, 24), mode="reduce-overhead")
def bart() -> Program:
    """BART."""
    from transformers import BartConfig, BartForConditionalGeneration

    config = BartConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
    )
    return Program(model=BartForConditionalGeneration(config), batch=labelled)
