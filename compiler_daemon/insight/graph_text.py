"""A GraphSpec as text for people: Python-like code with shapes, its inputs, its symbols and settings.

Reads the data only: nothing of torch is imported and nothing is looked up. The text of an untrusted graph is bounded
and holds no control characters, so that a terminal shows it as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from compile_wire.graph.spec import GraphSpec, ModuleSpec, NodeSpec, TensorSpec, Value, dtensor_from, tensor_from

_MAX_TEXT = 240
"""Characters of one expression, source or argument list: a shared part may be written out only so often."""

_PART = re.compile(r"\._(?:modules|parameters|buffers)\['([^']*)'\]")
"""How dynamo reaches what a program calls `.name`."""

_DTYPES = {
    "bfloat16": "bf16", "float64": "f64", "float32": "f32", "float16": "f16", "complex64": "c64", "complex128": "c128",
    "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64", "uint8": "u8", "uint16": "u16", "uint32": "u32",
    "uint64": "u64", "bool": "b8",
}  # fmt: skip
"""As torch's own graph printer abbreviates them."""

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**", "matmul": "@",
    "and_": "&", "or_": "|", "xor": "^", "lshift": "<<", "rshift": ">>", "eq": "==", "ne": "!=", "lt": "<", "le": "<=",
    "gt": ">", "ge": ">=", "is_": "is", "is_not": "is not",
}  # fmt: skip
_INPLACE = {
    "iadd": "+=", "isub": "-=", "imul": "*=", "itruediv": "/=", "ifloordiv": "//=", "imod": "%=", "ipow": "**=",
    "imatmul": "@=", "iand": "&=", "ior": "|=", "ixor": "^=",
}  # fmt: skip
_EXPRESSIONS = {
    "Add": " + ", "Mul": "*", "Pow": "**", "FloorDiv": "//", "CleanDiv": "//", "Mod": " % ", "PythonMod": " % ",
    "FloatTrueDiv": "/", "IntTrueDiv": "/", "PowByNatural": "**", "Equality": " == ", "Unequality": " != ",
    "StrictLessThan": " < ", "LessThan": " <= ", "StrictGreaterThan": " > ", "GreaterThan": " >= ", "And": " & ",
    "Or": " | ",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class InputText:
    """One input of a graph."""

    name: str
    kind: str
    """`f32[s77, 4]`, `Sym(s77)`, or a number."""
    stride: str
    """Empty for what is no tensor."""
    device: str
    parameter: bool
    requires_grad: bool
    source: str
    """Where dynamo takes it from, as Python would write it; empty where it does not say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SymbolText:
    """One symbolic size."""

    name: str
    hint: str
    range: str
    source: str


class GraphText:
    """One graph, checked before (`compile_wire.graph.decode.decode_graph`), as text."""

    def __init__(self, spec: GraphSpec) -> None:
        self._spec = spec
        self._expressions: list[str] = []
        for row in spec.expressions:
            self._expressions.append(_short(self._expression(row)))
        self._sources: list[str] = []
        for row in spec.sources:
            self._sources.append(_short(_PART.sub(r".\1", self._source(row))))

    def code(self) -> str:
        """Return the graph as readable code, bodies of higher-order operators first."""
        names = {0: "forward"}
        for module in self._spec.modules:
            names.update(zip(module.bodies, module.children, strict=True))
        return "\n\n".join(
            "\n".join(self._module(self._spec.modules[row], names.get(row, f"body_{row}"), top=row == 0))
            for row in reversed(range(len(self._spec.modules)))
        )

    def inputs(self) -> list[InputText]:
        """Return the inputs in their order."""
        placeholders = [node for node in self._spec.modules[0].nodes if node.op == "placeholder"]
        return [
            self._input(value, placeholders[number] if number < len(placeholders) else None, number)
            for number, value in enumerate(self._spec.inputs)
        ]

    def symbols(self) -> list[SymbolText]:
        """Return the symbolic sizes: what this run had for them, and what they may be."""
        return [
            SymbolText(
                name=_clean(symbol.name),
                hint=_clean(str(symbol.hint)),
                range=f"{self._bound(symbol.lower, '-oo')} to {self._bound(symbol.upper, 'oo')}",
                source=self._sources[symbol.source] if symbol.source >= 0 else "",
            )
            for symbol in self._spec.symbols
        ]

    def settings(self) -> dict[str, str]:
        """Return the compile settings that differ from torch's defaults, by their full names."""
        return {
            f"{room}.{_clean(name)}": self._value(value, None)
            for room, values in (("inductor", self._spec.inductor), ("functorch", self._spec.functorch))
            for name, value in values.items()
        }

    def tensor(self, tensor: TensorSpec) -> str:
        """Return a tensor's type and shape: `f32[8, 3, 32, 32]`."""
        sizes = ", ".join(self._value(size, None) for size in tensor.shape)
        return f"{_DTYPES.get(tensor.dtype, _clean(tensor.dtype))}[{sizes}]"

    def _input(self, value: Value, node: NodeSpec | None, number: int) -> InputText:
        name = _clean(node.name) if node else f"input {number}"
        source = self._sources[node.source] if node and node.source >= 0 else ""
        if not _is_tensor(value):
            symbolic = isinstance(value, list) and value[0] not in {"D", "M"}
            kind = f"Sym({self._value(value, None)})" if symbolic else self._value(value, None)
            return InputText(
                name=name, kind=kind, stride="", device="", parameter=False, requires_grad=False, source=source
            )
        tensor = tensor_from(value)
        index = "" if tensor.device_index is None else f":{tensor.device_index}"
        return InputText(
            name=name,
            kind=self.tensor(tensor),
            stride=self._value(["t", *tensor.stride], None),
            device=_clean(tensor.device) + index,
            parameter=tensor.parameter,
            requires_grad=tensor.requires_grad,
            source=source,
        )

    def _module(self, module: ModuleSpec, name: str, *, top: bool) -> Iterator[str]:
        yield f"def {_clean(name)}("
        inputs = iter(self.inputs() if top else ())
        for node in module.nodes:
            if node.op == "placeholder":
                given = next(inputs, None)
                yield f"    {_clean(node.name)}{_annotation(given) if given else ','}"
        yield "):"
        for kind, held, tensor in module.tensors:
            yield f"    # {kind} {_clean(held)}: {self.tensor(tensor_from(tensor))}"
        for node in module.nodes:
            if node.op != "placeholder":
                yield f"    {self._node(node, module.nodes)}"

    def _node(self, node: NodeSpec, nodes: Sequence[NodeSpec]) -> str:
        def text(value: Value) -> str:
            return self._value(value, nodes)

        args = [text(item) for item in _items(node.args)]
        if node.op == "output":
            return f"return {_short(args[0] if len(args) == 1 else ', '.join(args))}"
        shape = f": {self.tensor(tensor_from(node.value))}" if _is_tensor(node.value) else ""
        target = f"{_clean(node.name)}{shape}"
        if node.op == "get_attr":
            return f"{target} = self.{_clean(node.target)}"
        kwargs = _items(node.kwargs)
        named = [
            f"{_clean(key) if isinstance(key, str) else text(key)}={text(value)}"
            for key, value in zip(kwargs[::2], kwargs[1::2], strict=False)
        ]
        if node.op == "call_method" and args:
            return f"{target} = {args[0]}.{_clean(node.target)}({_short(', '.join(args[1:] + named))})"
        return f"{target} = {_call(node.target, args, named)}"

    def _value(self, value: Value, nodes: Sequence[NodeSpec] | None) -> str:
        if isinstance(value, str):
            return repr(_short(value))
        if not isinstance(value, list):
            return repr(value)
        tag, items = value[0], value[1:]
        written = _VALUES.get(tag)
        if written is not None:
            return written(items)
        if tag in ("l", "t", "z"):
            inner = ", ".join(self._value(item, nodes) for item in items)
            return _short(f"[{inner}]" if tag == "l" else f"({inner},)" if len(items) == 1 else f"({inner})")
        if tag == "d":
            pairs = zip(items[::2], items[1::2], strict=False)
            return _short(
                "{" + ", ".join(f"{self._value(key, nodes)}: {self._value(item, nodes)}" for key, item in pairs) + "}"
            )
        if tag == "s":
            return _short(":".join("" if item is None else self._value(item, nodes) for item in items)).removesuffix(
                ":"
            )
        if tag == "n":
            return _clean(nodes[items[0]].name) if nodes is not None else f"%{items[0]}"
        if tag == "x":
            return self._expressions[items[0]]
        if tag == "S":
            return self._sources[items[0]]
        if tag == "D":
            spec = dtensor_from(value)
            lies = ", ".join(self._value(placement, nodes) for placement in spec.placements)
            whole, part = self._value(["l", *spec.shape[1:]], None), self.tensor(tensor_from(spec.part))
            return _short(f"DTensor {whole} ({lies}) on mesh {spec.mesh}, of which {part}")
        return self.tensor(tensor_from(value)) if tag == "T" else "?"

    def _bound(self, row: Value, missing: str) -> str:
        text = self._expressions[row] if isinstance(row, int) else missing
        return text.replace("int_oo", "oo")

    def _expression(self, row: Value) -> str:
        head, arguments = row[0], row[1:]
        if head in ("Integer", "Symbol"):
            return _clean(str(arguments[0])) if arguments else _clean(head)
        if head == "Rational":
            return _clean("/".join(str(part) for part in arguments))
        if head == "Float":
            return _float_text(arguments)
        parts = [self._expressions[part] if isinstance(part, int) else _clean(str(part)) for part in arguments]
        if head in _EXPRESSIONS and len(parts) > 1:
            joined = _EXPRESSIONS[head].join(parts)
            return joined if head == "Mul" else f"({joined})"
        return f"{_clean(head)}({', '.join(parts)})" if parts else _clean(head)

    def _source(self, row: Value) -> str:
        head = row[0]
        fields = dict(zip(row[1][::2], row[1][1::2], strict=True))
        base = self._value(fields["base"], None) if isinstance(fields.get("base"), list) else ""
        if not base:
            name = fields.get("local_name", fields.get("global_name"))
            return _clean(name) if isinstance(name, str) else _clean(head)
        member = fields.get("member")
        if isinstance(member, str):
            return f"{base}.{_clean(member)}"
        if "index" in fields:
            return f"{base}[{self._value(fields['index'], None)}]"
        match fields.get("prop"):
            case ["E", _, str(name)]:
                index = fields.get("idx")
                return f"{base}.{_clean(name).lower()}()" + (f"[{index}]" if isinstance(index, int) else "")
        return base


def _call(target: str, args: list[str], named: list[str]) -> str:
    room, _, name = target.rpartition(".")
    if room == "operator" and not named:
        if name in _INFIX and len(args) == 2:
            return _short(f"{args[0]} {_INFIX[name]} {args[1]}")
        if name in _INPLACE and len(args) == 2:
            return _short(f"{args[0]}  # {_INPLACE[name]} {args[1]}, in place")
        if name == "getitem" and len(args) == 2:
            return _short(f"{args[0]}[{_index(args[1])}]")
        if name == "setitem" and len(args) == 3:
            return _short(f"None  # {args[0]}[{_index(args[1])}] = {args[2]}")
    if target == "getattr" and len(args) == 2:
        return f"{args[0]}.{args[1].strip(chr(39))}"
    return f"{_function(target)}({_short(', '.join(args + named))})"


def _index(text: str) -> str:
    return text[1:-1].removesuffix(",") if text.startswith("(") and text.endswith(")") else text


def _function(name: str) -> str:
    kind, _, rest = name.partition(":")
    if not rest:
        return _clean(name)
    return _clean(f"torch.ops.{rest}" if kind == "op" else f"torch.ops.higher_order.{rest}" if kind == "hop" else rest)


def _annotation(given: InputText) -> str:
    marks = ["parameter"] if given.parameter else ["requires_grad"] if given.requires_grad else []
    if given.source:
        marks.append(given.source)
    return f": {given.kind}," + (f"  # {', '.join(marks)}" if marks else "")


def _items(value: Value) -> list[Value]:
    return value[1:] if isinstance(value, list) and value[:1] in (["t"], ["l"], ["d"]) else [value]


def _is_tensor(value: Value) -> bool:
    return isinstance(value, list) and value[:1] == ["T"]


def _float_text(arguments: Sequence[Value]) -> str:
    try:
        return repr(float.fromhex(str(arguments[0])))
    except (ValueError, IndexError, OverflowError):
        return "Float"


def _clean(text: str) -> str:
    """Return the text without control characters, and whatever else changes how a terminal shows what follows."""
    return _short("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: _MAX_TEXT + 1]))


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "\N{HORIZONTAL ELLIPSIS}"


def placed(items: list[Any]) -> str:
    """Return what a placement is told beside its kind, empty where that is nothing."""
    return ", ".join(str(item) for item in items if item is not None)


_VALUES: dict[str, Callable[[list[Any]], str]] = {
    "i": lambda items: _short(items[0]),
    "c": lambda items: repr(complex(items[0], items[1])),
    "e": lambda items: "...",
    "dt": lambda items: f"torch.{_clean(items[0])}",
    "ly": lambda items: f"torch.{_clean(items[0])}",
    "mf": lambda items: f"torch.{_clean(items[0])}",
    "dv": lambda items: f"device({_clean(items[0])!r}" + (")" if items[1] is None else f", {items[1]})"),
    "f": lambda items: _function(items[0]),
    "M": lambda items: f"mesh {items[0]}",
    "P": lambda items: _clean(items[0]) + (f"({given})" if (given := placed(items[1:])) else ""),
    "?": lambda items: "?",
    "E": lambda items: f"{_clean(items[0])}.{_clean(items[1])}",
}
