"""From a configuration to its backbone: the two kinds that the benches know."""

from __future__ import annotations

from diffusion.backbone import BackboneConfig, HybridDiT
from diffusion.equal_tokens import EqualTokens, EqualTokensConfig
from diffusion.model import Backbone

ModelConfig = BackboneConfig | EqualTokensConfig


def backbone_of(config: ModelConfig) -> Backbone:
    """Return a backbone of this configuration, with fresh random weights."""
    return EqualTokens(config) if isinstance(config, EqualTokensConfig) else HybridDiT(config)
