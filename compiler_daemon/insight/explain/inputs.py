"""The inputs of two graphs compared: matched by where they come from, told in groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from compile_wire.graph.spec import GraphSpec, TensorSpec, Value, tensor_from
from compiler_daemon.insight.explain.difference import Difference
from compiler_daemon.insight.explain.words import Words, spans

_MAX_NAMES = 4


@dataclass(frozen=True, slots=True)
class _Input:
    number: int
    name: str
    value: Value
    static: str

    @property
    def tensor(self) -> TensorSpec | None:
        return tensor_from(self.value) if isinstance(self.value, list) and self.value[:1] == ["T"] else None

    @property
    def symbolic(self) -> bool:
        return isinstance(self.value, list) and self.value[:1] == ["x"]


@dataclass(frozen=True, slots=True)
class _Aspect:
    """One way in which one input differs."""

    kind: str
    text: str
    """For this input alone."""
    group: str
    """The same for all inputs that differ in the same way."""


@dataclass(frozen=True, slots=True)
class ComparedInputs:
    """Holds the differences between two graphs' inputs, and which inputs were matched."""

    differences: list[Difference]
    sizes: frozenset[tuple[int, int]]
    """Sizes that differ, as (ours, theirs): numbers in the graph that differ in the same way only follow."""
    dynamic: bool
    """Whether one has symbolic sizes where the other has numbers."""
    pairs: dict[int, int]
    """Inputs of ours, and which of theirs each was compared with."""


def compare_inputs(ours: GraphSpec, theirs: GraphSpec) -> ComparedInputs:
    """Compare what two graphs are called with."""
    words, other_words = Words(ours), Words(theirs)
    mine, others = _inputs(ours, words), _inputs(theirs, other_words)
    pairs, renamed = _matched(mine, others)
    sizes: set[tuple[int, int]] = set()
    dynamic = ours.dynamic_shapes != theirs.dynamic_shapes
    grouped: dict[tuple[str, str], list[tuple[_Input, str]]] = defaultdict(list)
    for a, b in pairs:
        first, second = a.tensor, b.tensor
        if first is None or second is None:
            if a.symbolic and b.symbolic:
                continue
            if a.value != b.value:
                kind = "dynamic" if a.symbolic or b.symbolic else "inputs"
                dynamic |= kind == "dynamic"
                text = f"{words.value(a.value)}, was {other_words.value(b.value)}"
                grouped[kind, text].append((a, text))
            continue
        for size, other in zip(first.shape, second.shape, strict=False):
            if isinstance(size, int) and isinstance(other, int) and size != other:
                sizes.add((size, other))
        for aspect in _aspects(first, second, words, other_words):
            dynamic |= aspect.kind == "dynamic"
            grouped[aspect.kind, aspect.group].append((a, aspect.text))
        if a.static != b.static:
            text = f"{'static' if a.static else 'not static'} for dynamo, was {'static' if b.static else 'not'}"
            grouped["parameter", text].append((a, text))
    found = [_told(kind, group, members) for (kind, group), members in grouped.items()]
    found += _sharing(pairs)
    if renamed:
        texts = [f"input {a.number} comes from {a.name}, was {b.name}" for a, b in renamed[:_MAX_NAMES]]
        more = f" and {len(renamed) - _MAX_NAMES} more" if len(renamed) > _MAX_NAMES else ""
        found.append(Difference(kind="source", text="; ".join(texts) + more, cost=0.5 + 0.1 * len(renamed)))
    found += _left_over(mine, others, pairs, dynamic=dynamic)
    return ComparedInputs(found, frozenset(sizes), dynamic, {a.number: b.number for a, b in pairs})


def _inputs(spec: GraphSpec, words: Words) -> list[_Input]:
    placeholders = [node for node in spec.modules[0].nodes if node.op == "placeholder"]
    listed = []
    for number, value in enumerate(spec.inputs):
        node = placeholders[number] if number < len(placeholders) else None
        name = words.source(node.source) if node is not None and node.source >= 0 else (node.target if node else "")
        listed.append(_Input(number, name, value, node.static if node else ""))
    return listed


def _matched(
    mine: Sequence[_Input], others: Sequence[_Input]
) -> tuple[list[tuple[_Input, _Input]], list[tuple[_Input, _Input]]]:
    """Return pairs, and those of them that have another name: the rest is paired in order, tensors with tensors."""
    by_name: dict[str, list[_Input]] = defaultdict(list)
    for item in reversed(others):
        by_name[item.name].append(item)
    pairs: list[tuple[_Input, _Input]] = []
    left: list[_Input] = []
    for item in mine:
        if by_name[item.name]:
            pairs.append((item, by_name[item.name].pop()))
        else:
            left.append(item)
    used = {b.number for _, b in pairs}
    free = [item for item in others if item.number not in used]
    renamed: list[tuple[_Input, _Input]] = []
    if len(left) == len(free):
        renamed = [(a, b) for a, b in zip(left, free, strict=True) if (a.tensor is None) == (b.tensor is None)]
    return sorted(pairs + renamed, key=lambda pair: pair[0].number), renamed


def _aspects(a: TensorSpec, b: TensorSpec, words: Words, other_words: Words) -> Iterator[_Aspect]:
    def plain(kind: str, text: str) -> _Aspect:
        return _Aspect(kind, text, text)

    if a.dtype != b.dtype:
        yield plain("dtype", f"dtype {a.dtype}, was {b.dtype}")
    if (a.device, a.device_index) != (b.device, b.device_index):
        yield plain("device", f"device {_device(a)}, was {_device(b)}")
    shape, other_shape = words.sizes(a.shape), other_words.sizes(b.shape)
    dynamic = [isinstance(size, list) for size in a.shape] != [isinstance(size, list) for size in b.shape]
    if shape != other_shape:
        if dynamic and len(a.shape) == len(b.shape):
            more = sum(isinstance(size, list) for size in a.shape) > sum(isinstance(size, list) for size in b.shape)
            text = f"shape {shape} is {'dynamic' if more else 'static'}, was {other_shape}"
            yield _Aspect("dynamic", text, "dynamic sizes, were static" if more else "static sizes, were dynamic")
        else:
            changed = [
                f"dimension {place} is {words.size(size)}, was {other_words.size(other)}"
                for place, (size, other) in enumerate(zip(a.shape, b.shape, strict=False))
                if words.size(size) != other_words.size(other)
            ]
            same_rank = len(a.shape) == len(b.shape)
            text = f"shape {shape}, was {other_shape}"
            yield _Aspect("shape", text, ", ".join(changed) if same_rank else text)
    moved = not dynamic and not _same_layout(a, b, words, other_words)
    if moved:
        yield plain("stride", f"stride {words.sizes(a.stride)}, was {other_words.sizes(b.stride)}")
    if words.size(a.offset) != other_words.size(b.offset):
        yield plain("memory", f"storage offset {words.size(a.offset)}, was {other_words.size(b.offset)}")
    if a.requires_grad != b.requires_grad:
        yield plain("requires_grad", f"requires_grad {a.requires_grad}, was {b.requires_grad}")
    elif a.leaf != b.leaf:
        yield plain("parameter", "a leaf, was computed" if a.leaf else "computed, was a leaf")
    if a.parameter != b.parameter:
        yield plain("parameter", "a parameter, was a tensor" if a.parameter else "a tensor, was a parameter")
    if a.inference != b.inference:
        yield plain("memory", f"made in inference mode: {a.inference}, was {b.inference}")
    if a.view != b.view and not moved:
        yield plain("memory", "a view, was none" if a.view else "no view, was one")


def _same_layout(a: TensorSpec, b: TensorSpec, words: Words, other_words: Words) -> bool:
    """Return whether strides are equal, or differ only because shapes do: dense, in the same order of dimensions."""
    if words.sizes(a.stride) == other_words.sizes(b.stride):
        return True
    if len(a.shape) != len(b.shape):
        return True  # the shape says it
    if words.sizes(a.shape) == other_words.sizes(b.shape):
        return False
    first, second = _dense_order(a), _dense_order(b)
    if first is None or second is None:
        return True
    if first == [-1] or second == [-1]:
        return first == second
    common = set(first) & set(second)
    return [place for place in first if place in common] == [place for place in second if place in common]


def _dense_order(tensor: TensorSpec) -> list[int] | None:
    """Return dimensions from the innermost on, less those of size 1, which may stand anywhere.

    `[-1]` where there are gaps; None where symbols are among the sizes.
    """
    sizes = [
        (size, stride, place) for place, (size, stride) in enumerate(zip(tensor.shape, tensor.stride, strict=True))
    ]
    if any(isinstance(part, list) for size, stride, _ in sizes for part in (size, stride)):
        return None
    expected, order = 1, []
    for size, stride, place in sorted(sizes, key=lambda item: (item[1], -item[2])):
        if size == 1:
            continue
        if stride != expected:
            return [-1]
        expected *= size
        order.append(place)
    return order


def _device(tensor: TensorSpec) -> str:
    return tensor.device if tensor.device_index is None else f"{tensor.device}:{tensor.device_index}"


def _told(kind: str, group: str, members: Sequence[tuple[_Input, str]]) -> Difference:
    cost = (2.0 if kind == "dynamic" else 1.0) + 0.05 * len(members)
    texts = {text for _, text in members}
    if len(members) == 1:
        item, text = members[0]
        return Difference(kind=kind, text=f"input {item.number}{_named(item)}: {text}", cost=cost)
    text = texts.pop() if len(texts) == 1 else group
    return Difference(kind=kind, text=f"inputs {spans([item.number for item, _ in members])}: {text}", cost=cost)


def _named(item: _Input) -> str:
    return f" ({item.name})" if item.name else ""


def _sharing(pairs: Sequence[tuple[_Input, _Input]]) -> list[Difference]:
    """Return which inputs share memory: torch compiles another graph where they do and one is written to."""
    owners: tuple[dict[int, int], dict[int, int]] = ({}, {})
    found = []
    for place, (a, b) in enumerate(pairs):
        shared = []
        for side, item in enumerate((a.tensor, b.tensor)):
            owner = place if item is None or item.storage < 0 else owners[side].setdefault(item.storage, place)
            shared.append(owner)
        if shared[0] != shared[1]:
            now, before = (
                "its own memory" if owner == place else f"the memory of input {pairs[owner][0].number}"
                for owner in shared
            )
            found.append(Difference(kind="memory", text=f"input {a.number}{_named(a)}: {now}, was {before}"))
    return found[:_MAX_NAMES]


def _left_over(
    mine: Sequence[_Input], others: Sequence[_Input], pairs: Sequence[tuple[_Input, _Input]], *, dynamic: bool
) -> list[Difference]:
    found = []
    for word, listed, used in (
        ("more", mine, {a.number for a, _ in pairs}),
        ("fewer", others, {b.number for _, b in pairs}),
    ):
        # Symbolic sizes become inputs of their own: told as dynamic shapes already.
        extra = [item for item in listed if item.number not in used and not (dynamic and item.symbolic)]
        if extra:
            names = ", ".join(item.name or str(item.number) for item in extra[:_MAX_NAMES])
            names += " ..." if len(extra) > _MAX_NAMES else ""
            plural = "" if len(extra) == 1 else "s"
            text = f"{len(extra)} input{plural} {word}: {names}"
            found.append(Difference(kind="inputs", text=text, cost=1.0 + 0.2 * len(extra)))
    return found
