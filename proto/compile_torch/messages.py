"""Messages for people inside of a graph: what an assertion says when it fails.

torch copies such a message into the sources that it generates, so none crosses the wire. Where a daemon has a part in
a compile, every message is replaced by one fixed sentence, in the trainer before torch computes its key and in the
worker nothing else is accepted: both ends have the same graph. The exception stays what it is, and so does its type.

torch is imported inside the functions, because both ends share this and neither may pay for it at import.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
import functools
from typing import Any

SENTENCE = "An assertion of the model failed. Its own message is shown without the compile daemon."
"""Words only: it may stand between quotes of any kind, in any language that torch generates."""

MESSAGE_AT = {
    "torch._C._autograd._saved_tensors_hooks_disable": 0,
    "torch._assert_async": 1,
    "torch._assert_scalar": 1,
    "torch._functional_assert_async": 1,
    "torch._functional_assert_scalar": 1,
    "op:aten._assert_async.msg": 1,
    "op:aten._assert_scalar.default": 1,
    "op:aten._functional_assert_async.msg": 1,
    "op:aten._functional_assert_scalar.default": 1,
}
"""Functions that take a message, with its place among their arguments."""

MESSAGE_NAMES = frozenset({"assert_msg", "message"})
"""What the message is called where it is given by its name."""


def replace_messages(gm: Any) -> None:
    """Replace the messages in a graph and in the graphs inside it. Where there are none, nothing is touched."""
    import torch

    for module in gm.modules():
        if isinstance(module, torch.fx.GraphModule):
            found = [node for node in module.graph.nodes if node.op == "call_function" and _replace(node)]
            if found:
                module.recompile()


def _replace(node: Any) -> bool:
    at = _places().get(node.target)
    if at is None:
        return False
    args, kwargs = list(node.args), dict(node.kwargs)
    if at < len(args) and isinstance(args[at], str):
        args[at] = SENTENCE
    for name in MESSAGE_NAMES & kwargs.keys():
        if isinstance(kwargs[name], str):
            kwargs[name] = SENTENCE
    if args == list(node.args) and kwargs == dict(node.kwargs):
        return False
    node.args, node.kwargs = tuple(args), kwargs
    return True


@functools.cache
def _places() -> dict[Any, int]:
    """Return the functions themselves. Not by way of the table of all functions: most processes never need that."""
    import operator

    import torch

    found = {}
    for name, at in MESSAGE_AT.items():
        path = name.replace("op:", "ops.").removeprefix("torch.")
        with contextlib.suppress(AttributeError):  # this torch has no such function, so no graph of it has one
            found[operator.attrgetter(path)(torch)] = at
    return found
