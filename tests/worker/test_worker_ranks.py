"""A worker takes the part of the rank that a graph was traced on, or says why it does not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch._functorch._aot_autograd import autograd_cache
from torch.distributed import _functional_collectives as funcol
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.distributed.tensor.placement_types import _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore

from compile_client.graphs.capture import CannotCarryError, capture
from compile_client.graphs.user_code.ranks import ranks_of
from compile_torch.checked_calls import check_call
from compile_torch.dtensors import inputs_for_key
from compile_torch.key.key_parts import full_key, gathered_parts
from compile_torch.settings import daemon_settings
from compile_torch.versions import torch_version
from compile_wire.errors import MalformedError
from compile_wire.graph.decode import decode_graph
from compile_wire.graph.spec import GraphSpec, encode_graph
from compiler_daemon.insight.explain import Request, differences
from compiler_daemon.insight.graph_text import GraphText
from compiler_daemon.worker.ranks import as_rank, import_distributed
from compiler_daemon.worker.rebuild import rebuild
from tests.worker.worker_samples import Captured, Worker, captured

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class _Enough(BaseException):
    """Leaves torch's compile once the key is computed."""


@dataclasses.dataclass(frozen=True)
class _Rank:
    rank: int
    of: int

    def begin(self) -> None:
        dist.init_process_group("fake", rank=self.rank, world_size=self.of, store=FakeStore())


@pytest.fixture(autouse=True)
def _no_rank() -> Iterator[None]:
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def _uneven(mesh: DeviceMesh) -> DTensor:
    return distribute_tensor(torch.ones(5, 3), mesh, [Shard(0)])


def _whole(x: torch.Tensor, mesh: DeviceMesh) -> torch.Tensor:
    out: torch.Tensor = DTensor.from_local(x, mesh, [Partial()]).redistribute(mesh, [Replicate()]).to_local() * 2
    return out


def _even(mesh: DeviceMesh) -> DTensor:
    return distribute_tensor(torch.ones(8, 3), mesh, [Shard(0)])


def _summed(x: torch.Tensor, mesh: DeviceMesh) -> torch.Tensor:
    y = x * 2
    dist.all_reduce(y, group=mesh.get_group())
    return y + 1


def _gathered(x: torch.Tensor, mesh: DeviceMesh) -> torch.Tensor:
    parts = [torch.empty_like(x) for _ in range(mesh.size())]
    dist.all_gather(parts, x, group=mesh.get_group())
    return torch.cat(parts) + 1


def _step(mesh: DeviceMesh, kind: Callable[..., torch.optim.Optimizer], **settings: Any) -> Callable[[], None]:
    block = _block(mesh)
    optimizer = kind(block.parameters(), **settings)
    block(torch.ones(4, 6)).sum().backward()

    def step() -> None:
        optimizer.step()

    return step


def _block(mesh: DeviceMesh) -> torch.nn.Module:
    torch.manual_seed(0)
    block = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.GELU(), torch.nn.Linear(12, 6))
    return parallelize_module(block, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


PROGRAMS: dict[str, Callable[[DeviceMesh], Captured]] = {
    "uneven parts": lambda mesh: captured(lambda x: torch.sin(x) + 1, _uneven(mesh)),
    "a sum over ranks": lambda mesh: captured(lambda x: _whole(x, mesh), torch.ones(4, 4)),
    "tensor parallelism": lambda mesh: captured(_block(mesh), torch.ones(4, 6)),
    "a plain tensor's sum": lambda mesh: captured(lambda x: _summed(x, mesh), torch.ones(4, 4)),
    "plain tensors gathered": lambda mesh: captured(lambda x: _gathered(x, mesh), torch.ones(4, 4)),
    "plain tensors exchanged": lambda mesh: captured(
        lambda x: funcol.all_to_all_single_autograd(x, None, None, mesh) * 2, torch.ones(4, 4).requires_grad_()
    ),
    "an average scattered": lambda mesh: captured(
        lambda x: funcol.reduce_scatter_tensor(x, "avg", 0, mesh) * 2, torch.ones(4, 4).requires_grad_()
    ),
    "any size": lambda mesh: captured(lambda x: (x * 2).sum(), _even(mesh), dynamic=True),
    "any size of a part": lambda mesh: captured(lambda x: x.to_local() * 2, _even(mesh), dynamic=True),
    "a tensor that was computed": lambda mesh: captured(torch.sin, _even(mesh).requires_grad_() * 2),
    "an optimizer's step": lambda mesh: captured(_step(mesh, torch.optim.SGD, lr=0.1, momentum=0.9)),
    "an optimizer's step that counts": lambda mesh: captured(_step(mesh, torch.optim.AdamW, lr=torch.tensor(0.1))),
    "a gathered tensor": lambda mesh: captured(lambda x: x.full_tensor() + 1, _uneven(mesh)),
}


@pytest.mark.parametrize("rank", [_Rank(0, 2), _Rank(1, 2), _Rank(2, 4)], ids=str)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_graph_that_was_rebuilt_on_its_rank_has_its_key(name: str, rank: _Rank) -> None:
    rank.begin()
    mesh = init_device_mesh("cpu", (rank.of,), mesh_dim_names=("tp",))
    found = PROGRAMS[name](mesh)
    dist.destroy_process_group()

    assert _key_of(decode_graph(found.spec)) == found.key
    assert not dist.is_initialized()


def _flat(mesh: DeviceMesh) -> DeviceMesh:
    return mesh._flatten("all")


def _through_a_flat_one(mesh: DeviceMesh) -> Captured:
    _flat(mesh)
    whole = distribute_tensor(torch.ones(4, 4), mesh, [Shard(0), Shard(0)])
    return captured(lambda x: x.redistribute(placements=[Replicate(), Replicate()]).to_local() + 1, whole)


def _strided(mesh: DeviceMesh) -> DTensor:
    part = torch.ones(2, 4)
    return DTensor.from_local(part, mesh, [_StridedShard(0, split_factor=2), Shard(0)], run_check=False)


def _summed_by(mesh: DeviceMesh) -> Captured:
    return captured(lambda x: _summed(x, mesh), torch.ones(4, 4))


def _part(mesh: DeviceMesh, dimension: int) -> DeviceMesh:
    assert mesh.mesh_dim_names
    part: DeviceMesh = mesh[mesh.mesh_dim_names[dimension]]
    return part


PARTS: dict[str, Callable[[DeviceMesh], Captured]] = {
    "the last dimension": lambda mesh: captured(_block(_part(mesh, 1)), torch.ones(4, 6)),
    "the first dimension": lambda mesh: captured(torch.sin, _even(_part(mesh, 0))),
    "a flattened mesh": lambda mesh: captured(torch.sin, _even(_flat(mesh))),
    "a way through a flattened mesh": _through_a_flat_one,
    "a part that the program takes": lambda mesh: captured(lambda x: _whole(x, _part(mesh, 1)), torch.ones(4, 4)),
    "strides over dimensions": lambda mesh: captured(torch.sin, _strided(mesh)),
    "a group of some": lambda mesh: _summed_by(_part(mesh, 0)),
}


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("name", PARTS)
def test_a_graph_on_a_part_of_a_mesh_has_its_key_when_it_was_rebuilt(name: str, rank: int) -> None:
    _Rank(rank, 4).begin()
    # Names of its own: torch finds again, by an equal mesh, what it remembers of another test's, and its groups.
    names = tuple(f"{one}{list(PARTS).index(name)}{rank}" for one in ("dp", "tp"))
    found = PARTS[name](init_device_mesh("cpu", (2, 2), mesh_dim_names=names))
    dist.destroy_process_group()

    assert _key_of(decode_graph(found.spec)) == found.key


def test_a_mesh_that_knows_a_flattened_one_has_another_key() -> None:
    """torch takes another way from part to part then, and has neither in its key."""
    keys = []
    for prepare in (_flat, lambda mesh: dist.new_group([0, 1, 2, 3])):
        _Rank(1, 4).begin()
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
        prepare(mesh)
        keys.append(captured(torch.sin, distribute_tensor(torch.ones(4, 4), mesh, [Shard(0), Shard(1)])).key)
        dist.destroy_process_group()
    assert keys[0] != keys[1]


def test_two_meshes_of_the_same_ranks_and_other_groups_have_other_keys() -> None:
    """They are equal for torch, and what is compiled speaks of groups by their names."""
    _Rank(1, 4).begin()
    meshes = [init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp")) for _ in range(2)]
    keys = {captured(torch.sin, distribute_tensor(torch.ones(4, 4), mesh, [Shard(0), Shard(1)])).key for mesh in meshes}

    assert meshes[0] == meshes[1]
    assert len(keys) == 2


def test_a_mesh_of_two_dimensions_has_a_group_for_each() -> None:
    _Rank(2, 4).begin()
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    found = captured(torch.sin, distribute_tensor(torch.ones(4, 6), mesh, [Shard(0), Shard(1)]))
    dist.destroy_process_group()
    spec = decode_graph(found.spec)

    assert _key_of(spec) == found.key
    assert len(spec.meshes[0].groups) == 2
    assert len(spec.ranks) == 2 + 3


def test_another_rank_has_another_key() -> None:
    keys = []
    for rank in (_Rank(0, 2), _Rank(1, 2)):
        rank.begin()
        mesh = init_device_mesh("cpu", (2,))
        keys.append(captured(torch.sin, distribute_tensor(torch.ones(4, 3), mesh, [Shard(0)])).key)
        dist.destroy_process_group()
    assert keys[0] != keys[1]


def test_how_a_part_lies_in_memory_is_in_the_key() -> None:
    _Rank(0, 2).begin()
    mesh = init_device_mesh("cpu", (2,))
    plain, turned = torch.ones(2, 3), torch.ones(3, 2).t()
    keys = {captured(torch.sin, DTensor.from_local(x, mesh, [Shard(0)], run_check=False)).key for x in (plain, turned)}
    assert len(keys) == 2


def test_an_explanation_begins_with_the_rank_and_says_what_the_rank_has() -> None:
    requests = []
    for rank in (_Rank(0, 2), _Rank(1, 2)):
        rank.begin()
        spec = decode_graph(PROGRAMS["uneven parts"](init_device_mesh("cpu", (2,))).spec)
        requests.append(Request(environment={}, spec=spec))
        dist.destroy_process_group()

    first, *others = differences(requests[1], requests[0])

    assert first.text == "compiled for rank 1 of 2, was for rank 0 of 2"
    assert any("of which the rank has [2, 3], was" in other.text for other in others)
    assert differences(requests[0], requests[0]) == []


def test_the_text_of_a_graph_says_where_parts_lie() -> None:
    _Rank(1, 2).begin()
    spec = decode_graph(PROGRAMS["uneven parts"](init_device_mesh("cpu", (2,))).spec)

    (given,) = GraphText(spec).inputs()

    assert given.kind == "DTensor [5, 3] (S(0)) on mesh 0, of which f32[2, 3]"


def _refused(function: Callable[..., Any], *inputs: Any) -> str:
    said: list[str] = []

    def backend(gm: torch.fx.GraphModule, given: list[Any]) -> Callable[..., Any]:
        with pytest.raises(CannotCarryError) as raised:
            capture(gm, given, dynamic_shapes=False, ranks=ranks_of(gm, given, ""))
        said.append(str(raised.value))
        return gm.forward

    torch._dynamo.reset()
    torch.compile(function, backend=backend)(*inputs)
    (why,) = said
    return why


def _reordered() -> DTensor:
    mesh = init_device_mesh("cpu", (2, 2))
    mesh._preserve_rank_order = True  # type: ignore[attr-defined]  # as torch 2.15 has it where a program asks for it
    return _even_of(mesh)


def _even_of(mesh: DeviceMesh) -> DTensor:
    return distribute_tensor(torch.ones(8, 4), mesh, [Shard(0), Shard(0)])


def _in_another_order() -> DTensor:
    made = _even_of(init_device_mesh("cpu", (2, 2)))
    (entry,) = made._spec.shard_order
    made._spec.shard_order = (entry._replace(mesh_dims=(1, 0)),)
    return made


def test_what_is_not_carried_of_meshes_and_their_tensors_is_said() -> None:
    _Rank(0, 4).begin()

    assert "has otherwise" in _refused(torch.sin, _reordered())
    assert "cut in another order" in _refused(torch.sin, _in_another_order())


def test_a_collective_of_a_group_that_the_program_has_named_is_not_carried() -> None:
    given = torch.fx.Graph().placeholder("x")

    with pytest.raises(MalformedError, match="no group that torch numbered"):
        check_call(torch.ops._c10d_functional.all_reduce, (given, "sum", "my-group"), {}, "")
    check_call(torch.ops._c10d_functional.all_reduce, (given, "sum", "3"), {}, "")


def test_a_worker_compiles_for_a_rank_and_ends(tmp_path: Path, headers: Path) -> None:
    _Rank(1, 2).begin()
    found = PROGRAMS["tensor parallelism"](init_device_mesh("cpu", (2,)))
    worker = Worker(tmp_path, headers)

    answer = worker.compile(found.key, found.spec)
    worker.end()

    assert answer["type"] == "done", answer
    assert answer["spent"], "another rank's graph would meet what torch remembers by the mesh"
    assert "left behind" not in (tmp_path / "log").read_text()


def _changed(change: Callable[[dict[str, Any]], None]) -> GraphSpec:
    """Return a graph of rank 1 of 2, as it arrives after `change` of its fields."""
    _Rank(1, 2).begin()
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("tp",))
    spec = decode_graph(PROGRAMS["tensor parallelism"](mesh).spec)
    dist.destroy_process_group()
    fields = {name: getattr(spec, name) for name in ("ranks", "meshes", "inputs", "modules")}
    fields = json.loads(json.dumps({**fields, "meshes": None, "modules": None})) | {
        "meshes": spec.meshes,
        "modules": spec.modules,
    }
    change(fields)
    return decode_graph(encode_graph(dataclasses.replace(spec, **fields)))


def _set(fields: dict[str, Any], **values: Any) -> None:
    fields["meshes"] = [dataclasses.replace(fields["meshes"][0], **values)]


def _lies(fields: dict[str, Any], *placements: Any) -> None:
    fields["inputs"][2][1][1] = [*placements]


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a group with a name": (lambda f: (f.update(ranks=[1, 2, ["l", "x", 0, 1]]), _set(f, groups=["x"]))[0], "numbered"),
    "no group": (lambda f: f.update(ranks=[1, 2], meshes=[], inputs=f["inputs"][:1]), "numbered"),
    "a first group of some": (lambda f: f.update(ranks=[1, 2, ["l", "0", 1]]), "all ranks"),
    "a group of others": (lambda f: f.update(ranks=[1, 2, ["l", "0", 0, 1], ["l", "1", 0]]), "the rank's own"),
    "a device that was never run": (lambda f: _set(f, device="cuda"), "no mesh of"),
    "a device that is none": (lambda f: _set(f, device="x; import os"), "no mesh of"),
    "a dimension that is no name": (lambda f: _set(f, names=["tp'"]), "oddly called"),
    "a mesh of ranks that are not there": (lambda f: _set(f, ranks=[1, 7]), "more ranks than there are"),
    "an unknown placement": (lambda f: _lies(f, ["P", "x", None, None]), "no part of a tensor"),
    "a placement too many": (lambda f: _lies(f, *[["P", "R", None, None]] * 2), "for each dimension"),
    "a shard without its dimension": (lambda f: _lies(f, ["P", "S", None, None]), "no part of"),
    "pieces of a whole": (lambda f: _lies(f, ["P", "R", None, 2]), "no part of"),
    "a part of another size": (lambda f: f["inputs"][2][1].__setitem__(2, ["z", 13, 6]), ""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_hostile_client_says_of_ranks_is_refused_or_has_another_key(name: str) -> None:
    change, why = HOSTILE[name]
    spec = _changed(change)
    if why:
        with pytest.raises(MalformedError, match=why):
            _key_of(spec)
    else:
        assert _key_of(spec)
    assert not dist.is_initialized()


@pytest.mark.parametrize(
    ("name", "value"), [("run_check", True), ("device_mesh", 1), ("hook", None)], ids=["compares", "no mesh", "unknown"]
)
def test_a_dtensor_is_made_of_what_is_known_alone(name: str, value: Any) -> None:
    def change(fields: dict[str, Any]) -> None:
        (module,) = fields["modules"]
        nodes = [
            dataclasses.replace(node, kwargs=["d", name, value]) if "from_local" in node.target else node
            for node in module.nodes
        ]
        fields["modules"] = [dataclasses.replace(module, nodes=nodes)]

    spec = _changed(change)
    if name == "device_mesh":
        assert _key_of(spec)  # torch itself will say what it thinks of it: nothing of the worker's is reached
    else:
        with pytest.raises(MalformedError, match=r"ranks compare|not known here"):
            _key_of(spec)


def _key_of(spec: GraphSpec) -> str:
    """Return the key that a worker computes for the graph."""
    version = torch_version()
    assert version is not None
    import_distributed()
    found: list[str] = []
    original = autograd_cache.autograd_cache_key

    def keying(gm: Any, inputs: Any, config: Any, *rest: Any, **named: Any) -> Any:
        config = dataclasses.replace(config, dynamic_shapes=spec.dynamic_shapes)
        key, _ = original(gm, inputs_for_key(inputs), config, *rest, **named)
        found.append(full_key(key, gathered_parts(version, inputs, ranks=spec.ranks)))
        raise _Enough

    autograd_cache.autograd_cache_key = keying
    try:
        with as_rank(spec) as meshes, daemon_settings(), torch.set_grad_enabled(bool(spec.state["grad"])):
            rebuilt = rebuild(spec, meshes)
            with torch._guards.tracing(torch._guards.TracingContext(rebuilt.fake_mode)):
                torch._inductor.compile_fx.compile_fx(rebuilt.gm, rebuilt.inputs)
    except _Enough:
        pass
    finally:
        autograd_cache.autograd_cache_key = original
    (key,) = found
    return key
