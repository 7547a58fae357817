"""Why a trace is not recorded, or not used: one word and a sentence."""

from __future__ import annotations


class NotSkippedError(Exception):
    """The function is traced, as always; nothing is wrong."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        """One word, for counters: `identity`, `graph_break`, `guard`, ..."""
