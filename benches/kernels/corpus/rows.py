"""Kernels that reduce rows: softmax, layer norm forward and backward, group norm, cross entropy."""

import triton
import triton.language as tl


@triton.jit
def softmax(x_ptr, out_ptr, stride, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    offsets = tl.arange(0, BLOCK)
    inside = offsets < columns
    x = tl.load(x_ptr + row * stride + offsets, mask=inside, other=-float("inf")).to(tl.float32)
    raised = tl.exp(x - tl.max(x, 0))
    tl.store(out_ptr + row * stride + offsets, raised / tl.sum(raised, 0), mask=inside)


@triton.jit
def layer_norm(x_ptr, weight_ptr, bias_ptr, out_ptr, mean_ptr, rstd_ptr, stride, columns, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    offsets = tl.arange(0, BLOCK)
    inside = offsets < columns
    x = tl.load(x_ptr + row * stride + offsets, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(x, 0) / columns
    centred = tl.where(inside, x - mean, 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, 0) / columns + eps)
    weight = tl.load(weight_ptr + offsets, mask=inside)
    bias = tl.load(bias_ptr + offsets, mask=inside)
    tl.store(mean_ptr + row, mean)
    tl.store(rstd_ptr + row, rstd)
    tl.store(out_ptr + row * stride + offsets, centred * rstd * weight + bias, mask=inside)


@triton.jit
def layer_norm_backward(
    grad_ptr, x_ptr, weight_ptr, mean_ptr, rstd_ptr, dx_ptr, dw_ptr, db_ptr, stride, columns, BLOCK: tl.constexpr
):
    row = tl.program_id(0)
    offsets = tl.arange(0, BLOCK)
    inside = offsets < columns
    x = tl.load(x_ptr + row * stride + offsets, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(grad_ptr + row * stride + offsets, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    mean = tl.load(mean_ptr + row)
    rstd = tl.load(rstd_ptr + row)
    normal = tl.where(inside, (x - mean) * rstd, 0.0)
    scaled = grad * weight
    along = tl.sum(normal * scaled, 0) / columns
    level = tl.sum(scaled, 0) / columns
    tl.store(dx_ptr + row * stride + offsets, (scaled - level - normal * along) * rstd, mask=inside)
    # Every row adds to the same vectors; the caller has set them to zero.
    tl.atomic_add(dw_ptr + offsets, grad * normal, mask=inside)
    tl.atomic_add(db_ptr + offsets, grad, mask=inside)


@triton.jit
def group_norm(x_ptr, weight_ptr, bias_ptr, out_ptr, groups, per_group, pixels, eps, BLOCK: tl.constexpr):
    group = tl.program_id(0)
    size = per_group * pixels
    start = group * size
    total = tl.zeros((BLOCK,), tl.float32)
    squares = tl.zeros((BLOCK,), tl.float32)
    for at in range(0, size, BLOCK):
        offsets = at + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + start + offsets, mask=offsets < size, other=0.0).to(tl.float32)
        total += x
        squares += x * x
    mean = tl.sum(total, 0) / size
    rstd = tl.rsqrt(tl.sum(squares, 0) / size - mean * mean + eps)
    for at in range(0, size, BLOCK):
        offsets = at + tl.arange(0, BLOCK)
        inside = offsets < size
        channel = (group % groups) * per_group + offsets // pixels
        x = tl.load(x_ptr + start + offsets, mask=inside, other=0.0).to(tl.float32)
        weight = tl.load(weight_ptr + channel, mask=inside, other=0.0)
        bias = tl.load(bias_ptr + channel, mask=inside, other=0.0)
        tl.store(out_ptr + start + offsets, (x - mean) * rstd * weight + bias, mask=inside)


@triton.jit
def cross_entropy(logits_ptr, target_ptr, loss_ptr, grad_ptr, stride, classes, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    target = tl.load(target_ptr + row)
    largest = -float("inf")
    total = 0.0
    for at in range(0, classes, BLOCK):
        offsets = at + tl.arange(0, BLOCK)
        x = tl.load(logits_ptr + row * stride + offsets, mask=offsets < classes, other=-float("inf")).to(tl.float32)
        newer = tl.maximum(largest, tl.max(x, 0))
        total = total * tl.exp(largest - newer) + tl.sum(tl.exp(x - newer), 0)
        largest = newer
    aimed = tl.load(logits_ptr + row * stride + target).to(tl.float32)
    tl.store(loss_ptr + row, tl.log(total) + largest - aimed)
    for at in range(0, classes, BLOCK):
        offsets = at + tl.arange(0, BLOCK)
        inside = offsets < classes
        x = tl.load(logits_ptr + row * stride + offsets, mask=inside, other=-float("inf")).to(tl.float32)
        probability = tl.exp(x - largest) / total
        tl.store(grad_ptr + row * stride + offsets, probability - tl.where(offsets == target, 1.0, 0.0), mask=inside)
