"""Checks that a graph leaves each state of torch's that it enters: such nodes stand in pairs, one inside the other.

dynamo closes every region that it opens. A graph that does not would leave its state in the worker that traces it.
"""

from __future__ import annotations

from collections.abc import Iterable

from compile_wire.errors import MalformedError
from compile_wire.graph.spec import NodeSpec

_FUNCTORCH = "functorch"

_ENTERS = {
    "torch.amp.autocast_mode._enter_autocast": "autocast",
    "torch._C._autograd._saved_tensors_hooks_disable": "hooks",
    "torch._C._functorch._grad_increment_nesting": "grad",
    "torch._functorch.predispatch._vmap_increment_nesting": "vmap",
}
_LEAVES = {
    "torch.amp.autocast_mode._exit_autocast": "autocast",
    "torch._C._autograd._saved_tensors_hooks_enable": "hooks",
    "torch._C._functorch._grad_decrement_nesting": "grad",
    "torch._functorch.predispatch._vmap_decrement_nesting": "vmap",
}
_STACKS = {"autocast": "autocast", "hooks": "hooks", "grad": _FUNCTORCH, "vmap": _FUNCTORCH}
"""Transforms of functorch's share one stack; the others have one of their own."""


def check_pairs(nodes: Iterable[NodeSpec]) -> None:
    """Raise `MalformedError` where the nodes of one graph leave what they have not entered, or do not leave it."""
    stacks: dict[str, list[tuple[str, int]]] = {stack: [] for stack in _STACKS.values()}
    for row, node in enumerate(nodes):
        if node.op != "call_function":
            continue
        if (kind := _ENTERS.get(node.target)) is not None:
            stacks[_STACKS[kind]].append((kind, row))
        elif (kind := _LEAVES.get(node.target)) is not None:
            stack = stacks[_STACKS[kind]]
            if not stack or stack[-1][0] != kind:
                raise MalformedError(f"node {node.name} leaves what its graph has not entered: {node.target}")
            _, entered = stack.pop()
            # The region of an autocast is handed to the node that ends it; the others have none.
            if kind == "autocast" and node.args != ["t", ["n", entered]]:
                raise MalformedError(f"node {node.name} ends another autocast than the last")
    for stack in stacks.values():
        if stack:
            raise MalformedError(f"the graph enters what it does not leave: {stack[-1][0]}")
