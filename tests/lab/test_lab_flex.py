"""What a compiler sees on a GPU, shown on a CPU: the graphs of flex_attention, with torch's refusal patched out.

flex_attention has no compiled backward on CPUs, and torch says so before it is traced. Traced it can be, and its eager
form has a backward; what is not shown here are its kernels.
"""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import flex_attention as flex

from diffusion.attention import AttentionBackend
from diffusion.backbone import BackboneConfig, HybridDiT
from diffusion.buckets import BucketConfig, BucketSchedule
from diffusion.data import Checkerboards
from diffusion.objective import DenoisingObjective
from diffusion.parametrization import Parametrization
from diffusion.schedules import CosineLogSNR, ResolutionShifted
from diffusion.training import TrainConfig, Trainer

SMALL = BackboneConfig(width=16, depth=2, heads=2, hidden=24, global_every=2, reflections=1, places=True)


class Flex(HybridDiT):
    """A backbone whose layouts are those of a CUDA device."""

    def layout(self, resolution, *, backend=AttentionBackend.AUTO, **where):
        del backend
        return super().layout(resolution, backend=AttentionBackend.FLEX, **where)


@pytest.fixture(autouse=True)
def traced_on_a_cpu(monkeypatch):
    """Take torch's refusal out of the way."""
    monkeypatch.setattr(flex, "_validate_device", lambda *_: None)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def trainer_of(kind, **train):
    torch.manual_seed(0)
    backbone = kind(SMALL)
    torch.nn.init.normal_(backbone.head.project.weight, std=0.1)
    return Trainer(
        objective=DenoisingObjective(backbone, Parametrization()),
        schedule=ResolutionShifted(inner=CosineLogSNR()),
        source=Checkerboards(),
        buckets=BucketSchedule(BucketConfig(resolutions=(8, 12, 16), tokens_per_step=64), seed=0),
        config=TrainConfig(steps=9, **train),
    )


@pytest.mark.slow
def test_flex_attention_is_one_graph_a_bucket_without_breaks_and_fresh_masks_compile_nothing():
    trainer = trainer_of(Flex, backend="eager")
    steps = trainer.steps()
    for _ in range(trainer.buckets.round_length):
        next(steps)
    assert trainer.layout(8).nearby.blocks is not None

    # Another process, or a second trainer, makes its own masks.
    trainer._layouts.clear()
    with torch._dynamo.config.patch(error_on_recompile=True):
        list(steps)

    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3
    assert sum(torch._dynamo.utils.counters["graph_break"].values()) == 0


def test_the_gradients_of_flex_attentions_graph_are_those_of_the_dense_mask():
    bucket = replace(trainer_of(Flex, compile=False).buckets.buckets[-1], batch=2)
    found = []
    for kind, compiled in ((Flex, True), (HybridDiT, False)):
        trainer = trainer_of(kind, compile=compiled, backend="eager")
        trainer.loss(0, bucket).loss.backward()
        found.append({name: p.grad for name, p in trainer.objective.named_parameters() if p.grad is not None})

    by_flex, by_mask = found
    assert by_flex.keys() == by_mask.keys()
    assert any(grad.abs().max() > 1e-3 for grad in by_mask.values())
    for name, grad in by_mask.items():
        torch.testing.assert_close(by_flex[name], grad, atol=1e-6, rtol=1e-4, msg=name)
