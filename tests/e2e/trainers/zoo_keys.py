"""For every graph of the zoo, compares torch's own key with the key of the graph after capture and rebuild.

Nothing is compiled: torch is stopped once it has computed its key. It prints one JSON row for each graph, with those
parts of the key that differ. Of the zoo it takes the part K/N that it is given: each N-th entry.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from typing import Any

import torch
from torch._functorch._aot_autograd import autograd_cache
from torch._inductor import compile_fx

from benches.zoo.models import ZOO
from compile_client.graphs.capture import CannotCarryError, capture
from compile_torch.key.key_parts import PARTS, full_key, gathered_parts
from compile_torch.messages import replace_messages
from compile_torch.settings import daemon_settings
from compile_torch.versions import torch_version
from compile_wire.graph.decode import decode_graph
from compiler_daemon.worker.rebuild import rebuild


class Enough(BaseException):
    """Raised to stop torch once it has computed its key."""


version = torch_version()
assert version is not None
seen: list[tuple[str, list[str], bool]] = []
dynamic_shapes: bool | None = None
original_key, original_compile = autograd_cache.autograd_cache_key, compile_fx.compile_fx
logger = logging.getLogger(autograd_cache.__name__)
logger.setLevel(logging.DEBUG)  # only at this level does torch log the parts of its key
logger.handlers, logger.propagate = [logging.NullHandler()], False


def stopping_key(gm: Any, inputs: Any, config: Any, *args: Any) -> Any:
    if dynamic_shapes is not None:
        config = dataclasses.replace(config, dynamic_shapes=dynamic_shapes)
    key, parts = original_key(gm, inputs, config, *args)
    gathered = gathered_parts(version, inputs)
    parts += [f"{name}: {gathered[name]}" for name in PARTS]
    seen.append((full_key(key, gathered), parts, config.dynamic_shapes))
    raise Enough


def key_of(gm: Any, inputs: Any) -> tuple[str, list[str], bool] | None:
    seen.clear()
    try:
        original_compile(gm, inputs)
    except Enough:
        return seen[0]
    return None


def compare(gm: Any, inputs: Any, **_: Any) -> Any:
    global dynamic_shapes  # noqa: PLW0603 - read by the key function that torch calls in between
    with daemon_settings():
        replace_messages(gm)
        theirs = key_of(gm, inputs)
        if theirs is None:
            print(json.dumps({**case, "outcome": "uncacheable"}), flush=True)
            return gm.forward
        try:
            data = capture(gm, inputs, dynamic_shapes=theirs[2])
        except CannotCarryError as error:
            print(json.dumps({**case, "outcome": "not_carried", "why": str(error)}), flush=True)
            return gm.forward
        spec = decode_graph(data)
        rebuilt = rebuild(spec)
        dynamic_shapes = spec.dynamic_shapes
        try:
            with torch._guards.tracing(torch._guards.TracingContext(rebuilt.fake_mode)):
                ours = key_of(rebuilt.gm, rebuilt.inputs)
        finally:
            dynamic_shapes = None
    assert ours is not None
    differing = sorted(set(theirs[1]) ^ set(ours[1]))
    outcome = "equal" if theirs[0] == ours[0] else "differs"
    print(
        json.dumps({**case, "outcome": outcome, "bytes": len(data), "parts": [part[:200] for part in differing]}),
        flush=True,
    )
    return gm.forward


autograd_cache.autograd_cache_key = stopping_key
compile_fx.compile_fx = compare
part, parts = map(int, sys.argv[1].split("/"))
for entry in ZOO[part - 1 :: parts]:
    for dynamic in entry.dynamic:
        case = {"name": entry.name, "dynamic": str(dynamic)}
        torch._dynamo.reset()
        torch.manual_seed(0)
        function, arguments = entry.make()
        torch.compile(function, dynamic=dynamic)(*arguments)
