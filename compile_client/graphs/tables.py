"""The tables of a GraphSpec: sources, symbolic expressions and tensors' memory, each row once.

Rows refer only to earlier rows, so reading them needs no recursion, and shared parts (the module that a hundred
parameters belong to, a size that a hundred nodes have) are carried once.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import sympy
import torch

from compile_torch.dtensors import described, family_of, layout_of
from compile_wire.graph.spec import MeshSpec, Value


class CannotCarryError(Exception):
    """The graph has something that a GraphSpec does not carry; the text says what and where."""


_LITERALS = (sympy.Integer, sympy.Rational, sympy.Float)

HEADS = frozenset(
    "Add Mul Pow Mod PythonMod FloorDiv ModularIndexing CleanDiv CeilDiv CeilToInt FloorToInt TruncToInt "
    "TruncToFloat ToFloat FloatTrueDiv IntTrueDiv FloatPow PowByNatural RoundToInt Max Min Where LShift "
    "RShift Identity Abs Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan And Or "
    "Not Piecewise ExprCondPair IsNonOverlappingAndDenseIndicator OpaqueUnaryFn_sqrt OpaqueUnaryFn_exp "
    "OpaqueUnaryFn_log OpaqueUnaryFn_log2".split()
)
"""Heads of expressions that are carried, by class name."""


class Tables:
    """Numbers the sources and expressions of one graph, as they are met."""

    def __init__(self, shape_env: Any) -> None:
        self.shape_env = shape_env
        self.sources: list[Value] = []
        self.expressions: list[Value] = []
        self.meshes: list[MeshSpec] = []
        self._mesh_rows: dict[str | None, int] = {}
        self._source_rows: dict[Any, int] = {}
        self._expression_rows: dict[Any, int] = {}
        self._symbols: dict[Any, None] = {}
        self._storages: dict[int, int] = {}
        self._kept: list[Any] = []

    def source(self, source: Any) -> int:
        """Return the row of a dynamo source."""
        row = self._source_rows.get(source)
        if row is not None:
            return row
        if not dataclasses.is_dataclass(source) or not isinstance(source, torch._guards.Source):
            raise CannotCarryError(f"a source of type {type(source).__name__}")
        fields: list[Value] = []
        for field in dataclasses.fields(source):
            if field.init:
                fields += [field.name, self._source_value(getattr(source, field.name), source)]
        self.sources.append([type(source).__name__, fields])
        self._source_rows[source] = len(self.sources) - 1
        return len(self.sources) - 1

    def _source_value(self, value: Any, source: Any) -> Value:
        if value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, enum.Enum)):
            return value
        if isinstance(value, torch._guards.Source):
            return ["S", self.source(value)]
        if isinstance(value, enum.Enum):
            return ["E", type(value).__name__, value.name]
        if isinstance(value, tuple):
            return ["t", *(self._source_value(item, source) for item in value)]
        if isinstance(value, slice):
            return ["s", *(self._source_value(item, source) for item in (value.start, value.stop, value.step))]
        if isinstance(value, torch.dtype):
            return ["dt", str(value).removeprefix("torch.")]
        raise CannotCarryError(f"the source {source.name} holds a {type(value).__name__}")

    def mesh(self, mesh: Any, where: str) -> int:
        """Return the row of a mesh of devices: one for all that are alike, as those that torch copies are."""
        if mesh.device_type != "cpu":
            raise CannotCarryError(f"{where} has a mesh of {mesh.device_type}: workers take part in those of CPUs")
        family = family_of(mesh)
        if family is None:
            raise CannotCarryError(f"{where} has a mesh that the rank has no part in, or that this torch has otherwise")
        _, root = family[0]
        for name, one in family:
            self._mesh_row(one, root, name)
        return self._mesh_rows[described(mesh)]

    def _mesh_row(self, mesh: Any, root: Any, name: str) -> None:
        if (text := described(mesh)) in self._mesh_rows:
            return
        ranks, axes, names, groups = layout_of(mesh) or ([], [], None, [])
        self._mesh_rows[text] = len(self.meshes)
        self.meshes.append(
            MeshSpec(
                device=mesh.device_type,
                ranks=ranks if mesh is root else [],
                axes=axes,
                names=names,
                groups=groups,
                root=-1 if mesh is root else self._mesh_rows[described(root)],
                flattened=name,
            )
        )

    def storage(self, storage: Any) -> int:
        """Return the number of a tensor's memory: the same for tensors that share it."""
        self._kept.append(storage)  # so that no later one is made at the same address and taken for this one
        return self._storages.setdefault(storage._cdata, len(self._storages))

    def expression(self, expr: Any) -> int:
        """Return the row of a sympy expression, children first."""
        row = self._expression_rows.get(expr)
        if row is not None:
            return row
        built = self._expression_row(expr)
        self.expressions.append(built)
        self._expression_rows[expr] = len(self.expressions) - 1
        return len(self.expressions) - 1

    def _expression_row(self, expr: Any) -> Value:
        if isinstance(expr, sympy.Integer):
            return ["Integer", str(int(expr))]
        if isinstance(expr, sympy.Symbol):
            self._symbols[expr] = None
            return ["Symbol", str(expr)]
        if isinstance(expr, sympy.Rational):
            return ["Rational", str(expr.p), str(expr.q)]
        if isinstance(expr, sympy.Float):
            return ["Float", float(expr).hex()]
        for head, constant in _CONSTANTS.items():
            if expr is constant() or expr == constant():
                return [head]
        head = type(expr).__name__
        if head not in HEADS:
            raise CannotCarryError(f"the symbolic expression {expr} has a {head}")
        return [head, *(self.expression(argument) for argument in expr.args)]

    def backed(self) -> dict[Any, Any]:
        """Return every symbol of an input with its hint, in the order of their making.

        All of them, not only those that the graph names: guards may speak of the others.
        """
        hints = backed_hints(self.shape_env)
        loose = [symbol for symbol in self._symbols if symbol not in hints]
        if loose:
            raise CannotCarryError(f"symbol {loose[0]} stands for no input (data-dependent)")
        return {symbol: _number(hint) for symbol, hint in hints.items()}

    def guards(self) -> list[int]:
        """Return the rows of what the shape environment has guarded on."""
        if self.shape_env is None:
            return []
        rows = []
        for guard in self.shape_env.guards:
            if all(symbol in backed_hints(self.shape_env) for symbol in guard.expr.free_symbols):
                try:
                    rows.append(self.expression(guard.expr))
                except CannotCarryError:  # a guard that dynamo checks by itself; the graph does not depend on it
                    continue
        return rows


def backed_hints(shape_env: Any) -> dict[Any, Any]:
    """Return the shape environment's symbols of inputs with their hints. Named `var_to_val` before torch 2.13."""
    if shape_env is None:
        return {}
    found = getattr(shape_env, "backed_var_to_val", None)
    return dict(found if found is not None else shape_env.var_to_val)


def _number(hint: Any) -> Any:
    if isinstance(hint, sympy.Integer):
        return int(hint)
    if isinstance(hint, sympy.Float):
        return float(hint)
    return hint


def _int_oo() -> Any:
    from torch.utils._sympy.numbers import int_oo

    return int_oo


_CONSTANTS = {
    "int_oo": _int_oo,
    "-int_oo": lambda: -_int_oo(),
    "oo": lambda: sympy.oo,
    "-oo": lambda: -sympy.oo,
    "true": lambda: sympy.true,
    "false": lambda: sympy.false,
}
"""Constants that have no arguments, by the head of their row."""
