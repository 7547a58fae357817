"""A scan with a combining function of our own, and a histogram."""

import triton
import triton.language as tl


@triton.jit
def _later(decay_a, sum_a, decay_b, sum_b):
    return decay_a * decay_b, sum_a * decay_b + sum_b


@triton.jit
def decayed_scan(x_ptr, decay_ptr, out_ptr, length, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    offsets = tl.arange(0, BLOCK)
    inside = offsets < length
    x = tl.load(x_ptr + row * length + offsets, mask=inside, other=0.0)
    decay = tl.load(decay_ptr + row * length + offsets, mask=inside, other=1.0)
    _, state = tl.associative_scan((decay, x), 0, _later)
    tl.store(out_ptr + row * length + offsets, state, mask=inside)


@triton.jit
def histogram(x_ptr, counts_ptr, n, BINS: tl.constexpr, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < n
    x = tl.load(x_ptr + offsets, mask=inside, other=0)
    counts = tl.histogram(x, BINS, mask=inside)
    tl.atomic_add(counts_ptr + tl.arange(0, BINS), counts)
