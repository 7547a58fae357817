"""What is written into a lease and a marker: JSON of few bytes. Anything else that is found there is nobody's."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import asdict, dataclass, fields
from typing import Any, Self, TypeVar

MAX_RECORD_BYTES = 4096
_MAX_TEXT = 500
_FAR = 1e12
"""Seconds; a NaN is not below it either."""

R = TypeVar("R", bound="_Record")


class _Record:
    @classmethod
    def read(cls, data: bytes) -> Self | None:
        """Return what the bytes say; None where they are none of ours."""
        try:
            value = json.loads(data)
            if not isinstance(value, dict):
                return None
            return cls(**{field.name: _checked(field.type, value[field.name]) for field in fields(cls)})  # type: ignore[arg-type]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def write(self) -> bytes:
        """Return the bytes."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()  # type: ignore[call-overload]


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseRecord(_Record):
    """Who holds a lease. Times are for people and estimates only: clocks of nodes need not agree."""

    token: str
    """Random, for each time that a lease is taken."""
    host: str
    since: float
    """Of the holder's wall clock."""
    expected_s: float
    """How long the compile may take; 0 where nobody knows."""
    after: str = ""
    """The token of the holder whose lease had run out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Beat(_Record):
    """That a holder lives: another one each time."""

    token: str
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Marker(_Record):
    """A compile that was refused for a while, or has killed workers."""

    reason: str
    """Why it is refused; empty where it only has killed a worker."""
    deaths: int
    at: float
    """Of the wall clock of who left it."""
    lasts_s: float

    def holds(self, now: float | None = None) -> bool:
        """Return whether it still counts. One of a clock that is far from ours does not: it costs one attempt."""
        return abs((time.time() if now is None else now) - self.at) < self.lasts_s


def this_host() -> str:
    """Return how this node is called to others."""
    return socket.gethostname()[:_MAX_TEXT]


def shortened(text: str) -> str:
    """Return a reason that fits a marker."""
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."


def _checked(kind: Any, value: Any) -> Any:
    if kind == "str" and isinstance(value, str) and len(value) <= _MAX_TEXT:
        return value
    if kind == "int" and type(value) is int and 0 <= value < 2**31:
        return value
    if kind == "float" and isinstance(value, int | float) and type(value) is not bool and -_FAR < value < _FAR:
        return float(value)
    raise ValueError("not a record of ours")
