"""The nodes of two graphs compared: other operators first, then other constants where the operators are the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from compile_wire.graph.spec import GraphSpec, ModuleSpec, NodeSpec, Value
from compiler_daemon.insight.explain.difference import Difference
from compiler_daemon.insight.explain.words import Words

_MAX_TOLD = 4
_MAX_ALIGNED = 2000
"""Operators in the part of two graphs that is not the same: beyond this they are only counted."""

_TRAINING_ARGUMENTS = {
    **dict.fromkeys(
        (
            f"torch.nn.functional.{name}"
            for name in "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout".split()
        ),
        2,
    ),
    "torch.dropout": 2,
    "torch.nn.functional.batch_norm": 5,
    "torch.nn.functional.instance_norm": 5,
    "torch.nn.functional.rrelu": 3,
}
"""Operators that behave otherwise in training, and which argument says so."""

_ENTER_AUTOCAST = "torch.amp.autocast_mode._enter_autocast"


@dataclass(frozen=True, slots=True)
class _Place:
    """Two nodes that stand for each other."""

    ours: NodeSpec
    theirs: NodeSpec
    body: str


def compare_nodes(
    ours: GraphSpec, theirs: GraphSpec, *, pairs: Mapping[int, int], sizes: Collection[tuple[int, int]], dynamic: bool
) -> list[Difference]:
    """Compare what two graphs compute.

    `pairs` says which inputs stand for each other; `sizes` are sizes of inputs that differ, as (ours, theirs), and
    `dynamic` tells that one graph has symbolic sizes: both make numbers in the graph differ that say nothing new.
    """
    found: list[Difference] = []
    if len(ours.modules) != len(theirs.modules):
        text = f"{len(ours.modules) - 1} nested graphs, was {len(theirs.modules) - 1}"
        found.append(Difference(kind="operator", text=text, cost=2.0))
    words, other_words = Words(ours), Words(theirs)
    names = {row: name for module in ours.modules for name, row in zip(module.children, module.bodies, strict=True)}
    leaves = _Leaves(words, other_words, frozenset(sizes), dynamic)
    for row, (module, other) in enumerate(zip(ours.modules, theirs.modules, strict=False)):
        body = f" in the nested graph {names[row]}" if row in names else ""
        if module.training != other.training:
            text = f"the module is in {_mode(module.training)} mode, was in {_mode(other.training)} mode"
            found.append(Difference(kind="training", text=text + body))
        found += _operators(module, other, body)
        found += leaves.compare(module, other, pairs if row == 0 else None, body)
        if module.scalars != other.scalars:
            text = f"attributes {words.value(module.scalars)}, was {other_words.value(other.scalars)}"
            found.append(Difference(kind="meta", text=text + body))
        if module.tensors != other.tensors:
            found.append(Difference(kind="inputs", text=f"tensors that the graph holds itself{body}"))
    return found


def overlap(ours: GraphSpec, theirs: GraphSpec) -> float:
    """Return which part of the operators two graphs have in common, from 0 to 1."""
    mine, others = (
        Counter(_signature(node) for module in spec.modules for node in _computing(module)) for spec in (ours, theirs)
    )
    total = sum(mine.values()) + sum(others.values())
    return 2 * sum((mine & others).values()) / total if total else 1.0


def _mode(training: object) -> str:
    return "training" if training else "evaluation"


def _computing(module: ModuleSpec) -> list[NodeSpec]:
    return [node for node in module.nodes if node.op not in {"placeholder", "output"}]


def _signature(node: NodeSpec) -> str:
    return node.target if node.op.startswith("call_f") else f"{node.op} {node.target}"


def _aligned(mine: Sequence[str], others: Sequence[str]) -> list[tuple[str, int, int, int, int]]:
    """Return what `SequenceMatcher.get_opcodes` does, with equal ends taken off first and a bound on the work."""
    start = 0
    while start < min(len(mine), len(others)) and mine[start] == others[start]:
        start += 1
    end = 0
    while end < min(len(mine), len(others)) - start and mine[-1 - end] == others[-1 - end]:
        end += 1
    low, high, other_high = start, len(mine) - end, len(others) - end
    codes = [("equal", 0, start, 0, start)] if start else []
    if max(high, other_high) - low > _MAX_ALIGNED:
        codes.append(("replace", low, high, low, other_high))
    elif high > low or other_high > low:
        matcher = SequenceMatcher(None, mine[low:high], others[low:other_high], autojunk=False)
        codes += [(tag, a + low, b + low, c + low, d + low) for tag, a, b, c, d in matcher.get_opcodes()]
    if end:
        codes.append(("equal", high, len(mine), other_high, len(others)))
    return codes


def _operators(module: ModuleSpec, other: ModuleSpec, body: str) -> list[Difference]:
    mine = [_signature(node) for node in _computing(module)]
    others = [_signature(node) for node in _computing(other)]
    found: list[Difference] = []
    more: Counter[str] = Counter()
    fewer: Counter[str] = Counter()
    for tag, a, b, c, d in _aligned(mine, others):
        if tag == "equal":
            continue
        if b - a == d - c and b - a <= _MAX_TOLD and len(found) < _MAX_TOLD:
            for place in range(b - a):
                node = _computing(module)[a + place]
                text = f"operator {mine[a + place]}, was {others[c + place]} (node {node.name}){body}"
                found.append(Difference(kind="operator", text=text, cost=1.5))
            continue
        more.update(mine[a:b])
        fewer.update(others[c:d])
    # What only moved is neither more nor fewer.
    moved = more & fewer
    for word, counted in (("more", more - moved), ("fewer", fewer - moved)):
        if counted:
            total = sum(counted.values())
            listed = ", ".join(f"{name}{f' x{n}' if n > 1 else ''}" for name, n in counted.most_common(_MAX_TOLD))
            listed += f" and {len(counted) - _MAX_TOLD} other kinds" if len(counted) > _MAX_TOLD else ""
            text = f"{total} operator{'' if total == 1 else 's'} {word}: {listed}{body}"
            found.append(Difference(kind="operator", text=text, cost=1.0 + 0.3 * total))
    if moved and not found:
        text = f"{sum(moved.values())} operators stand in another order{body}"
        found.append(Difference(kind="operator", text=text, cost=1.0))
    return found


@dataclass(frozen=True, slots=True)
class _Leaf:
    """An argument that differs."""

    where: str
    ours: Value
    theirs: Value


class _Leaves:
    """Compares the arguments of nodes that stand for each other."""

    def __init__(self, words: Words, others: Words, sizes: frozenset[tuple[int, int]], dynamic: bool) -> None:
        self._words = words
        self._others = others
        self._sizes = sizes
        self._dynamic = dynamic

    def compare(
        self, module: ModuleSpec, other: ModuleSpec, inputs: Mapping[int, int] | None, body: str
    ) -> list[Difference]:
        places, numbers = _places(module, other, inputs, body)
        grouped: dict[tuple[str, str], list[str]] = {}
        rewired: list[str] = []
        for place in places:
            for leaf in _leaves(place.ours.args, place.theirs.args, "", numbers):
                self._note(place, leaf, grouped, rewired)
            for leaf in _leaves(place.ours.kwargs, place.theirs.kwargs, "", numbers):
                self._note(place, leaf, grouped, rewired)
            if place.ours.meta != place.theirs.meta:
                grouped.setdefault(("meta", "metadata"), []).append(place.ours.name)
        found = []
        for (kind, text), nodes in grouped.items():
            where = f"node {nodes[0]}" if len(nodes) == 1 else f"node {nodes[0]} and {len(nodes) - 1} more"
            found.append(Difference(kind=kind, text=f"{text} ({where}){body}", cost=1.0 + 0.05 * len(nodes)))
        if rewired:
            shown = ", ".join(rewired[:_MAX_TOLD]) + (" ..." if len(rewired) > _MAX_TOLD else "")
            text = f"{len(rewired)} operator{'' if len(rewired) == 1 else 's'} with other operands: {shown}{body}"
            found.append(Difference(kind="wiring", text=text, cost=1.0 + 0.2 * len(rewired)))
        return found

    def _note(self, place: _Place, leaf: _Leaf, grouped: dict[tuple[str, str], list[str]], rewired: list[str]) -> None:
        node = place.ours
        if any(isinstance(part, list) and part[:1] == ["n"] for part in (leaf.ours, leaf.theirs)):
            if node.name not in rewired and not self._dynamic:
                rewired.append(node.name)
            return
        symbolic = any(isinstance(part, list) and part[:1] == ["x"] for part in (leaf.ours, leaf.theirs))
        now, before = self._words.value(leaf.ours), self._others.value(leaf.theirs)
        if now == before or (symbolic and self._dynamic) or self._follows(leaf):
            return
        argument = leaf.where or "argument 0"
        if _TRAINING_ARGUMENTS.get(node.target) == _position(leaf.where) or leaf.where == "training":
            text = (
                f"the module is in {_mode(leaf.ours)} mode, was in {_mode(leaf.theirs)} mode: "
                f"{node.target} has training={now}, was {before}"
            )
            grouped.setdefault(("training", text), []).append(node.name)
        elif node.target == _ENTER_AUTOCAST:
            what = {"argument 0": "device", "argument 1": "dtype", "argument 2": "enabled"}.get(argument, argument)
            grouped.setdefault(("autocast", f"autocast {what} {now}, was {before}"), []).append(node.name)
        else:
            text = f"constant {now}, was {before}: {argument} of {node.target}"
            grouped.setdefault(("constant", text), []).append(node.name)

    def _follows(self, leaf: _Leaf) -> bool:
        """Return whether a number differs as a size of an input does: `view(16, -1)` where a batch of 16 came in."""
        both = (leaf.ours, leaf.theirs)
        return type(leaf.ours) is type(leaf.theirs) is int and both in self._sizes


def _position(where: str) -> int | None:
    head, _, number = where.partition(" ")
    return int(number) if head == "argument" and number.isdigit() else None


def _places(
    module: ModuleSpec, other: ModuleSpec, inputs: Mapping[int, int] | None, body: str
) -> tuple[list[_Place], dict[int, int]]:
    """Return the nodes that stand for each other, and their numbers in the two graphs, ours to theirs."""
    rows, other_rows = _rows(module), _rows(other)
    numbers: dict[int, int] = {}
    places = [row for row, node in enumerate(module.nodes) if node.op == "placeholder"]
    other_places = [row for row, node in enumerate(other.nodes) if node.op == "placeholder"]
    for number, row in enumerate(places):
        partner = number if inputs is None else inputs.get(number, -1)
        if 0 <= partner < len(other_places):
            numbers[row] = other_places[partner]
    found = []
    mine, others = (
        [_signature(listed.nodes[row]) for row in kept] for listed, kept in ((module, rows), (other, other_rows))
    )
    for tag, a, b, c, d in _aligned(mine, others):
        if b - a != d - c:
            continue
        for place in range(b - a):
            row, partner = rows[a + place], other_rows[c + place]
            numbers[row] = partner
            if tag == "equal":
                found.append(_Place(module.nodes[row], other.nodes[partner], body))
    for row, node in enumerate(module.nodes):
        if node.op == "output" and other.nodes and other.nodes[-1].op == "output":
            found.append(_Place(node, other.nodes[-1], body))
            numbers[row] = len(other.nodes) - 1
    return found, numbers


def _rows(module: ModuleSpec) -> list[int]:
    return [row for row, node in enumerate(module.nodes) if node.op not in {"placeholder", "output"}]


def _leaves(ours: Value, theirs: Value, where: str, numbers: Mapping[int, int]) -> Iterator[_Leaf]:
    """Yield the innermost values that differ; results of nodes that stand for each other do not."""
    if isinstance(ours, list) and isinstance(theirs, list) and ours[:1] == theirs[:1]:
        tag = ours[0]
        if tag == "n":
            if numbers.get(ours[1], None) not in (theirs[1], None):
                yield _Leaf(where, ours, theirs)
            return
        if tag in {"l", "t", "z"} and len(ours) == len(theirs):
            for number, (mine, other) in enumerate(zip(ours[1:], theirs[1:], strict=True)):
                yield from _leaves(mine, other, where or f"argument {number}", numbers)
            return
        if tag == "d" and ours[1::2] == theirs[1::2]:
            for name, mine, other in zip(ours[1::2], ours[2::2], theirs[2::2], strict=True):
                yield from _leaves(mine, other, where or str(name), numbers)
            return
    # 1 is no True, and 2 no 2.0: torch compiles another graph.
    if ours != theirs or type(ours) is not type(theirs):
        yield _Leaf(where, ours, theirs)
