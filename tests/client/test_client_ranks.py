"""The key has the process's rank where a graph may depend on it, and has none of it where ranks may share."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from compile_client.graphs.user_code.ranks import _TOGETHER, meshes_without_hashes, ranks_of, why_ranks_compile_together

THIRD_OF_FOUR = [2, 4, ["l", "0", 0, 1, 2, 3]]


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("fake", rank=2, world_size=4, store=FakeStore())
    try:
        yield init_device_mesh("cpu", (4,))
    finally:
        dist.destroy_process_group()


def _ranks(function: Callable[..., Any], *inputs: Any, user_code: str = "") -> list[Any]:
    found: list[Any] = []

    def backend(gm: torch.fx.GraphModule, given: list[Any]) -> Callable[..., Any]:
        found.append(ranks_of(gm, given, user_code))
        return gm.forward

    torch._dynamo.reset()
    torch.compile(function, backend=backend)(*inputs)
    (ranks,) = found
    assert isinstance(ranks, list)
    return ranks


def _checkpointed(x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = torch.utils.checkpoint.checkpoint(torch.sin, x, use_reentrant=False)
    return result


def _branched(x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))
    return result


SHARED: dict[str, Callable[[torch.Tensor], Any]] = {
    "functions": lambda x: torch.nn.functional.gelu(x.view(-1)[None]) * 2 + x.to(torch.bfloat16).float().sum(),
    "a module": torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.1), torch.nn.LayerNorm(4)),
    "a checkpoint": _checkpointed,
    "control flow": _branched,
    "a list of tensors": lambda x: torch.cat([x, x], dim=-1).split([2, 6], dim=-1),
}
"""What ranks of data parallelism compile: one of them for all."""


@pytest.mark.parametrize("name", SHARED)
def test_a_graph_that_knows_of_no_rank_has_none_in_its_key(mesh: DeviceMesh, name: str) -> None:
    assert _ranks(SHARED[name], torch.ones(4, 4)) == []


def test_tensors_in_a_list_are_as_tensors_are(mesh: DeviceMesh) -> None:
    graph = torch.fx.symbolic_trace(lambda x: x[0] + 1)

    assert ranks_of(graph, [[torch.ones(2), 1.5], {"a": torch.ones(2)}], "") == []
    assert ranks_of(graph, [[DTensor.from_local(torch.ones(2), mesh, [Shard(0)])]], "") == THIRD_OF_FOUR


def _redistributed(mesh: DeviceMesh) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: DTensor.from_local(x, mesh, [Replicate()]).redistribute(mesh, [Shard(0)]).to_local() * 2


def test_a_graph_with_a_tensor_of_several_ranks_has_the_rank_in_its_key(mesh: DeviceMesh) -> None:
    assert _ranks(torch.sin, DTensor.from_local(torch.ones(4, 4), mesh, [Shard(0)])) == THIRD_OF_FOUR


def test_a_graph_with_a_mesh_has_the_rank_in_its_key(mesh: DeviceMesh) -> None:
    assert _ranks(_redistributed(mesh), torch.ones(4, 4)) == THIRD_OF_FOUR


def test_a_module_whose_parameters_are_shared_out_has_the_rank_in_its_key(mesh: DeviceMesh) -> None:
    module = torch.nn.Linear(4, 4)
    module.weight = torch.nn.Parameter(DTensor.from_local(torch.ones(1, 4), mesh, [Shard(0)]))
    module.bias = torch.nn.Parameter(DTensor.from_local(torch.ones(1), mesh, [Shard(0)]))

    assert _ranks(module, DTensor.from_local(torch.ones(4, 4), mesh, [Replicate()])) == THIRD_OF_FOUR


def test_a_graph_that_speaks_to_other_ranks_has_the_rank_in_its_key(mesh: DeviceMesh) -> None:
    assert _ranks(lambda x: collectives.all_reduce(x, "sum", mesh) * 2, torch.ones(4)) == THIRD_OF_FOUR


def test_a_graph_in_which_code_of_the_users_takes_part_has_the_rank_in_its_key(mesh: DeviceMesh) -> None:
    assert _ranks(torch.sin, torch.ones(4), user_code="a digest") == THIRD_OF_FOUR


def test_ranks_that_speak_while_they_compile_are_told_by_torchs_settings() -> None:
    importlib.import_module("torch._inductor.config_comms")

    assert why_ranks_compile_together() == ""
    found = []
    for config, name in _TOGETHER:
        holder: Any = sys.modules[f"torch.{config}"]
        *way, last = name.split(".")
        for part in way:
            holder = getattr(holder, part)
        if hasattr(holder, last):
            before = getattr(holder, last)
            setattr(holder, last, True)
            found.append(why_ranks_compile_together())
            setattr(holder, last, before)
    assert len(set(found)) >= len(_TOGETHER) - 1, "torch 2.13 does not have one of them"
    assert all("while they compile" in why for why in found)


def test_each_group_is_in_the_key_with_its_ranks(mesh: DeviceMesh) -> None:
    init_device_mesh("cpu", (2, 2))

    rank, ranks, *groups = _ranks(_redistributed(mesh), torch.ones(4, 4))

    assert (rank, ranks) == (2, 4)
    assert sorted(group[2:] for group in groups) == [[0, 1, 2, 3], [0, 2], [2, 3]]


_COLLECTIVES = """
from compile_client.graphs.user_code import registrations
registrations.watch()
import torch
import torch.distributed._functional_collectives
from compile_client.graphs.user_code.operator_facts import is_own

names = [f"_c10d_functional::{name}" for name in dir(torch.ops._c10d_functional) if not name.startswith("_")]
names += ["_c10d_functional::all_reduce", "_c10d_functional::all_gather_into_tensor", "_c10d_functional::wait_tensor"]
assert any(map(registrations.kernels_of, names)), "torch registers none of them in Python any more"
before = [name for name in names if is_own(name)]
ours = torch.library.Library("_c10d_functional", "IMPL", "AutogradCPU")
ours.impl("all_reduce", lambda x, how, group: x)
print(before, is_own("_c10d_functional::all_reduce"))
"""


def test_torchs_collectives_are_torchs_until_a_program_puts_something_into_them() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COLLECTIVES], check=False, capture_output=True, text=True, timeout=120
    )

    assert done.stdout.split("\n")[0] == "[] True", done.stderr


def test_without_a_group_no_graph_has_a_rank_in_its_key() -> None:
    assert not dist.is_initialized()
    assert _ranks(torch.sin, torch.ones(4), user_code="a digest") == []


def test_a_mesh_is_pickled_without_the_hash_that_it_keeps_and_has_it_afterwards(mesh: DeviceMesh) -> None:
    whole = init_device_mesh("cpu", (2, 2), mesh_dim_names=("a", "b"))
    part = whole["a"]
    kept = hash(whole), hash(part)

    with meshes_without_hashes([torch.ones(2), part]):
        meanwhile = [vars(found)["_hash"] for found in (whole, part)]

    assert meanwhile == [None, None]
    assert (vars(whole)["_hash"], vars(part)["_hash"]) == kept
