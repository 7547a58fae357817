"""Fused attention: the forward keeps a running maximum and sum, the backward recomputes the weights from their log."""

import triton
import triton.language as tl


@triton.jit
def attention(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    log_ptr,
    length,
    scale,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr,
):
    head = tl.program_id(1) * length
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    d = tl.arange(0, WIDTH)
    q = tl.load(q_ptr + (head + m[:, None]) * WIDTH + d[None, :], mask=m[:, None] < length, other=0.0)
    largest = tl.full((BLOCK_M,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    mixed = tl.zeros((BLOCK_M, WIDTH), tl.float32)
    end = tl.minimum((tl.program_id(0) + 1) * BLOCK_M, length) if CAUSAL else length
    for at in range(0, end, BLOCK_N):
        n = at + tl.arange(0, BLOCK_N)
        k = tl.load(k_ptr + (head + n[None, :]) * WIDTH + d[:, None], mask=n[None, :] < length, other=0.0)
        score = tl.dot(q, k) * scale
        seen = n[None, :] < length
        if CAUSAL:
            seen = seen & (n[None, :] <= m[:, None])
        score = tl.where(seen, score, -1.0e30)
        newer = tl.maximum(largest, tl.max(score, 1))
        weight = tl.exp(score - newer[:, None])
        shrink = tl.exp(largest - newer)
        total = total * shrink + tl.sum(weight, 1)
        v = tl.load(v_ptr + (head + n[:, None]) * WIDTH + d[None, :], mask=n[:, None] < length, other=0.0)
        mixed = mixed * shrink[:, None] + tl.dot(weight.to(v.dtype), v)
        largest = newer
    tl.store(log_ptr + head + m, largest + tl.log(total), mask=m < length)
    tl.store(
        out_ptr + (head + m[:, None]) * WIDTH + d[None, :],
        (mixed / total[:, None]).to(out_ptr.dtype.element_ty),
        mask=m[:, None] < length,
    )


@triton.jit
def attention_backward(
    q_ptr,
    k_ptr,
    v_ptr,
    grad_ptr,
    log_ptr,
    delta_ptr,
    dq_ptr,
    dk_ptr,
    dv_ptr,
    length,
    scale,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    # One program has BLOCK_N keys and goes over all queries; the gradients of the queries are added up atomically.
    head = tl.program_id(1) * length
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.arange(0, WIDTH)
    here = (head + n[:, None]) * WIDTH + d[None, :]
    inside = n[:, None] < length
    k = tl.load(k_ptr + here, mask=inside, other=0.0)
    v = tl.load(v_ptr + here, mask=inside, other=0.0)
    dk = tl.zeros((BLOCK_N, WIDTH), tl.float32)
    dv = tl.zeros((BLOCK_N, WIDTH), tl.float32)
    for at in range(0, length, BLOCK_M):
        m = at + tl.arange(0, BLOCK_M)
        there = (head + m[:, None]) * WIDTH + d[None, :]
        q = tl.load(q_ptr + there, mask=m[:, None] < length, other=0.0)
        grad = tl.load(grad_ptr + there, mask=m[:, None] < length, other=0.0)
        log = tl.load(log_ptr + head + m, mask=m < length, other=0.0)
        delta = tl.load(delta_ptr + head + m, mask=m < length, other=0.0)
        seen = (m[:, None] < length) & (n[None, :] < length)
        weight = tl.where(seen, tl.exp(tl.dot(q, tl.trans(k)) * scale - log[:, None]), 0.0)
        dv += tl.dot(tl.trans(weight).to(grad.dtype), grad)
        slope = weight * (tl.dot(grad, tl.trans(v)) - delta[:, None]) * scale
        dk += tl.dot(tl.trans(slope).to(q.dtype), q)
        tl.atomic_add(dq_ptr + there, tl.dot(slope.to(k.dtype), k), mask=m[:, None] < length)
    tl.store(dk_ptr + here, dk.to(dk_ptr.dtype.element_ty), mask=inside)
    tl.store(dv_ptr + here, dv.to(dv_ptr.dtype.element_ty), mask=inside)
