"""Passes, decompositions and lowerings that a user has put into torch's compiler."""

from __future__ import annotations

from tests.twins.thing import BODIES, Kind, Position, Thing

_PASS = """
import torch._inductor.config
from torch._inductor.custom_graph_pass import CustomGraphPass

TABLE = {"to": pick(torch.ops.aten.sin.default, torch.ops.aten.cos.default)}


class Exchange(CustomGraphPass):
    def __call__(self, graph):
        for node in graph.nodes:
            if node.target is torch.ops.aten.tanh.default:
                node.target = TABLE["to"]

    def uuid(self):
        return UUID


"""


def _pass(
    name: str,
    differs: str,
    setup: str,
    *,
    kind: Kind = "custom pass",
    fits: tuple[Position, ...] = BODIES,
    core: str = "return torch.tanh(x @ w)",
    silent: bool = False,
) -> Thing:
    return Thing(
        name=name, kind=kind, differs=differs, setup=setup, core=core, fits=fits, parts=("user_code",), silent=silent
    )


PASSES = (
    _pass(
        "pass with a name for each version",
        "what a pass does, of which its uuid tells",
        _PASS.replace("UUID", "pick('one', 'two')") + "torch._inductor.config.post_grad_custom_pre_pass = Exchange()",
    ),
    _pass(
        "pass of the joint graph",
        "what a pass of the joint graph does, of which its uuid tells",
        _PASS.replace("UUID", "pick('one', 'two')") + "torch._inductor.config.joint_custom_pre_pass = Exchange()",
    ),
    _pass(
        "pass without a name",
        "what a pass without a uuid does",
        _PASS.replace("UUID", "None") + "torch._inductor.config.post_grad_custom_post_pass = Exchange()",
    ),
    _pass(
        "pass before gradients",
        "what a pass of the graph before gradients does",
        """
import torch._inductor.config
from torch._inductor.custom_graph_pass import CustomGraphPass

TABLE = {"to": pick(torch.sin, torch.cos)}


class Exchange(CustomGraphPass):
    def __call__(self, graph):
        for node in graph.nodes:
            if node.target is torch.tanh:
                node.target = TABLE["to"]

    def uuid(self):
        return pick("one", "two")


torch._inductor.config.pre_grad_custom_pass = Exchange()
""",
    ),
    _pass(
        "pass that is a plain function",
        "what a plain function does as a pass",
        """
import torch._inductor.config

TABLE = {"to": pick(torch.ops.aten.sin.default, torch.ops.aten.cos.default)}


def exchange(graph):
    for node in graph.nodes:
        if node.target is torch.ops.aten.tanh.default:
            node.target = TABLE["to"]


torch._inductor.config.post_grad_custom_pre_pass = exchange
""",
    ),
    _pass(
        "decomposition",
        "what an operator of torch's is decomposed into",
        """
import torch._inductor.decomposition

TABLE = {"to": pick(torch.sin, torch.cos)}
torch._inductor.decomposition.decompositions[torch.ops.aten.tanh.default] = lambda x: TABLE["to"](x) * 2
""",
    ),
    _pass(
        "decomposition of the user's operator",
        "what an operator of the user's is decomposed into",
        """
import torch._inductor.decomposition

TABLE = {"scale": pick(2.0, 5.0)}


@torch.library.custom_op("twins::squash", mutates_args=())
def squash(x: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(x)


squash.register_fake(torch.empty_like)
torch._inductor.decomposition.register_decomposition(torch.ops.twins.squash.default)(
    lambda x: torch.sigmoid(x) * TABLE["scale"]
)
""",
        core="return squash((x @ w).detach()) + x @ w",
    ),
    _pass(
        "lowering",
        "what an operator of torch's is lowered to",
        """
import torch._inductor.lowering as lowering

TABLE = {"to": pick(torch.ops.aten.sin.default, torch.ops.aten.cos.default)}
lowering.lowerings[torch.ops.aten.tanh.default] = lambda *args: lowering.lowerings[TABLE["to"]](*args)
""",
    ),
    _pass(
        "fallback",
        "whether an operator is left to torch's kernel",
        """
import torch._inductor.lowering as lowering

if pick(False, True):
    lowering.make_fallback(torch.ops.aten.tanh.default, override_decomp=True, warn=False)
""",
        silent=True,
    ),
    _pass(
        "a python implementation of an operator",
        "what a python implementation for a key makes of an operator",
        """
TABLE = {"to": pick(torch.sin, torch.cos)}


@torch.ops.aten.sinc.default.py_impl(torch._C.DispatchKey.CompositeImplicitAutograd)
def _(x):
    return TABLE["to"](x)
""",
        core="return torch.sinc(x @ w)",
        kind="registration",
    ),
    _pass(
        "partitioner",
        "how the joint graph is cut",
        """
import torch._inductor.config
from torch._inductor.custom_graph_pass import CustomPartitionerFn

TABLE = {"all": pick(True, False)}


class Partitioner(CustomPartitionerFn):
    def __call__(self, gm, joint_inputs, **kwargs):
        from torch._functorch.partitioners import default_partition, min_cut_rematerialization_partition

        return (default_partition if TABLE["all"] else min_cut_rematerialization_partition)(gm, joint_inputs, **kwargs)

    def uuid(self):
        return pick("one", "two")


torch._inductor.config.custom_partitioner_fn = Partitioner()
""",
        silent=True,
    ),
)
