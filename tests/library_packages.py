"""Packages under the names of known libraries, for tests: as small as can be, and what they declare is real.

Neither library is installed where the tests run, and a test must be able to change what it finds in one.
"""

from __future__ import annotations

import time
from pathlib import Path

_EXPERTS = """
import torch


def _kernel(input, weight, offs):
    return input @ weight[0]


def _fake(input, weight, offs):
    return torch.empty(input.size(0), weight.size(2), device=input.device, dtype=input.dtype)


def _keep(ctx, inputs, output):
    ctx.save_for_backward(inputs[0], inputs[1])


def _times():
    return {factor}


def _scaled(grad):
    return grad * _times()


def _backward(ctx, grad):
    input, weight = ctx.saved_tensors
    grad = _scaled(grad)
    return grad @ weight[0].T, (input.T @ grad).unsqueeze(0).expand_as(weight), None


torch.library.custom_op(
    "transformers::grouped_mm_fallback",
    _kernel,
    mutates_args=(),
    schema="(Tensor input, Tensor weight, Tensor offs) -> Tensor",
)
torch.library.register_fake("transformers::grouped_mm_fallback", _fake)
torch.library.register_autograd("transformers::grouped_mm_fallback", _backward, setup_context=_keep)
"""

_BOXES = """
import torch

_declared = torch.library.Library("torchvision", "DEF")
_declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _nms(dets, scores, iou_threshold):
    return scores.argsort(descending=True)


def _autocast_nms(dets, scores, iou_threshold):
    return _nms(dets.float(), scores.float(), iou_threshold)


_declared.impl("nms", _nms, "CPU")
_declared.impl("nms", _nms, "Meta")
_declared.impl("nms", _autocast_nms, "AutocastCPU")


def _keep(ctx, inputs, output):
    pass


def _backward(ctx, grad):
    return None, None, None


torch.library.register_autograd("torchvision::nms", _backward, setup_context=_keep, lib=_declared)
"""


_TICK_S = 0.01
"""What the kernel counts the beginning of a process in."""


def write_transformers(folder: Path, *, factor: float = 2.0) -> None:
    """Write a `transformers` with the one operator; its gradients are `factor` times what they would be."""
    (folder / "transformers" / "integrations").mkdir(parents=True, exist_ok=True)
    (folder / "transformers" / "__init__.py").touch()
    (folder / "transformers" / "integrations" / "__init__.py").touch()
    (folder / "transformers" / "integrations" / "moe.py").write_text(_EXPERTS.format(factor=factor))
    _let_a_tick_pass()


def write_torchvision(folder: Path) -> None:
    """Write a `torchvision` with one operator that is declared without `custom_op`."""
    (folder / "torchvision").mkdir(parents=True, exist_ok=True)
    (folder / "torchvision" / "__init__.py").write_text("from torchvision import _meta_registrations\n")
    (folder / "torchvision" / "_meta_registrations.py").write_text(_BOXES)
    _let_a_tick_pass()


def _let_a_tick_pass() -> None:
    """Wait until a process that begins now is certainly younger than what was written."""
    time.sleep(5 * _TICK_S)
