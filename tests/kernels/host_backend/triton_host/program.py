"""Reads a binary and runs it: straight-line TTIR, with one numpy array for each value.

Pointers are addresses. A masked load or store touches only the memory of the active lanes.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from typing import Any

import numpy as np

HEADER = b"HOST KERNEL 1\n"

_TYPES = {
    "i1": np.bool_,
    "i8": np.int8,
    "i16": np.int16,
    "i32": np.int32,
    "i64": np.int64,
    "f16": np.float16,
    "f32": np.float32,
    "f64": np.float64,
}
_FUNCTION = re.compile(r"tt\.func public @(\w+)\((.*)\) attributes")
_PARAMETER = re.compile(r"(%\w+): (!tt\.ptr<\w+>|\w+)")
_LINE = re.compile(r"(?:(%\w+) = )?([a-z_]+\.\w+)\b ?(.*)")
_OPERAND = re.compile(r"%\w+")
_SHAPED = re.compile(r"tensor<((?:\d+x)*)(.*)>$")
_SIGNED = {"eq": np.equal, "ne": np.not_equal, "slt": np.less, "sle": np.less_equal, "sgt": np.greater}
_COMPARE: dict[str, Callable[..., Any]] = {
    **_SIGNED,
    "sge": np.greater_equal,
    **{"oeq": np.equal, "une": np.not_equal, "olt": np.less, "ole": np.less_equal},
    **{"ogt": np.greater, "oge": np.greater_equal},
}
_PLAIN: dict[str, Callable[..., Any]] = {
    **{f"arith.{name}{kind}": getattr(np, what) for kind in "if" for name, what in
       (("add", "add"), ("sub", "subtract"), ("mul", "multiply"))},
    "arith.divf": np.divide,
    "arith.negf": np.negative,
    "arith.maximumf": np.maximum,
    "arith.maxnumf": np.fmax,
    "arith.minnumf": np.fmin,
    "arith.divsi": lambda left, right: np.trunc(left / right).astype(left.dtype),
    "arith.remsi": np.fmod,
    "arith.andi": np.bitwise_and,
    "arith.ori": np.bitwise_or,
    "arith.select": np.where,
    "math.exp": np.exp,
    "math.sqrt": np.sqrt,
    "math.absf": np.abs,
}  # fmt: skip
_CASTS = frozenset(f"arith.{name}" for name in ("extsi", "trunci", "extf", "truncf", "sitofp", "fptosi"))


class Program:
    """A binary that was read and understood; any other binary raises `ValueError`."""

    def __init__(self, binary: bytes) -> None:
        if not binary.startswith(HEADER):
            raise ValueError("this is no binary of a kernel for the host")
        lines = [line.strip() for line in binary.removeprefix(HEADER).decode().splitlines()]
        found = _FUNCTION.match(lines[1]) if lines[0] == "module {" and lines[-1] == "}" and len(lines) > 1 else None
        if found is None:
            raise ValueError("the binary of a kernel for the host is damaged")
        self.name = found.group(1)
        self._parameters = _PARAMETER.findall(found.group(2))
        self._steps = [_step(line) for line in lines[2:-2]]

    def run(self, args: list[Any], at: tuple[int, ...], grid: tuple[int, ...]) -> None:
        """Run one instance of the kernel, at the point `at` of the grid."""
        values: dict[str, Any] = {"at": at, "grid": grid}
        for (name, kind), arg in zip(self._parameters, args, strict=True):
            values[name] = np.int64(arg) if kind.startswith("!tt.ptr") else _TYPES[kind](arg)
        with np.errstate(all="ignore"):
            for result, step in self._steps:
                values[result] = step(values)


def _step(line: str) -> tuple[str, Callable[[dict[str, Any]], Any]]:
    """Return the name of a line's result, and a function that computes it from the values so far."""
    found = _LINE.match(line)
    if found is None:
        raise ValueError(f"the host does not understand {line!r}")
    result, operation, rest = found.groups()
    rest, _, types = rest.rpartition(" : ")
    operands = _OPERAND.findall(rest)
    shape, element = _shape(types.rpartition(" -> ")[2])

    def applied(function: Callable[..., Any]) -> Callable[[dict[str, Any]], Any]:
        return lambda values: function(*(values[operand] for operand in operands))

    if operation in _PLAIN:
        return result, applied(_PLAIN[operation])
    if operation in _CASTS:
        return result, applied(lambda value: value.astype(_TYPES[element]))
    if operation in {"arith.cmpi", "arith.cmpf"}:
        return result, applied(_COMPARE[rest.partition(",")[0]])
    if operation == "arith.constant":
        return result, _constant(rest, shape, element)
    if operation in {"tt.splat", "tt.broadcast"}:
        return result, applied(lambda value: np.broadcast_to(value, shape))
    if operation == "tt.expand_dims":
        return result, applied(lambda value: np.reshape(value, shape))
    if operation == "tt.make_range":
        start, end = (int(_number(rest, name)) for name in ("start", "end"))
        return result, lambda _: np.arange(start, end, dtype=np.int32)
    if operation in {"tt.get_program_id", "tt.get_num_programs"}:
        axis, what = "xyz".index(line.partition(" : ")[0][-1]), "at" if operation.endswith("id") else "grid"
        return result, lambda values: np.int32(values[what][axis])
    if operation == "tt.addptr":
        size = np.dtype(_pointee(types)).itemsize
        return result, applied(lambda address, offset: address + offset.astype(np.int64) * size)
    if operation in {"tt.load", "tt.store"}:
        kind = np.dtype(_pointee(types))
        return result, applied(_loading(kind) if operation == "tt.load" else _storing(kind))
    if operation == "tt.return":
        return result, lambda _: None
    raise ValueError(f"the host does not understand {operation}")


def _shape(text: str) -> tuple[tuple[int, ...], str]:
    found = _SHAPED.match(text)
    if found is None:
        return (), text
    return tuple(map(int, found.group(1).split("x")[:-1])), found.group(2)


def _pointee(types: str) -> Any:
    found = re.search(r"!tt\.ptr<(\w+)>", types)
    if found is None or found.group(1) not in _TYPES:
        raise ValueError(f"the host does not understand the pointer {types!r}")
    return _TYPES[found.group(1)]


def _number(text: str, name: str) -> str:
    found = re.search(rf"\b{name} = (-?\d+)", text)
    if found is None:
        raise ValueError(f"there is no {name} in {text!r}")
    return found.group(1)


def _constant(text: str, shape: tuple[int, ...], element: str) -> Callable[[dict[str, Any]], Any]:
    literal = text.removeprefix("dense<").removesuffix(">")
    kind = np.dtype(_TYPES[element])
    if literal in {"true", "false"}:
        number = kind.type(literal == "true")
    elif literal.startswith("0x"):
        number = np.array(int(literal, 16), f"u{kind.itemsize}").view(kind)[()]
    else:
        number = kind.type(float(literal) if kind.kind == "f" else int(literal))
    value = np.broadcast_to(number, shape) if shape else number
    return lambda _: value


def _memory(addresses: Any, mask: Any, kind: np.dtype[Any]) -> tuple[Any, Any, Any]:
    """Return the memory that the active lanes span as an array, the place of each of them in it, and who is active."""
    on = np.broadcast_to(True if mask is None else mask, np.shape(addresses))
    wanted = np.asarray(addresses)[on]
    if not wanted.size:
        return np.empty(0, kind), wanted, on
    first, last = int(wanted.min()), int(wanted.max())
    raw = (ctypes.c_char * (last - first + kind.itemsize)).from_address(first)
    return np.frombuffer(raw, kind), (wanted - first) // kind.itemsize, on


def _loading(kind: np.dtype[Any]) -> Callable[..., Any]:
    def load(addresses: Any, mask: Any = None, other: Any = 0) -> Any:
        memory, places, on = _memory(addresses, mask, kind)
        found = np.array(np.broadcast_to(other, np.shape(addresses)), dtype=kind)
        found[on] = memory[places]
        return found

    return load


def _storing(kind: np.dtype[Any]) -> Callable[..., Any]:
    def store(addresses: Any, value: Any, mask: Any = None) -> None:
        memory, places, on = _memory(addresses, mask, kind)
        memory[places] = np.broadcast_to(value, np.shape(addresses))[on]

    return store
