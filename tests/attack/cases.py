"""A seeded generator of graphs and kernels that try to make a worker do something other than compile.

Each case starts from a graph that compiles, in the form of the wire, and changes one to four places in it: a field
anywhere, a node that calls something, text that is put together from numbers, a region that is entered and not left.
Most cases are refused when they are read. To get further, some call an operator that is allowed, with arguments of the
types that it declares and with text wherever it takes any.
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from compile_wire.limits import MAX_GRAPH_BYTES
from compile_wire.packing import pack, unpack
from tests.attack import pools
from tests.attack.canary import QUOTED

_NODE = ["call_function", "", "", ["t"], ["d"], "", None, -1, "", ["d"]]
"""A node's row: op, name, target, args, kwargs, type, value, source, static, meta."""


@dataclass(frozen=True, slots=True)
class Case:
    """One attack: its number, the names of the changes, and the message."""

    number: int
    fields: tuple[str, ...]
    message: Any


class Generator:
    """Makes cases by number: the same seed and number always give the same case."""

    def __init__(self, seed: int, bases: list[Any], hostile: list[str]) -> None:
        self._seed = seed
        self._bases = [pack(base) for base in bases]
        self._hostile = hostile
        self._operators = pools.every_operator()
        texts = [f"op:aten.{name}" for name in pools.MAKING_TEXT]
        self._allowed = pools.allowed_operators()
        self._likely = [*pools.FUNCTIONS, *texts, *(f"{name}.default" for name in texts)]

    def case(self, number: int) -> Case:
        """Return the case with this number."""
        rng = random.Random(f"{self._seed}/{number}")
        message = unpack(rng.choice(self._bases), max_bytes=MAX_GRAPH_BYTES, what="base")
        ways: list[Callable[[random.Random, Any], str]] = [
            self._field,
            self._call,
            self._text,
            self._region,
            self._method,
            self._fitting,
        ]
        fields = tuple(
            way(rng, message)
            for way in rng.choices(ways, weights=[10, 6, 3, 2, 1, 6], k=rng.choice([1, 1, 1, 2, 2, 3, 4]))
        )
        return Case(number, fields, message)

    def _field(self, rng: random.Random, message: Any) -> str:
        """Put another value anywhere. Fields that occur rarely are chosen as often as those that occur everywhere."""
        places = _places(message)
        name = rng.choice(sorted(places))
        holder, key = rng.choice(places[name])
        before = holder[key]
        way = rng.randrange(6)
        if way == 0 and isinstance(holder, list):
            holder.insert(key, pools.value(rng, self._hostile))
        elif way == 1 and isinstance(holder, list):
            del holder[key]
        elif isinstance(before, str) or way == 2:
            holder[key] = rng.choice(self._hostile)
        elif way == 3 and isinstance(before, dict):
            before[rng.choice(self._hostile)] = pools.value(rng, self._hostile)
        elif isinstance(before, (int, float)) and way == 4:
            holder[key] = rng.choice(pools.NUMBERS)
        else:
            holder[key] = pools.value(rng, self._hostile)
        return name

    def _call(self, rng: random.Random, message: Any) -> str:
        name = rng.choice(self._operators if rng.random() < 0.6 else self._likely)
        args = [pools.value(rng, self._hostile) for _ in range(rng.randrange(4))]
        args = [["n", 0], *args] if rng.random() < 0.5 else args
        self._insert(rng, message, name, args)
        return "a node's call"

    def _text(self, rng: random.Random, message: Any) -> str:
        """Have the graph put together a text that no literal may be, while it is traced, and give it to an operator."""
        row = self._insert(rng, message, rng.choice(["op:aten.chr", "op:aten.chr.default"]), [ord(QUOTED[-1])])
        joined = self._insert(
            rng, message, rng.choice(["op:aten.join", "op:aten.add.str", "operator.add", "op:aten.add"]),
            ["", ["l", QUOTED[:-1], ["n", row]]] if rng.random() < 0.5 else [QUOTED[:-1], ["n", row]],
        )  # fmt: skip
        self._insert(rng, message, rng.choice(self._likely), [["n", 0], ["n", joined]])
        return "text put together"

    def _region(self, rng: random.Random, message: Any) -> str:
        changes = [name for name in pools.FUNCTIONS if "nesting" in name or "autocast" in name or "_C." in name]
        args = rng.choice([[], [1, "error"], ["cpu", ["dt", "bfloat16"], True, True], [True], [["n", 1]], ["x"]])
        self._insert(rng, message, rng.choice(changes), args)
        return "a state entered or left"

    def _method(self, rng: random.Random, message: Any) -> str:
        args = [["n", 0], *(pools.value(rng, self._hostile) for _ in range(rng.randrange(3)))]
        self._insert(rng, message, rng.choice(pools.METHODS), args, op="call_method")
        return "a node's method"

    def _fitting(self, rng: random.Random, message: Any) -> str:
        name, types = rng.choice(self._allowed)
        row = self._insert(rng, message, name, [pools.fitting(rng, kind, self._hostile) for kind in types])
        if rng.random() < 0.7:  # Code generation leaves out whatever the graph does not return.
            with contextlib.suppress(KeyError, IndexError, TypeError, AttributeError):
                message["modules"][0][4][-1][3] = ["t", ["t", ["n", row]]]
        return "a call that fits"

    def _insert(self, rng: random.Random, message: Any, name: str, args: list[Any], op: str = "call_function") -> int:
        """Put a node before the last one and return its row."""
        try:
            nodes = message["modules"][0][4]
            row = len(nodes) - 1
            made = copy.deepcopy(_NODE)
            made[0], made[1], made[2], made[3] = op, f"made_{row}_{rng.randrange(10**6)}", name, ["t", *args]
            nodes.insert(row, made)
        except (KeyError, IndexError, TypeError, AttributeError):  # an earlier change has broken the graph
            return 0
        return row


def _places(message: Any) -> dict[str, list[tuple[Any, Any]]]:
    """Return each place that can be changed, as its holder and its key there, grouped by the name of the field."""
    found: dict[str, list[tuple[Any, Any]]] = {}
    for name, holder, key in _walk(message, ""):
        places = found.setdefault(name, [])
        if len(places) < 40:
            places.append((holder, key))
    return found


_ROWS = {
    "modules": ["attributes", "scalars", "tensors", "training", "nodes", "children", "bodies"],
    "nodes": ["op", "name", "target", "args", "kwargs", "type", "value", "source", "static", "meta"],
    "symbols": ["name", "hint", "source", "lower", "upper", "positive", "replacement"],
}


def _walk(value: Any, name: str, depth: int = 0) -> Iterator[tuple[str, Any, Any]]:
    if depth > 8:
        return
    if isinstance(value, dict):
        for key in value:
            inner = f"{name}.{key}" if name in {"", "options"} or depth == 0 else f"{name}.*"
            yield inner, value, key
            yield from _walk(value[key], inner, depth + 1)
    elif isinstance(value, list):
        names = _ROWS.get(name.rpartition(".")[2].removesuffix("[]")) if name.endswith("[]") else None
        for key, item in enumerate(value):
            inner = f"{name.removesuffix('[]')}[].{names[key]}" if names and key < len(names) else f"{name}[]"
            inner = inner.replace("[][]", "[]")
            yield inner, value, key
            yield from _walk(item, inner, depth + 1)
