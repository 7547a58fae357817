"""AdamW with one learning rate for each part of the backbone, and the OneCycle policy over them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.optim.lr_scheduler import OneCycleLR

from diffusion.backbone import HybridDiT
from diffusion.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """Peak learning rates and AdamW's constants."""

    backbone_lr: float = 2e-3
    interface_lr: float = 2e-3
    householder_lr: float = 1e-3
    """The reflections' directions have length sqrt K at the start and no decay: a step turns them by about lr."""
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: float = 0.1
    """Share of all steps in which the rate rises."""

    def __post_init__(self) -> None:
        if min(self.backbone_lr, self.interface_lr, self.householder_lr) <= 0:
            raise ConfigError("learning rates must be positive")
        if self.weight_decay < 0:
            raise ConfigError(f"weight_decay must not be negative, got {self.weight_decay}")
        if not 0 < self.warmup < 1:
            raise ConfigError(f"warmup is a share of all steps between 0 and 1, got {self.warmup}")


def adamw(backbone: HybridDiT, config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW over the backbone's parameter groups; only matrices outside the rotary basis decay."""
    rates = {
        "householder": config.householder_lr,
        "interface": config.interface_lr,
        "backbone": config.backbone_lr,
    }
    groups = []
    for name, parameters in backbone.parameter_groups().items():
        for decays in (True, False):
            chosen = [p for p in parameters if (p.dim() >= 2 and name != "householder") is decays]
            if chosen:
                decay = config.weight_decay if decays else 0.0
                groups.append({"params": chosen, "lr": rates[name], "weight_decay": decay, "name": name})
    return torch.optim.AdamW(groups, betas=config.betas)


def one_cycle(optimizer: torch.optim.Optimizer, config: OptimizerConfig, *, steps: int) -> OneCycleLR:
    """Return the OneCycle policy (Smith & Topin, arXiv 1708.07120): each group rises to its rate, then anneals to 0."""
    # One more than will be taken: the policy's last point is for a step after the last.
    total = steps + 1
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total,
        # The policy divides by pct_start * total - 1, so that the shortest runs need a longer rise.
        pct_start=max(config.warmup, 1.5 / total),
        cycle_momentum=False,
    )
