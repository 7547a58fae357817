"""Mixtures of experts of transformers.

Where the weights are of bf16, the experts are one grouped product of torch's; where they are of float32, it is an
operator that transformers defines.
"""

# The packages are not installed everywhere.
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from benches.corpus.models.language import VOCABULARY, causal
from benches.corpus.registry import Program, entry

_DECODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


@entry("transformers", sizes=(16, 24), ways=[("bf16", {"bf16_weights": True})])
def mixtral() -> Program:
    """Mixtral: four experts, two a token."""
    from transformers import MixtralConfig

    return causal(MixtralConfig(**_DECODER, num_local_experts=4, num_experts_per_tok=2))


@entry("transformers", sizes=(16, 24), bf16_weights=True)
def qwen2_moe() -> Program:
    """Qwen 2 with experts, one of them for all tokens."""
    from transformers import Qwen2MoeConfig

    return causal(
        Qwen2MoeConfig(
            **_DECODER,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=32,
        )
    )


@entry("transformers", sizes=(16, 24), bf16_weights=True, dynamic=True)
def olmoe() -> Program:
    """OLMoE."""
    from transformers import OlmoeConfig

    return causal(OlmoeConfig(**_DECODER, num_experts=4, num_experts_per_tok=2))
