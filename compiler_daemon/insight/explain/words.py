"""Values, expressions and sources of a GraphSpec as a person would write them; bounded, whatever the spec holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from compile_wire.graph.spec import DTensorSpec, GraphSpec, Value, dtensor_from, tensor_from
from compiler_daemon.insight.graph_text import placed

_MAX_TEXT = 120
_MAX_DEPTH = 12
_MAX_ITEMS = 12

_PART = re.compile(r"\._(?:modules|parameters|buffers)\['([^']*)'\]")
_INFIX = {"Add": " + ", "Mul": "*", "And": " and ", "Or": " or "}
_COMPARED = {
    "Equality": "==", "Unequality": "!=", "StrictLessThan": "<", "LessThan": "<=", "StrictGreaterThan": ">",
    "GreaterThan": ">=", "Mod": "%", "PythonMod": "%", "FloorDiv": "//", "Pow": "**",
}  # fmt: skip


class Words:
    """Writes what one GraphSpec holds in words."""

    def __init__(self, spec: GraphSpec) -> None:
        self._spec = spec
        self._sources: dict[int, str] = {}
        self._expressions: dict[tuple[int, int], str] = {}
        """By row and depth: what others share is written once, or a small hostile graph would take years."""

    def source(self, row: int) -> str:
        """Return how a program would name what comes from a source: `self.layers.0.weight`."""
        if row not in self._sources:
            self._sources[row] = _shortened(_PART.sub(r".\1", self._source(row, 0)))
        return self._sources[row]

    def _source(self, row: int, depth: int) -> str:
        if not 0 <= row < len(self._spec.sources) or depth > 4 * _MAX_DEPTH:
            return "?"
        kind, pairs = self._spec.sources[row]
        fields: dict[str, Any] = dict(zip(pairs[::2], pairs[1::2], strict=True))
        name = fields.get("local_name") or fields.get("global_name")
        base = fields.get("base")
        if isinstance(base, list) and base[:1] == ["S"]:
            inner = self._source(base[1], depth + 1)
            if isinstance(member := fields.get("member"), str):
                return f"{inner}.{member}"
            if "idx" in fields:
                prop = fields.get("prop")
                what = prop[2].lower() if isinstance(prop, list) and prop[:1] == ["E"] else "size"
                return f"{inner}.{what}({fields['idx']})" if fields["idx"] is not None else f"{inner}.{what}()"
            if "index" in fields:
                return f"{inner}[{fields['index']!r}]" if not isinstance(fields["index"], list) else f"{inner}[...]"
            return inner
        return str(name) if name is not None else str(kind)

    def expression(self, row: int, depth: int = 0) -> str:
        """Return an expression of symbolic sizes: `s0*s1 + 1`."""
        found = self._expressions.get((row, depth))
        if found is None:
            found = self._expressions[row, depth] = _shortened(self._expression(row, depth))
        return found

    def _expression(self, row: int, depth: int) -> str:
        if not 0 <= row < len(self._spec.expressions) or depth > _MAX_DEPTH:
            return "..."
        head, *arguments = self._spec.expressions[row]
        if head in {"Symbol", "Integer"}:
            return str(arguments[0]) if arguments else head
        if head in {"Rational", "Float"}:
            return "/".join(str(part) for part in arguments)
        parts = [
            self.expression(part, depth + 1) if isinstance(part, int) else str(part) for part in arguments[:_MAX_ITEMS]
        ]
        if head in _INFIX:
            return _INFIX[head].join(parts)
        if head in _COMPARED and len(parts) == 2:
            return f"{parts[0]} {_COMPARED[head]} {parts[1]}"
        return f"{head}({', '.join(parts)})" if parts else head

    def size(self, value: Value) -> str:
        """Return one size of a tensor."""
        return self.expression(value[1]) if isinstance(value, list) else str(value)

    def sizes(self, values: Sequence[Value]) -> str:
        """Return a shape, or strides."""
        return f"[{', '.join(self.size(value) for value in values)}]"

    def value(self, value: Value, depth: int = 0) -> str:
        """Return an argument of a node, or a setting."""
        if depth > _MAX_DEPTH:
            return "..."
        if not isinstance(value, list):
            return _shortened(repr(value))
        tag, items = value[0], value[1:]
        match tag:
            case "l" | "t" | "z":
                inner = ", ".join(self.value(item, depth + 1) for item in items[:_MAX_ITEMS])
                return _shortened(f"[{inner}]" if tag == "l" else f"({inner})")
            case "d":
                pairs = zip(items[::2], items[1::2], strict=True)
                inner = ", ".join(f"{self.value(k, depth + 1)}: {self.value(v, depth + 1)}" for k, v in pairs)
                return _shortened("{" + inner + "}")
            case "x":
                return self.expression(items[0])
            case "n":
                return f"the result of node {items[0]}"
            case "s":
                return ":".join("" if item is None else self.value(item, depth + 1) for item in items)
            case "dv":
                return items[0] if items[1] is None else f"{items[0]}:{items[1]}"
            case "c":
                return repr(complex(items[0], items[1]))
            case "e":
                return "..."
            case "T":
                return f"a tensor of shape {self.sizes(items[0][3])}"
            case "D":
                return self._dtensor(dtensor_from(value))
            case "M":
                return f"mesh {items[0]}"
            case "P":
                return _shortened(items[0] + (f"({given})" if (given := placed(items[1:])) else ""))
            case "?":
                return "something that is not carried"
            case _:
                return _shortened(str(items[0]) if items else tag)

    def _dtensor(self, spec: DTensorSpec) -> str:
        placed = ", ".join(self.value(placement) for placement in spec.placements)
        part = self.sizes(tensor_from(spec.part).shape)
        whole = self.sizes(spec.shape[1:])
        return _shortened(f"a DTensor of shape {whole}, placed {placed}, of which the rank has {part}")


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 3]}..."


def spans(numbers: Sequence[int]) -> str:
    """Return numbers as a person lists them: `3 to 40, 44`."""
    parts: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][1] == number - 1:
            parts[-1] = (parts[-1][0], number)
        else:
            parts.append((number, number))
    texts = [str(low) if low == high else f"{low} to {high}" for low, high in parts]
    return ", ".join(texts[:8]) + (f" and {len(texts) - 8} more" if len(texts) > 8 else "")
