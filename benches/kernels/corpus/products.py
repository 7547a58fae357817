"""Matrix products: half precision; integers of 8 bits with a scale for each column."""

import triton
import triton.language as tl


@triton.jit
def matmul(
    a_ptr,
    b_ptr,
    c_ptr,
    rows,
    columns,
    inner,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    # Neighbouring programs share rows of a, so that they find columns of b in the cache.
    program = tl.program_id(0)
    down, across = tl.cdiv(rows, BLOCK_M), tl.cdiv(columns, BLOCK_N)
    band = program // (GROUP * across)
    height = tl.minimum(down - band * GROUP, GROUP)
    m = (band * GROUP + program % height) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = (program % (GROUP * across)) // height * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for at in range(0, inner, BLOCK_K):
        k = at + tl.arange(0, BLOCK_K)
        a = tl.load(a_ptr + m[:, None] * inner + k[None, :], mask=(m[:, None] < rows) & (k[None, :] < inner), other=0.0)
        b = tl.load(
            b_ptr + k[:, None] * columns + n[None, :], mask=(k[:, None] < inner) & (n[None, :] < columns), other=0.0
        )
        total = tl.dot(a, b, total)
    inside = (m[:, None] < rows) & (n[None, :] < columns)
    tl.store(c_ptr + m[:, None] * columns + n[None, :], total.to(c_ptr.dtype.element_ty), mask=inside)


@triton.jit
def quantised_matmul(
    a_ptr,
    b_ptr,
    scale_ptr,
    c_ptr,
    rows,
    columns,
    inner,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    for at in range(0, inner, BLOCK_K):
        k = at + tl.arange(0, BLOCK_K)
        a = tl.load(a_ptr + m[:, None] * inner + k[None, :], mask=(m[:, None] < rows) & (k[None, :] < inner), other=0)
        b = tl.load(
            b_ptr + k[:, None] * columns + n[None, :], mask=(k[:, None] < inner) & (n[None, :] < columns), other=0
        )
        total = tl.dot(a, b, total, out_dtype=tl.int32)
    scale = tl.load(scale_ptr + n, mask=n < columns, other=0.0)
    inside = (m[:, None] < rows) & (n[None, :] < columns)
    tl.store(c_ptr + m[:, None] * columns + n[None, :], total.to(tl.float32) * scale[None, :], mask=inside)
