"""AdamW with one learning rate for each part of a backbone, Muon for its hidden matrices, and how rates change.

Muon (Jordan et al. 2024) is torch's own `torch.optim.Muon`: it steps by the nearest orthogonal matrix to the momentum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from diffusion.errors import ConfigError
from diffusion.model import Backbone


class Policy(StrEnum):
    """How learning rates change over a training."""

    ONE_CYCLE = "one-cycle"  # rise, then a cosine to nearly nothing
    WSD = "wsd"  # rise, stay, fall in a straight line ("warmup, stable, decay")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """Peak learning rates, the optimizers' constants, and the policy over them."""

    backbone_lr: float = 2e-3
    interface_lr: float = 2e-3
    householder_lr: float = 1e-3
    """The reflections' directions have length sqrt K at the start and no decay: a step turns them by about lr."""
    muon_lr: float | None = None
    """Muon's rate for hidden matrices, scaled to the size of AdamW's steps; None trains them by AdamW, too."""
    width_scale: float = 1.0
    """How many times wider a backbone is than the one whose rates these are. A step of Adam is as large as its rate,
    and a sum over more inputs grows with it: rates of matrices whose inputs grow with the width are divided by this
    (muP: Yang et al., arXiv 2203.03466, table 8), those of `Backbone.inputs` and of vectors are not."""
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    policy: Policy = Policy.ONE_CYCLE
    warmup: float = 0.1
    """Share of all steps in which the rate rises."""
    decay: float = 0.4
    """Share of all steps, at the end, in which the rate falls under WSD."""

    def __post_init__(self) -> None:
        rates = (self.backbone_lr, self.interface_lr, self.householder_lr, self.muon_lr or 1.0)
        if min(*rates, self.width_scale) <= 0 or self.muon_lr == 0:
            raise ConfigError("learning rates must be positive, and width_scale, too")
        if self.weight_decay < 0:
            raise ConfigError(f"weight_decay must not be negative, got {self.weight_decay}")
        if not 0 < self.warmup < 1:
            raise ConfigError(f"warmup is a share of all steps between 0 and 1, got {self.warmup}")
        if not 0 < self.decay <= 1 - self.warmup:
            raise ConfigError(f"decay is a share of all steps that warmup leaves, got {self.decay}")


class Optimizers:
    """One or two optimizers, with their rates' policy, that move as one."""

    def __init__(
        self, parts: list[torch.optim.Optimizer], policy: Callable[[torch.optim.Optimizer], LRScheduler]
    ) -> None:
        self.parts = parts
        self._rates = [policy(part) for part in parts]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """All groups of parameters, those of the backbone last."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Take a step, and set the rates of the next."""
        for part, rates in zip(self.parts, self._rates, strict=True):
            part.step()
            rates.step()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next steps depend on, weights aside."""
        return {
            "parts": [part.state_dict() for part in self.parts],
            "rates": [rates.state_dict() for rates in self._rates],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        for rates, saved in zip(self._rates, state["rates"], strict=True):
            rates.load_state_dict(saved)


def optimizers(backbone: Backbone, config: OptimizerConfig, *, steps: int) -> Optimizers:
    """Return the optimizers of a backbone's parameter groups; only matrices outside the rotary basis decay."""
    rates = {
        "householder": config.householder_lr,
        "interface": config.interface_lr,
        "matrices": config.backbone_lr,
        "backbone": config.backbone_lr,
    }
    groups: list[dict[str, Any]] = []
    parts: list[torch.optim.Optimizer] = []
    inputs = set() if config.width_scale == 1 else {id(p) for p in backbone.inputs()}
    for name, parameters in backbone.parameter_groups().items():
        if name == "matrices" and config.muon_lr is not None and parameters:
            parts.append(_muon(parameters, config))
            continue
        matrices = [p for p in parameters if p.dim() >= 2 and name != "householder"]
        vectors = [p for p in parameters if p.dim() < 2 or name == "householder"]
        wider = [p for p in matrices if id(p) not in inputs]
        for chosen, rate, decay in (
            (wider, rates[name] / config.width_scale, config.weight_decay),
            ([p for p in matrices if id(p) in inputs], rates[name], config.weight_decay),
            (vectors, rates[name], 0.0),
        ):
            if chosen:
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay, "name": name})
    if groups:
        parts.append(torch.optim.AdamW(groups, betas=config.betas))
    return Optimizers(parts, lambda part: _rates(part, config, steps=steps))


def _muon(parameters: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    if config.muon_lr is None:
        raise ConfigError("Muon was asked for without a learning rate")
    group = {"params": parameters, "name": "matrices"}
    # "match_rms_adamw": a step is as large as AdamW's would be (Liu et al., arXiv 2502.16982), so rates compare.
    return torch.optim.Muon(
        [group], lr=config.muon_lr, weight_decay=config.weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )


def _rates(optimizer: torch.optim.Optimizer, config: OptimizerConfig, *, steps: int) -> LRScheduler:
    if config.policy is Policy.WSD:
        return LambdaLR(optimizer, lambda step: wsd(step, steps, warmup=config.warmup, decay=config.decay))
    return one_cycle(optimizer, config, steps=steps)


def wsd(step: int, steps: int, *, warmup: float, decay: float) -> float:
    """Return the share of the peak rate at a step, from 0: rise, plateau, fall (Hu et al., arXiv 2404.06395)."""
    rising = (step + 1) / max(1.0, warmup * steps)
    falling = (steps - step) / max(1.0, decay * steps)
    return max(0.0, min(1.0, rising, falling))


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
