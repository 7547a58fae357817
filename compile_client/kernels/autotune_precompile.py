"""The candidates of an autotuned kernel, compiled all at once before the first of them is timed.

Triton compiles each candidate when its turn comes. Where a daemon compiles them, its workers would wait for the timer,
and the timer for the workers. Without a daemon nothing of this happens.
"""

# triton is not installed everywhere, and its types are partly invisible.
# pyright: reportMissingImports=false

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_AT_ONCE = 8

_logger = logging.getLogger("compile_client")


class Tuning:
    """Has the daemon remember which configurations Triton's autotuner chose.

    Its methods wrap two of the autotuner's.
    """

    def __init__(self, daemon_compiles: Callable[[], bool]) -> None:
        self._daemon_compiles = daemon_compiles
        self._local = threading.local()

    def pruning(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `prune_configs`: what it returns is what will be timed."""

        @functools.wraps(original)
        def prune_configs(tuner: Any, kwargs: Any) -> Any:
            candidates = original(tuner, kwargs)
            self._local.candidates = (tuner, list(candidates))
            return candidates

        return prune_configs

    def timing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `_bench`, which is called for one candidate after the other."""

        @functools.wraps(original)
        def bench(tuner: Any, *args: Any, config: Any, **meta: Any) -> Any:
            of, candidates = getattr(self._local, "candidates", (None, []))
            self._local.candidates = (None, [])
            if of is tuner and len(candidates) > 1:
                try:
                    self._compile(tuner, candidates, args, meta)
                except Exception:
                    # What is wrong with a candidate, Triton says when it comes to it.
                    _logger.debug("candidates were not compiled ahead", exc_info=True)
            return original(tuner, *args, config=config, **meta)

        return bench

    def _compile(self, tuner: Any, candidates: list[Any], args: tuple[Any, ...], meta: dict[str, Any]) -> None:
        from triton import AsyncCompileMode, knobs

        if knobs.runtime.jit_cache_hook is not None or not self._daemon_compiles():
            return
        with (
            ThreadPoolExecutor(min(len(candidates), _AT_ONCE), "compile-client-kernels") as pool,
            AsyncCompileMode(pool, ignore_errors=True),
        ):
            for candidate in candidates:
                if not meta.keys() & candidate.kwargs.keys():
                    with contextlib.suppress(Exception):
                        tuner.fn.run(*args, **{**meta, **candidate.all_kwargs(), "warmup": True})
