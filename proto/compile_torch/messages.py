"""Text for people inside of a graph: what an assertion says when it fails, and what a library logs of its use.

torch copies an assertion's message into the sources that it generates, so none crosses the wire. Where a daemon has a
part in a compile, every message is replaced by one fixed sentence, in the trainer before torch computes its key and in
the worker nothing else is accepted: both ends have the same graph. The exception stays what it is, so does its type.

A call that tells torch's log which function of a library was used gives nothing back, and none is left in what torch
compiles. It is taken out of the graph, in the trainer and before the key as well, so that no worker is given it: there
it would run, with a text that somebody else chose.

torch is imported inside the functions, because both ends share this and neither may pay for it at import.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
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


USES = ("torch._C._log_api_usage_once", "torch._C._log_api_usage_metadata")
"""Functions that only tell torch's log of a use."""


def replace_messages(gm: Any) -> None:
    """Replace the messages in a graph and in the graphs inside it, and take out what only tells a log of a use.

    Where there is neither, nothing is touched.
    """
    import torch

    for module in gm.modules():
        if isinstance(module, torch.fx.GraphModule):
            calls = [node for node in module.graph.nodes if node.op == "call_function"]
            if [node for node in calls if _taken_out(node) or _replace(node)]:
                module.recompile()


def _taken_out(node: Any) -> bool:
    if node.target not in _uses() or node.users:
        return False
    node.graph.erase_node(node)
    return True


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
    return {function: at for name, at in MESSAGE_AT.items() if (function := _found(name)) is not None}


@functools.cache
def _uses() -> frozenset[Any]:
    return frozenset(function for name in USES if (function := _found(name)) is not None)


def _found(name: str) -> Any:
    """Return a function by its name; None where this torch has none, so that no graph of it has one."""
    import operator

    import torch

    try:
        return operator.attrgetter(name.replace("op:", "ops.").removeprefix("torch."))(torch)
    except AttributeError:
        return None


def texts_in(value: Any) -> Iterator[str]:
    """Yield the text in a value, however deep, with the keys of dicts."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, (list, tuple)):
            waiting.extend(item)
        elif isinstance(item, Mapping):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, slice):
            waiting += [item.start, item.stop, item.step]
