"""Python's collector held back from `import torch` until the first compiled step.

Importing torch's compiler and tracing the first graphs make a million objects that stay. Each full collection looks
through all of them and finds next to nothing, and there are a dozen of them before the first step. So the threshold
of full collections is raised for that time; young objects are collected as always.

Guarantees: nothing is changed unless the collector is on and its thresholds are Python's own. They are put back when
no graph has been compiled for a second, half a minute after the start at the latest, in a forked child, at
`uninstall`, and at the process's end; never over thresholds that the program has set meanwhile. No thread is
started: the collector's own calls look at the clock. Without allocations, then, the thresholds stay raised, and
there is nothing to collect.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULTS = {(3, 11): (700, 10, 10), (3, 12): (700, 10, 10)}
"""Python's own thresholds. In versions that are not here the collector is left alone."""

_FULL_HELD = 1013
"""Collections of the middle generation between two full ones. A number that nobody else would choose, so that it is
known for ours when a program puts back what it had read from us."""

_AFTER_A_GRAPH_S = 1.0
"""The step runs in this time, or the next graph is compiled."""
_AT_MOST_S = 30.0
"""What a program collects before its first graph, a large data set say, is not left lying for longer."""

_NAME = "collector"
"""In `TORCH_COMPILE_CLIENT_WITHOUT`."""

_hold: _Hold | None = None


def hold_collector(env: Mapping[str, str]) -> None:
    """Hold full collections back, where they are as Python has them and `env` has nothing against it."""
    global _hold  # noqa: PLW0603 - one process has one collector
    normal = _DEFAULTS.get(sys.version_info[:2])
    left_out = _NAME in env.get("TORCH_COMPILE_CLIENT_WITHOUT", "").split(",")
    if _hold is None and not left_out and gc.isenabled() and normal is not None and gc.get_threshold() == normal:
        _hold = _Hold(normal)


def graph_was_compiled() -> None:
    """Let the collector go in a second, unless another graph has been compiled by then."""
    if _hold is not None:
        _hold.ends_within(_AFTER_A_GRAPH_S)


def release_collector() -> None:
    """Put the thresholds back at once, and look at the collector no more."""
    global _hold  # noqa: PLW0603 - as above
    if _hold is not None:
        _hold.end()
        _hold = None


class _Hold:
    """The thresholds as they were, and when they are put back."""

    def __init__(self, normal: tuple[int, int, int]) -> None:
        self._normal = normal
        self._held = (*normal[:2], _FULL_HELD)
        self._latest = self._end = time.monotonic() + _AT_MOST_S
        # One object, by which it is found again: each `self._look` is another.
        self._callback = self._look
        gc.set_threshold(*self._held)
        gc.callbacks.append(self._callback)
        atexit.register(release_collector)
        os.register_at_fork(after_in_child=release_collector)

    def ends_within(self, seconds: float) -> None:
        self._end = min(self._latest, time.monotonic() + seconds)

    def end(self) -> None:
        self._restore()
        with contextlib.suppress(ValueError):  # somebody has emptied the list
            gc.callbacks.remove(self._callback)
        atexit.unregister(release_collector)

    def _restore(self) -> None:
        if gc.get_threshold() == self._held:
            gc.set_threshold(*self._normal)

    def _look(self, phase: str, info: Mapping[str, int]) -> None:
        """Called by the collector. Stays when the time is over: a program, or torch while it compiles, may have read
        the raised thresholds and put them back later. Removing it here would have the collector skip its neighbour.
        """
        if phase == "start" and info["generation"] and time.monotonic() > self._end:
            self._restore()
