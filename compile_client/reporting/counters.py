"""The process's counters, the line at its end, and the file that scripts read.

Guarantees: counters are exact under threads. The file is complete JSON or is not there: it is written beside its place
and then linked into it. A process removes the file of an earlier run when it starts, so that a killed process leaves no
file rather than an old one.

Several processes with one FILE do not overwrite each other: whoever ends first takes FILE, except that a process with
children of its own (a launcher with its ranks) keeps FILE for itself; all others write FILE.PID. Such children, and
forked ones, write only where they have something to say. A process that ends by `os._exit`, as workers of
`multiprocessing` do, or by a signal reports nothing.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from compile_client.log import say
from compile_client.reporting.words import GRAPH_WORDS, KERNEL_WORDS
from compile_wire import tracing

_OWNER = "TORCH_COMPILE_CLIENT_REPORT_OWNER"
"""Set in a process's own environment, so that its children know that FILE is taken."""

_COUNTERS = (
    "graphs",
    "hits_local",
    "hits",
    "compiled_by_daemon",
    "compiled_here",
    "deferred",
    "traced_again",
    "verified",
    "mismatches",
    "unsettled",
    "published",
    "cpp_builds",
    "triton_compiles",
    "kernels",
    "kernel_hits",
    "kernels_by_daemon",
    "kernels_here",
    "tunings",
    "tuning_hits",
)


_TRACES = ("skipped", "recorded", "missed", "verified", "differing")

_PHASES = ("connect", "key", "lookup", "transfer", "install", "load", "wait", "capture")
"""Spans of a graph that happen in this process."""


_OUTCOMES = tuple(name for name in GRAPH_WORDS if name != "published")


class Counters:
    """Counts what the client did in this process. Safe to call from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._kernels_refused: Counter[str] = Counter()
        self._traces: Counter[str] = Counter()
        self._traces_refused: Counter[str] = Counter()
        self._fallbacks: Counter[str] = Counter()
        self._unpublished: Counter[str] = Counter()
        self._seconds_saved = 0.0
        self._seconds_waited = 0.0
        self._spent_before = tracing.seconds()  # a forked child inherits its parent's
        self.warm: Callable[[], dict[str, object]] | None = None
        """Compile-only: what becomes the report's `warm`."""

    def count_graph(self) -> int:
        """Count a graph that reached the compiler; return how many have."""
        return self._count("graphs")

    def count_local_hit(self) -> None:
        """Count a graph that torch's own cache had."""
        self._count("hits_local")

    def count_hit(self, saved_s: float) -> None:
        """Count a graph that the daemon had; its compile had once taken `saved_s`."""
        with self._lock:
            self._counts["hits"] += 1
            self._seconds_saved += saved_s

    def count_daemon_compile(self) -> None:
        """Count a graph that the daemon compiled for us."""
        self._count("compiled_by_daemon")

    def count_local_compile(self) -> None:
        """Count a graph that torch compiled in this process."""
        self._count("compiled_here")

    def count_deferred(self) -> None:
        """Count a graph that runs eagerly here: nothing compiled it for this process."""
        self._count("deferred")

    def count_traced_again(self) -> None:
        """Count a graph that torch gave up to trace the program once more: nothing compiled it anywhere."""
        self._count("traced_again")

    def count_verified(self, *, same: bool) -> None:
        """Count a hit that was compiled here as well, and compared."""
        self._count("verified")
        if not same:
            self._count("mismatches")

    def count_unsettled(self) -> None:
        """Count a hit that was compiled here as well, and whose code differs because torch chooses by measuring."""
        self._count("unsettled")

    def count_refusal(self, reason: str) -> None:
        """Count a graph that cannot be compiled elsewhere: refused by the daemon, or not fit to be sent."""
        with self._lock:
            self._refused[reason] += 1

    def count_trace(self, outcome: Literal["skipped", "recorded", "missed", "verified", "differing"]) -> None:
        """Count a function that was not traced, whose trace was published, that none of the stored traces fitted, or
        that was traced and compared with what was stored, and differed."""
        with self._lock:
            self._traces[outcome] += 1

    def count_trace_refusal(self, reason: str) -> None:
        """Count a function that each process must trace for itself."""
        with self._lock:
            self._traces_refused[reason] += 1

    def count_kernel_refusal(self, reason: str) -> None:
        """Count a Triton kernel that cannot be compiled elsewhere. Graphs are counted apart."""
        with self._lock:
            self._kernels_refused[reason] += 1

    def count_fallback(self, reason: str) -> None:
        """Count a failure of kind `reason`."""
        with self._lock:
            self._fallbacks[reason] += 1

    def count_published(self) -> None:
        """Count an artifact compiled here that is in the daemon's store."""
        self._count("published")

    def count_unpublished(self, reason: str) -> None:
        """Count an artifact compiled here that did not get there."""
        with self._lock:
            self._unpublished[reason] += 1

    def count_cpp_build(self) -> None:
        """Count a run of the C++ compiler in this process."""
        self._count("cpp_builds")

    def count_triton_compile(self) -> None:
        """Count a kernel that Triton compiled in this process."""
        self._count("triton_compiles")

    def count_kernel(self, outcome: Literal["hits", "by_daemon", "here"], saved_s: float = 0.0) -> None:
        """Count a Triton kernel that no local cache had; a compile once took `saved_s`."""
        with self._lock:
            self._counts["kernels"] += 1
            self._counts["kernel_hits" if outcome == "hits" else f"kernels_{outcome}"] += 1
            self._seconds_saved += saved_s

    def count_tuning(self, *, hit: bool) -> None:
        """Count the need of an autotuned kernel's timings that no local cache had."""
        self._count("tunings")
        if hit:
            self._count("tuning_hits")

    def count_wait(self, seconds: float) -> None:
        """Add the seconds that a graph waited for the daemon."""
        with self._lock:
            self._seconds_waited += seconds

    @property
    def graphs(self) -> int:
        """How many graphs reached the compiler."""
        return self._counts["graphs"]

    @property
    def seconds_saved(self) -> float:
        """What the artifacts behind hits once took to compile."""
        return self._seconds_saved

    @property
    def eventful(self) -> bool:
        """Whether there is anything to report: a graph, a kernel, or a failure."""
        return bool(self._counts["graphs"] or self._counts["kernels"] or self._fallbacks)

    def fallbacks(self) -> dict[str, int]:
        """Return the kinds of failure so far, and how often each."""
        with self._lock:
            return dict(self._fallbacks)

    def as_dict(self) -> dict[str, object]:
        """Return all counters, as they stand in the file."""
        with self._lock:
            return {
                **{name: self._counts[name] for name in _COUNTERS},
                "refused": dict(sorted(self._refused.items())),
                "kernels_refused": dict(sorted(self._kernels_refused.items())),
                "fallbacks": dict(sorted(self._fallbacks.items())),
                "unpublished": dict(sorted(self._unpublished.items())),
                "seconds_saved": round(self._seconds_saved, 3),
                "seconds_waited": round(self._seconds_waited, 3),
                "phases": self._phases(),
                "pid": os.getpid(),
                **self._traces_as_dict(),
                **({"warm": self.warm()} if self.warm is not None else {}),
            }

    def line(self, *, ended: bool = True) -> str:
        """Return the line for the end of the process, without what did not happen; empty where nothing did.

        A graph that nothing became of was interrupted, or, where the process has not `ended`, is under way.
        """
        if not self.eventful:
            return ""
        with self._lock:
            why = _reasons(self._refused + self._fallbacks)
            why_kernels = _reasons(self._kernels_refused + (Counter() if self._counts["graphs"] else self._fallbacks))
            saved = f"from the daemon's store (saved {self._seconds_saved:.0f} s)"
            open_ = self._counts["graphs"] - sum(self._counts[name] for name in _OUTCOMES)
            graphs = _sentence(
                self._counts,
                "graph",
                {**GRAPH_WORDS, "hits": saved},
                here="compiled_here",
                why=why,
                more=[f"{open_} {'interrupted' if ended else 'under way'}"] if open_ > 0 else [],
            )
            kernels = _sentence(self._counts, "kernel", KERNEL_WORDS, here="kernels_here", why=why_kernels)
        return "; ".join(part for part in (graphs, kernels) if part)

    def _traces_as_dict(self) -> dict[str, object]:
        if not self._traces and not self._traces_refused:
            return {}
        return {
            "traces": {
                **{name: self._traces[name] for name in _TRACES},
                "refused": dict(sorted(self._traces_refused.items())),
            }
        }

    def _phases(self) -> dict[str, float]:
        spent = tracing.seconds()
        return {name: round(spent.get(name, 0.0) - self._spent_before.get(name, 0.0), 3) for name in _PHASES}

    def _count(self, name: str) -> int:
        with self._lock:
            self._counts[name] += 1
            return self._counts[name]


def _sentence(
    counts: Counter[str], thing: str, words: Mapping[str, str], *, here: str, why: str, more: Sequence[str] = ()
) -> str:
    """Return what became of all graphs or kernels; empty where there were none."""
    total = counts[f"{thing}s"]
    parts = [
        f"{counts[name]} {said}" + (f" ({why})" if why and name == here else "")
        for name, said in words.items()
        if counts[name]
    ]
    told = ", ".join([*parts, *more])
    if why and not counts[here]:
        told = f"{told} ({why})" if told else why
    return f"{total} {thing}{'' if total == 1 else 's'}: {told}" if total else ""


def _reasons(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))


class ReportFile:
    """Writes the counters to a file at the end of the process.

    Never raises: that a file cannot be written is logged.
    """

    def __init__(self, path: Path, env: MutableMapping[str, str]) -> None:
        """Claim `path`, unless the process that started this one has; `env` is this process's own environment."""
        self._path = path
        mark = f"{os.getpid()} {path}"
        pid, _, owned = env.get(_OWNER, "").partition(" ")
        self._claimed = owned != str(path) or pid == str(os.getpid())  # the same process after an exec keeps its claim
        if self._claimed:
            env[_OWNER] = mark
            with suppress(OSError):
                if stat.S_ISREG(path.lstat().st_mode):
                    path.unlink()
        self._pid = os.getpid()

    def write(self, counters: Counters) -> None:
        """Write the counters; see the module for which file they go to."""
        mine = self._claimed and self._pid == os.getpid()
        if not mine and not counters.eventful:
            return
        text = json.dumps(counters.as_dict(), indent=1) + "\n"
        try:
            if self._path.exists() and not self._path.is_file():  # /dev/stdout, a pipe
                self._path.write_text(text)
                return
            if not mine or not self._place(text, self._path, replace=False):
                self._place(text, self._path.with_name(f"{self._path.name}.{os.getpid()}"), replace=True)
        except OSError as error:
            say(f"the report cannot be written to {self._path} ({error.strerror})", logging.WARNING)

    @staticmethod
    def _place(text: str, path: Path, *, replace: bool) -> bool:
        """Put `text` at `path` whole; return False where something is there already and must stay."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        draft.write_text(text)
        try:
            if replace:
                draft.replace(path)
            else:
                _link(draft, path)
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        return True


def _link(draft: Path, path: Path) -> None:
    """Let `path` name the draft, or raise `FileExistsError`."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a filesystem without hard links: two processes that end in the same instant may then collide
        if path.exists():
            raise FileExistsError(path) from None
        draft.replace(path)
