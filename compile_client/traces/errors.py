"""Why a trace is not recorded, or not used: one word and a sentence."""

from __future__ import annotations


class NotSkippedError(Exception):
    """The function is traced, as always; nothing is wrong."""

    def __init__(self, reason: str, text: str, *, distance: int = 1_000_000) -> None:
        super().__init__(text)
        self.distance = distance
        """In how much a stored trace is another: of several that do not fit, the nearest one is told of."""
        self.reason = reason
        """One word, for counters: `identity`, `graph_break`, `guard`, ..."""
