"""One program on two ranks of a group: what is compiled of a DTensor is for the rank that compiles it.

The group is torch's own for tests, which exchanges nothing: one process is either rank.
"""

from __future__ import annotations

from tests.twins.thing import Thing

_GROUP = """
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

RANK = pick(0, 1)
dist.init_process_group("fake", rank=RANK, world_size=2, store=FakeStore())
MESH = init_device_mesh("cpu", (2,))
"""


def _on_ranks(name: str, differs: str, core: str, tensors: str) -> Thing:
    return Thing(
        name=name,
        kind="rank",
        differs=differs,
        setup=_GROUP,
        core=core,
        drive=f"""
for rows in ROWS:
    with account.step(f"{{rows}} rows"):
        with torch.no_grad():
            y = run({tensors})
        account.tell(y=y.to_local() if isinstance(y, DTensor) else y)
""",
        fits=("top", "submodule"),
        parts=("ranks",),
        fresh=True,
        since=(2, 13),
    )


RANKS = (
    _on_ranks(
        "rank: half of a sum",
        "the half of a whole tensor to which the rank adds its part of another",
        "return torch.sin(x + w)",
        "DTensor.from_local(torch.arange(32.0).reshape(8, 4), MESH, [Replicate()]), "
        "DTensor.from_local(torch.ones(4, 4), MESH, [Shard(0)])",
    ),
    _on_ranks(
        "rank: part of an uneven dimension",
        "the rows that the rank has of five",
        "return torch.sin(x @ w)",
        "DTensor.from_local(torch.ones(3 - RANK, 4), MESH, [Shard(0)], shape=(5, 4), stride=(4, 1)), "
        "DTensor.from_local(torch.ones(4, 4), MESH, [Replicate()])",
    ),
    _on_ranks(
        "rank: a mesh in the graph",
        "the half of a tensor that the graph takes as the rank's",
        "return DTensor.from_local(x, MESH, [Replicate()]).redistribute(MESH, [Shard(0)]).to_local() @ w",
        "torch.arange(32.0).reshape(8, 4), torch.ones(4, 4)",
    ),
    Thing(
        name="rank: a formula asks for it",
        kind="rank",
        differs="the rank, which a user's formula for a gradient asks for",
        setup=_GROUP
        + """

@torch.library.custom_op("twins::ranked", mutates_args=())
def ranked(x: torch.Tensor) -> torch.Tensor:
    return x.sin()


@ranked.register_fake
def _(x):
    return torch.empty_like(x)


ranked.register_autograd(lambda ctx, grad: grad * (dist.get_rank() + 2.0))
""",
        core="return ranked(x) @ w",
        fits=("top",),
        parts=("ranks",),
        fresh=True,
        since=(2, 13),
    ),
)
