"""Graphs that have killed workers: refused for a while, so that one graph cannot keep killing warm workers.

Counted per key: a worker that died or had to be killed. A compile that succeeds forgives what was before. Nothing is
kept across a restart, where the reason may have been put right.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from compile_wire.digest import Digest
from compiler_daemon.jobs import QuarantinedView
from compiler_daemon.text import numbers

FlightKey = tuple[Digest, str]
"""Environment and key: what two askers must share to share a compile."""

_DEATHS = 2
_MAX_KEYS = 4096


@dataclass(kw_only=True, slots=True)
class _Record:
    deaths: int
    reason: str
    last: float


class GraphQuarantine:
    """Refuses the keys of graphs that killed workers, for a while, and remembers why."""

    def __init__(self, *, lasts_s: float) -> None:
        self._lasts_s = lasts_s
        self._records: OrderedDict[FlightKey, _Record] = OrderedDict()

    def note_death(self, key: FlightKey, reason: str) -> bool:
        """Count a worker's death; return whether the graph is refused from now on."""
        record = self._current(key)
        deaths = record.deaths + 1 if record else 1
        self._records[key] = _Record(deaths=deaths, reason=reason, last=time.monotonic())
        self._records.move_to_end(key)
        while len(self._records) > _MAX_KEYS:
            self._records.popitem(last=False)
        return deaths >= _DEATHS

    def forgive(self, key: FlightKey) -> None:
        """Forget what the graph has done."""
        self._records.pop(key, None)

    def reason(self, key: FlightKey) -> str:
        """Return why the graph is refused, in words; empty where it is not."""
        record = self._current(key)
        if record is None or record.deaths < _DEATHS:
            return ""
        left = numbers.seconds(self._left_s(record))
        return f"this graph has killed {record.deaths} workers and is not tried for {left}: {record.reason}"

    def views(self) -> list[QuarantinedView]:
        """Return all graphs that are refused now."""
        return [
            QuarantinedView(environment=key[0], key=key[1], reason=record.reason, left_s=self._left_s(record))
            for key, record in self._records.items()
            if record.deaths >= _DEATHS and self._left_s(record) > 0
        ]

    def _left_s(self, record: _Record) -> float:
        return record.last + self._lasts_s - time.monotonic()

    def _current(self, key: FlightKey) -> _Record | None:
        record = self._records.get(key)
        if record is not None and self._left_s(record) <= 0:
            del self._records[key]
            return None
        return record
