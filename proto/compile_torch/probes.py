"""torch's probes of the CPU's instruction sets: recorded where they are run, answered where the answers are known.

For each instruction set torch builds a test library and loads it in a child process, once a process. The verdict
depends on the compiler, torch and the CPU's flags, all of which the environment names.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Probes:
    """Remembers what torch's probes of the processor found. Safe to use from several threads."""

    def __init__(self, known: Callable[[], Mapping[str, bool]]) -> None:
        """`known()` returns the verdicts that may be taken over."""
        self._known = known
        self._lock = threading.Lock()
        self._seen: dict[str, bool] = {}

    @property
    def seen(self) -> dict[str, bool]:
        """The verdicts that this process found out or took over."""
        with self._lock:
            return dict(self._seen)

    def checking(self, original: Callable[[Any, str], bool]) -> Callable[[Any, str], bool]:
        """Wrap `torch._inductor.cpu_vec_isa.VecISA.check_build`."""

        @functools.wraps(original)
        def check_build(isa: Any, code: str) -> bool:
            name = probe_name(isa, code)
            # Only a probe that went well is taken over: one that did not may have failed for a reason of its own
            # (no compiler where it ran), and code without the instructions is other code than torch makes here.
            verdict = self._known().get(name) or original(isa, code)
            with self._lock:
                self._seen[name] = verdict
            return verdict

        return check_build


def probe_at_once() -> None:
    """Run the probes that torch would run one after the other: each waits for a compiler and a child process.

    Where torch keeps its candidates in another way, nothing is done, and torch runs them itself.
    """
    from torch._inductor import cpu_vec_isa

    flags = getattr(cpu_vec_isa, "x86_isa_checker", lambda: ())()
    candidates = [
        isa
        for isa in getattr(cpu_vec_isa, "supported_vec_isa_list", ())
        if all(flag in flags for flag in str(isa).split())
    ]
    with ThreadPoolExecutor(max(1, len(candidates))) as pool:
        list(pool.map(bool, candidates))  # which torch remembers of each


def probe_name(isa: Any, code: str) -> str:
    """Return what is asked: the instruction set, its compiler flags, and the probed code."""
    flags = " ".join(isa.build_arch_flags().split())
    return f"{isa} {flags} {hashlib.sha256(code.encode()).hexdigest()[:16]}"
