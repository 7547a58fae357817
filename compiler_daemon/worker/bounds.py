"""How large the tables of a spec may unfold, told from their rows before anything is made of them.

Rows share their parts: a row that names the row before it twice doubles, and forty such rows are a trillion. A power of
a power of a number is a number of more digits than there is memory. Both are a few bytes on the wire.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from compile_wire.errors import MalformedError
from compile_wire.graph.spec import SymbolSpec, Value

_MAX_PARTS = 2048
"""Of one expression written out, or of one source. The largest seen in a graph of dynamo's has 27."""

_MAX_BITS = 4096
"""Of an expression's value, roughly. Sizes have 64; products of all of a tensor's sizes come before a division."""

_MAX_EXPONENT = 64
_SYMBOL_BITS = 64
_MAX_CHAIN = 32
"""Symbols that stand for each other in a row."""

_POWERS = frozenset({"Pow", "FloatPow", "PowByNatural", "LShift", "RShift"})
"""Heads whose second argument is an exponent: a literal, and a small one."""


def check_sources(rows: Sequence[Value]) -> None:
    """Raise `MalformedError` where a source written out has too many parts. Its name is that long, or longer."""
    parts: list[int] = []
    for _, fields in rows:
        waiting, count = list(fields[1::2]), 1
        while waiting:
            value = waiting.pop()
            count += 1
            if isinstance(value, list):
                if value[0] == "S":
                    count += parts[value[1]]
                else:
                    waiting.extend(value[1:])
        if count > _MAX_PARTS:
            raise MalformedError(f"a source has more than {_MAX_PARTS} parts")
        parts.append(count)


def check_expressions(rows: Sequence[Value], symbols: Sequence[SymbolSpec]) -> None:
    """Raise `MalformedError` where an expression, written out, has too many parts, or a value of too many digits.

    Symbols that are known to equal an expression count as that expression, and must not lead back to themselves.
    """
    weights = _Weights(rows, {symbol.name: symbol.replacement for symbol in symbols if symbol.replacement >= 0})
    for row in range(len(rows)):
        weights.of_row(row)


class _Weights:
    """Parts and bits of each row, each found once."""

    def __init__(self, rows: Sequence[Value], replacements: Mapping[str, int]) -> None:
        self._rows = rows
        self._replacements = replacements
        self._known: dict[int, tuple[int, int]] = {}

    def of_row(self, row: int, chain: int = 0) -> tuple[int, int]:
        """Return parts and bits of a row whose arguments' rows are known or come through a symbol."""
        if row in self._known:
            return self._known[row]
        if chain > _MAX_CHAIN:
            raise MalformedError("symbols stand for each other in a circle, or in too long a chain")
        # The rows between are made first: arguments are earlier rows, so that this needs no recursion but for symbols.
        waiting = [row]
        while waiting:
            here = waiting[-1]
            missing = [a for a in self._arguments(here) if a not in self._known]
            if missing:
                waiting.extend(missing)
                continue
            waiting.pop()
            if here not in self._known:
                self._known[here] = self._weigh(here, chain)
        return self._known[row]

    def _arguments(self, row: int) -> list[int]:
        head, *arguments = self._rows[row]
        return [] if head in {"Integer", "Rational", "Float", "Symbol"} else [a for a in arguments if type(a) is int]

    def _weigh(self, row: int, chain: int) -> tuple[int, int]:
        head, *arguments = self._rows[row]
        if head == "Symbol":
            target = self._replacements.get(arguments[0], -1) if arguments and isinstance(arguments[0], str) else -1
            return (1, _SYMBOL_BITS) if target < 0 else self.of_row(target, chain + 1)
        if head in {"Integer", "Rational", "Float"}:
            return 1, max((4 * len(text) for text in arguments if isinstance(text, str)), default=0)
        weights = [self._known[argument] for argument in self._arguments(row)]
        parts = 1 + sum(parts for parts, _ in weights)
        bits = [bits for _, bits in weights] or [0]
        if head == "Mul":
            total = sum(bits)
        elif head in _POWERS:
            total = self._power_bits(head, arguments, bits)
        else:
            total = max(bits) + len(bits).bit_length()
        if parts > _MAX_PARTS:
            raise MalformedError(f"an expression has more than {_MAX_PARTS} parts")
        if total > _MAX_BITS:
            raise MalformedError(f"an expression's value has more than {_MAX_BITS} bits")
        return parts, total

    def _power_bits(self, head: str, arguments: Sequence[Value], bits: Sequence[int]) -> int:
        if len(arguments) != 2 or type(arguments[1]) is not int:
            raise MalformedError(f"a {head} has two arguments")
        exponent = _literal(self._rows[arguments[1]])
        if exponent is None or not abs(exponent) <= _MAX_EXPONENT:
            raise MalformedError(f"the exponent of a {head} is a number of at most {_MAX_EXPONENT}")
        return bits[0] + _MAX_EXPONENT if head.endswith("Shift") else bits[0] * max(1, math.ceil(abs(exponent)))


def _literal(row: Value) -> float | None:
    """Return the number of a literal's row; None where it is none. Its form is checked where the literal is made."""
    head, *texts = row
    try:
        if head == "Float":
            return float.fromhex(*texts)
        if head in {"Integer", "Rational"}:
            numbers = [float(text) for text in texts]
            return numbers[0] if len(numbers) == 1 else numbers[0] / numbers[1]
    except (TypeError, ValueError, ArithmeticError, IndexError):
        pass
    return None
