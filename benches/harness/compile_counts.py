"""What torch compiled in this process: graphs, graph breaks, C++ builds, Triton kernels, autotunes.

The numbers come from three places: dynamo's own counters, a counting wrapper around inductor's C++ builder, and the
number of kernel binaries in Triton's cache folders (their compilation runs in worker processes, which no wrapper here
would see). A count that an unknown torch does not offer is None, never a guess.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@dataclass(kw_only=True, slots=True)
class CompileCounts:
    """Counts since `start_counting`; read them at any time."""

    cpp_available: bool = False
    _cpp_builds: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _kernels_before: int = 0

    def count_build(self) -> None:
        """Count one C++ build; builds run on several threads."""
        with self._lock:
            self._cpp_builds += 1

    @property
    def graphs(self) -> int | None:
        """Graphs that dynamo handed to a backend, each with its forward and backward."""
        return _dynamo_counter("stats", "unique_graphs")

    @property
    def graph_breaks(self) -> int | None:
        """Places where dynamo had to cut a function into several graphs."""
        return _dynamo_counter("graph_break", None)

    @property
    def cpp_builds(self) -> int | None:
        """Calls of inductor's C++ compiler."""
        return self._cpp_builds if self.cpp_available else None

    @property
    def triton_compiles(self) -> int:
        """Kernel binaries that appeared in Triton's cache folders; 0 without Triton."""
        return _kernel_binaries() - self._kernels_before

    @property
    def operators_timed(self) -> int | None:
        """Operators of graphs for which this process timed candidates against each other.

        Out of the list of what took time: inductor's counters are no help, since whoever loads a compiled graph adds
        the counts of the process that compiled it to its own.
        """
        return _timed_steps("_template_autotuning")

    @property
    def autotunes(self) -> int | None:
        """Times that candidates were timed against each other: for an operator of a graph, or at a kernel's launch."""
        operators, launches = self.operators_timed, _timed_steps("CachingAutotuner.benchmark_all_configs")
        return None if operators is None or launches is None else operators + launches


def start_counting() -> CompileCounts:
    """Begin to count. Call it once, before the first `torch.compile`d call."""
    counts = CompileCounts(_kernels_before=_kernel_binaries())
    try:
        from torch._inductor.cpp_builder import CppBuilder

        build: Callable[..., Any] = CppBuilder.build
    except (ImportError, AttributeError):
        return counts

    def counted(*args: Any, **kwargs: Any) -> Any:
        counts.count_build()
        return build(*args, **kwargs)

    CppBuilder.build = counted  # type: ignore[method-assign]  # counting is the purpose
    counts.cpp_available = True
    return counts


def _dynamo_counter(group: str, name: str | None) -> int | None:
    try:
        from torch._dynamo.utils import counters
    except ImportError:
        return None
    return int(sum(counters[group].values()) if name is None else counters[group][name])


def _timed_steps(ending: str) -> int | None:
    try:
        from torch._dynamo.utils import compilation_time_metrics
    except ImportError:
        return None
    return sum(len(times) for step, times in compilation_time_metrics.items() if step.endswith(ending))


def _kernel_binaries() -> int:
    if find_spec("triton") is None:
        return 0
    folders = [
        Path(os.environ.get("TRITON_CACHE_DIR", Path.home() / ".triton" / "cache")),
        *(Path(path) / "triton" for path in [os.environ.get("TORCHINDUCTOR_CACHE_DIR")] if path),
    ]
    return sum(1 for folder in set(folders) if folder.is_dir() for _ in folder.rglob("*.cubin"))
