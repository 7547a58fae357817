"""State-space models and models of speech of transformers."""

# The packages are not installed everywhere.
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from benches.corpus.models.language import BATCH, VOCABULARY, causal, tokens
from benches.corpus.registry import Program, entry


@entry("transformers", sizes=(8, 12))
def mamba() -> Program:
    """Mamba, in its plain torch form."""
    from transformers import MambaConfig

    return causal(MambaConfig(vocab_size=VOCABULARY, hidden_size=32, state_size=4, num_hidden_layers=1))


@entry("transformers", sizes=(8, 12))
def mamba2() -> Program:
    """Mamba 2."""
    from transformers import Mamba2Config

    return causal(
        Mamba2Config(
            vocab_size=VOCABULARY,
            hidden_size=32,
            state_size=8,
            num_hidden_layers=1,
            num_heads=8,
            head_dim=8,
            n_groups=2,
            chunk_size=4,
        )
    )


@entry("transformers", sizes=(8, 12), dynamic=False)
def recurrent_gemma() -> Program:
    """RecurrentGemma: linear recurrences and attention."""
    from transformers import RecurrentGemmaConfig

    return causal(
        RecurrentGemmaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=1,
            lru_width=32,
            attention_window_size=16,
        )
    )


@entry("transformers", sizes=(16, 24), ways=[("bf16", {"autocast": True, "infer": False})])
def whisper() -> Program:
    """Whisper: mel bands in, tokens out. The size is the number of tokens."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=VOCABULARY,
        num_mel_bins=8,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_source_positions=20,
        max_target_positions=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )

    def batch(size: int) -> dict[str, Any]:
        bands = torch.randn(BATCH, 8, 40, generator=torch.Generator().manual_seed(size))
        return {"input_features": bands, "labels": tokens(size)}

    return Program(model=WhisperForConditionalGeneration(config), batch=batch)


@entry("transformers", sizes=(400, 560))
def wav2vec2() -> Program:
    """wav2vec 2.0 with a classifier on it. The size is the number of samples."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=(16, 16),
        conv_stride=(5, 2),
        conv_kernel=(10, 3),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=16,
        mask_time_prob=0.0,
        mask_feature_prob=0.0,
        layerdrop=0.0,
    )

    def batch(size: int) -> dict[str, Any]:
        wave = torch.randn(BATCH, size, generator=torch.Generator().manual_seed(size))
        return {"input_values": wave, "labels": torch.tensor([0, 1])}

    return Program(model=Wav2Vec2ForSequenceClassification(config), batch=batch)
