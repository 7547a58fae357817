"""Symbolic shapes from a spec: sources, expressions, and a shape environment with the trainer's symbols.

Expressions are built bottom-up from rows with constructors of a closed table; no text is ever parsed as mathematics.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import sympy
import torch
from torch._dynamo import source as dynamo_sources
from torch._guards import ShapeGuard, Source
from torch.fx.experimental.sym_node import SymNode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv
from torch.utils._sympy import functions as torch_functions
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from compile_torch.key.state import dtype_of
from compile_wire.errors import MalformedError
from compile_wire.graph.spec import GraphSpec, SymbolSpec, Value
from compiler_daemon.worker.bounds import check_expressions, check_sources

_SYMPY_HEADS = (
    "Add Mul Pow Abs Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan And Or Not Piecewise "
    "ExprCondPair"
).split()
_TORCH_HEADS = (
    "Mod PythonMod FloorDiv ModularIndexing CleanDiv CeilDiv CeilToInt FloorToInt TruncToInt TruncToFloat ToFloat "
    "FloatTrueDiv IntTrueDiv FloatPow PowByNatural RoundToInt Max Min Where LShift RShift Identity "
    "IsNonOverlappingAndDenseIndicator OpaqueUnaryFn_sqrt OpaqueUnaryFn_exp OpaqueUnaryFn_log OpaqueUnaryFn_log2"
).split()

_HEADS: dict[str, Any] = {
    **{
        name: getattr(sympy.functions.elementary.piecewise, name, None) or getattr(sympy, name) for name in _SYMPY_HEADS
    },
    **{name: getattr(torch_functions, name) for name in _TORCH_HEADS if hasattr(torch_functions, name)},
}
_CONSTANTS: dict[str, Any] = {
    "int_oo": int_oo,
    "-int_oo": -int_oo,
    "oo": sympy.oo,
    "-oo": -sympy.oo,
    "true": sympy.true,
    "false": sympy.false,
}
_MAX_DIGITS = 64
_INTEGER = re.compile(r"-?[0-9]+")
_MAX_SYMBOLS = 4096
_COMPARED = frozenset({"Max", "Min"})
_MAX_COMPARED = 32
"""torch looks for a free name for each by counting up."""

_FIELD = re.compile(r"[\w.]*")
"""Text in a source. torch makes a source's name of it, and guards of names, which are evaluated as Python where the
artifact is used: most text stands there as it is."""

_QUOTED_FIELDS = frozenset({"index"})
"""Keys of dicts: any text, because torch always writes its repr."""

_SOURCES: dict[str, type[Any]] = {
    name: found
    for name, found in vars(dynamo_sources).items()
    if isinstance(found, type) and issubclass(found, Source) and dataclasses.is_dataclass(found) and found is not Source
}
_ENUMS: dict[str, Any] = {"TensorProperty": dynamo_sources.TensorProperty}


class Shapes:
    """Rebuilds the sources, expressions and symbols of one GraphSpec."""

    def __init__(self, spec: GraphSpec) -> None:
        if len(spec.symbols) > _MAX_SYMBOLS:
            raise MalformedError(f"the graph has {len(spec.symbols)} symbols, more than {_MAX_SYMBOLS}")
        check_sources(spec.sources)
        check_expressions(spec.expressions, spec.symbols)
        self.shape_env = ShapeEnv()
        self._sources: list[Any] = []
        for head, fields in spec.sources:
            self._sources.append(self._source(head, fields))
        self._symbols = {symbol.name: self._symbol(symbol) for symbol in spec.symbols}
        self._expressions: list[Any] = []
        for row in spec.expressions:
            self._expressions.append(self._expression(row))

    def source(self, row: int) -> Any:
        """Return the source in that row."""
        return self._sources[row]

    def expression(self, row: int) -> Any:
        """Return the expression in that row."""
        return self._expressions[row]

    def number(self, row: int, kind: str) -> Any:
        """Return the symbolic number of that expression, with its hint."""
        expr = self.expression(row)
        try:
            hint = expr.xreplace(self._hints())
            # Made directly: `create_symintnode` would turn an expression that is a number into a plain int, and torch
            # tells the two apart.
            if kind == "int":
                return torch.SymInt(SymNode(expr, self.shape_env, int, int(hint)))
            if kind == "float":
                return torch.SymFloat(SymNode(expr, self.shape_env, float, float(hint)))
            return torch.SymBool(SymNode(expr, self.shape_env, bool, bool(hint)))
        except (TypeError, ValueError, ArithmeticError) as error:
            raise MalformedError(f"the expression {expr} has no value for its symbols' hints") from error

    def _hints(self) -> dict[Any, Any]:
        found = getattr(self.shape_env, "backed_var_to_val", None)
        return dict(found if found is not None else self.shape_env.var_to_val)

    def _source(self, head: str, fields: list[Value]) -> Any:
        kind = _SOURCES.get(head)
        if kind is None:
            raise MalformedError(f"this torch has no source {head!r:.60}")
        allowed = {field.name for field in dataclasses.fields(kind) if field.init}
        named = {}
        for name, value in zip(fields[::2], fields[1::2], strict=True):
            named[name] = self._source_value(value)
            if name not in _QUOTED_FIELDS and any(not _FIELD.fullmatch(text) for text in _texts(value)):
                raise MalformedError(f"the {name} of a {head} is no name: {value!r:.80}")
        if not set(named) <= allowed:
            raise MalformedError(f"a {head} has no {sorted(set(named) - allowed)[:3]}")
        try:
            return kind(**named)
        except Exception as error:
            raise MalformedError(f"a {head} cannot be made of its fields: {type(error).__name__}") from error

    def _source_value(self, value: Value) -> Any:
        if not isinstance(value, list):
            return value
        tag, items = value[0], value[1:]
        if tag == "S":
            return self._sources[items[0]]
        if tag == "E":
            try:
                return _ENUMS[items[0]][items[1]]
            except KeyError:
                raise MalformedError(f"no member {items[1]!r:.40} of {items[0]!r:.40}") from None
        if tag == "t":
            return tuple(self._source_value(item) for item in items)
        if tag == "s":
            return slice(*(self._source_value(item) for item in items))
        if tag == "dt":
            return dtype_of(items[0])
        raise MalformedError(f"a source holds no value tagged {tag!r:.20}")

    def _symbol(self, spec: SymbolSpec) -> Any:
        if spec.source < 0:
            raise MalformedError(f"symbol {spec.name} has no source")
        if isinstance(spec.hint, int) and not -(2**63) <= spec.hint < 2**63:
            raise MalformedError(f"symbol {spec.name} is larger than a size can be")
        try:
            symbol = self.shape_env.create_symbol(
                spec.hint,
                source=self.source(spec.source),
                dynamic_dim=DimDynamic.DYNAMIC,
                positive=spec.positive,
                do_not_specialize_zero_one=True,
            )
        except Exception as error:
            raise MalformedError(f"symbol {spec.name} cannot be made: {type(error).__name__}") from error
        if str(symbol) != spec.name:
            raise MalformedError(f"the source of symbol {spec.name} makes a symbol called {symbol}")
        return symbol

    def guard(self, spec: GraphSpec) -> None:
        """Have the shape environment know what the trainer's had guarded on; after the inputs were made, as there."""
        for row in spec.guards:
            self._guard(self._expressions[row])
        # Guards narrow ranges by themselves: what the trainer knows is exactly what is known here.
        for symbol in spec.symbols:
            self._refine(symbol)

    def _guard(self, fact: Any) -> None:
        known = len(self.shape_env.guards)
        try:
            holds = bool(self.shape_env.evaluate_expr(fact))
            if holds and len(self.shape_env.guards) == known:
                self._note(fact)
        except Exception as error:
            raise MalformedError(f"{fact} cannot be a guard: {type(error).__name__}") from error
        if not holds:
            raise MalformedError(f"the guard {fact} does not hold for the values of its symbols")

    def _note(self, fact: Any) -> None:
        """Add a guard that follows from the others here, and did not where the trainer met it: a compile reads it."""
        if fact.free_symbols:
            self.shape_env.guards.append(ShapeGuard(fact, self.shape_env._get_sloc(), size_oblivious=False))

    def _refine(self, spec: SymbolSpec) -> None:
        symbol = self._symbols[spec.name]
        lower = -sympy.oo if spec.lower is None else self.expression(spec.lower)
        upper = sympy.oo if spec.upper is None else self.expression(spec.upper)
        try:
            fits = lower.is_number and upper.is_number and lower <= spec.hint <= upper
            self.shape_env.var_to_range[symbol] = ValueRanges(lower, upper)
        except Exception as error:
            raise MalformedError(f"symbol {spec.name} cannot range from {lower} to {upper}") from error
        if not fits:
            raise MalformedError(f"symbol {spec.name} is {spec.hint}, which is not from {lower} to {upper}")
        if spec.replacement >= 0:
            self.shape_env.replacements[symbol] = self.expression(spec.replacement)

    def _expression(self, row: list[Value]) -> Any:
        head, arguments = row[0], row[1:]
        if head in _CONSTANTS:
            return _CONSTANTS[head]
        if (literal := _LITERALS.get(head)) is not None:
            return literal(arguments)
        if head == "Symbol":
            if len(arguments) != 1 or arguments[0] not in self._symbols:
                raise MalformedError(f"no symbol {arguments[:1]!r:.40}")
            return self._symbols[arguments[0]]
        made = _HEADS.get(head)
        if made is None:
            raise MalformedError(f"no expression has the head {head!r:.60}")
        given = [self._expressions[argument] for argument in arguments]
        # torch compares each with each: 2.15 takes a minute for two hundred. One inside of another counts as its own.
        if head in _COMPARED and sum(len(one.args) if isinstance(one, made) else 1 for one in given) > _MAX_COMPARED:
            raise MalformedError(f"a {head} of more than {_MAX_COMPARED} expressions")
        try:
            return made(*given)
        except Exception as error:
            raise MalformedError(f"no {head} of these arguments: {type(error).__name__}") from error


def _texts(value: Value) -> list[str]:
    """Return the text in a source's field and its tuples; names of sources, enums and dtypes are looked up."""
    if isinstance(value, list):
        return [] if value[0] in {"S", "E", "dt"} else [text for item in value[1:] for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def _integer(text: object) -> int:
    if not isinstance(text, str) or len(text) > _MAX_DIGITS or not _INTEGER.fullmatch(text):
        raise MalformedError(f"not an integer: {text!r:.40}")
    return int(text)


def _float(text: object) -> float:
    if not isinstance(text, str) or len(text) > _MAX_DIGITS:
        raise MalformedError(f"not a number: {text!r:.40}")
    try:
        number = float.fromhex(text)
    except (ValueError, OverflowError):
        raise MalformedError(f"not a number: {text!r:.40}") from None
    if not math.isfinite(number):
        raise MalformedError(f"not a number: {text!r:.40}")
    return number


def _one(arguments: list[Value]) -> Value:
    if len(arguments) != 1:
        raise MalformedError("a literal has one part")
    return arguments[0]


def _rational(arguments: list[Value]) -> Any:
    if len(arguments) != 2 or not (denominator := _integer(arguments[1])):
        raise MalformedError("a rational has two parts, the second not zero")
    return sympy.Rational(_integer(arguments[0]), denominator)


_LITERALS: dict[str, Callable[[list[Value]], Any]] = {
    "Integer": lambda arguments: sympy.Integer(_integer(_one(arguments))),
    "Rational": _rational,
    "Float": lambda arguments: sympy.Float(_float(_one(arguments))),
}
