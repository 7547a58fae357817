"""The graphs and kernels that attacks start from; a worker compiles each of them as it is."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from compile_wire.kernel.spec import encode_kernel
from compile_wire.limits import MAX_GRAPH_BYTES
from compile_wire.packing import unpack
from tests.worker.worker_samples import Captured, captured, graph


def _gated(x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    return F.silu(gate) * x.sum(dim=-1, keepdim=True) + x.shape[0]


def _in_half(x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return x @ x


def _recomputed(x: torch.Tensor) -> torch.Tensor:
    return torch.utils.checkpoint.checkpoint(lambda y: torch.sin(y).cos(), x, use_reentrant=False)


def _asserting(x: torch.Tensor) -> torch.Tensor:
    torch._assert_async(x.sum() > -1000, "a message of the model's")
    return torch.func.grad(lambda y: y.sin().sum())(x)


def _shared_out() -> Captured:
    """Return a graph of rank 1 of 2, with a tensor of which each has a half."""
    dist.init_process_group("fake", rank=1, world_size=2, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("tp",))
        whole = distribute_tensor(torch.ones(4, 4), mesh, [Shard(0)])
        return captured(
            lambda x, y: (
                DTensor.from_local(x, mesh, [Partial()]).redistribute(mesh, [Replicate()]).to_local()
                + y.to_local().sum()
            ),
            torch.ones(4, 4),
            whole,
        )
    finally:
        dist.destroy_process_group()


def graphs() -> list[Any]:
    """Return the graphs as messages that are not yet packed."""
    from compile_wire.graph.spec import encode_graph

    leaf = torch.randn(4, 4, requires_grad=True)
    specs = [
        encode_graph(graph()),
        captured(nn.Linear(4, 4), leaf).spec,
        captured(_gated, leaf, leaf, dynamic=True).spec,
        captured(_in_half, leaf).spec,
        captured(_recomputed, leaf).spec,
        captured(_asserting, leaf).spec,
        _shared_out().spec,
    ]
    return [unpack(spec, max_bytes=MAX_GRAPH_BYTES, what="graph") for spec in specs]


_TEXTS = (
    "module { tt.func public @f(%arg0: i32) { BODY tt.return } }",
    '%0 = tt.elementwise_inline_asm "nop" {constraints = "=r,r", packed_element = 1 : i32, pure = false} '
    "%arg0 : i32 -> i32",
    'llvm.inline_asm has_side_effects "nop", "" : () -> ()',
    '%0 = tt.extern_elementwise %arg0 {libname = "", libpath = "", pure = true, symbol = "f"} : (i32) -> i32',
    "%c = arith.constant true scf.if %c { INNER }",
)


def kernels() -> list[Any]:
    """Return the kernels as messages that are not yet packed; the list is empty where Triton is not installed."""
    if importlib.util.find_spec("triton") is None:
        return []
    from compile_wire.kernel.spec import KernelSpec

    frame, *bodies = _TEXTS
    texts = [frame.replace("BODY", body) for body in ("", *bodies[:3])]
    texts += [frame.replace("BODY", bodies[3].replace("INNER", body)) for body in bodies[:3]]
    texts += [texts[0].replace("module {", 'module attributes {llvm.module_asm = ["nop"]} {', 1)]
    specs = [
        KernelSpec(
            name="kernel", backend=backend, arch=arch, warp_size=warp, source=text, ttir=text,
            options={"num_warps": 4, "enable_fp_fusion": True}, options_digest="0" * 64,
        )
        for text in texts
        for backend, arch, warp in (("cuda", 90, 32), ("hip", "gfx942", 64))
    ]  # fmt: skip
    return [unpack(encode_kernel(spec), max_bytes=MAX_GRAPH_BYTES, what="kernel") for spec in specs]
