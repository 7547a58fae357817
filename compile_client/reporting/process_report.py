"""What this process tells of its graphs and kernels: counters, each kind of failure once, the file at the end.

`ProcessReport.guarding` is where failures end: nothing that the daemon, or this client, does wrong gets any further.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import weakref
from collections.abc import Iterator, MutableMapping, Sequence

from compile_client.config import ClientConfig
from compile_client.errors import ClientError, InternalError
from compile_client.log import Notices, logger, say, set_up_logging
from compile_client.reporting.counters import Counters, ReportFile
from compile_wire.limits import MAX_NAME_TEXT

_MAX_TRACES = 200
"""Sentences about traces that are kept for the explanation."""

_HERE = "torch compiles here"


class ProcessReport:
    """Counts and logs what happens to one process's graphs and kernels. Safe to call from any thread.

    A forked child starts afresh: counters at zero, another name of the run. What was logged is not logged again there.
    """

    counters: Counters
    run: str
    """The name under which the daemon files the record of this process."""
    _notices: Notices

    def __init__(self, config: ClientConfig, *, env: MutableMapping[str, str] | None = None) -> None:
        """Claim the file of the report, if there is to be one; `env` is this process's own environment by default."""
        set_up_logging(config.log_level)
        self._file = ReportFile(config.report, os.environ if env is None else env) if config.report else None
        self._local = threading.local()
        self._start_afresh(Notices())
        for complaint in config.complaints:
            self._notices.once(complaint, complaint)
        this: weakref.ref[ProcessReport] = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _after_fork(this))

    @contextlib.contextmanager
    def guarding(self, consequence: str = _HERE) -> Iterator[None]:
        """Let no failure into the training, neither the daemon's nor one of the client's own: it is counted and logged.

        What torch raises to steer its own compile is no `Exception`, and passes.
        """
        try:
            yield
        except ClientError as error:
            self.failed(error, consequence)
        except Exception as error:  # noqa: BLE001 - the promise of the whole client
            fault = InternalError.of(error)
            fault.__cause__ = error  # for the traceback that `failed` logs
            self.failed(fault, consequence)

    def failed(self, error: ClientError, consequence: str = _HERE) -> None:
        """Count a failure, and log it once for each reason."""
        self.counters.count_fallback(error.reason)
        self._local.failure = (error.reason, str(error))
        self._notices.failure(error, consequence)
        logger.debug("%s", error.reason, exc_info=error)

    def not_published(self, error: ClientError) -> None:
        """Count an artifact that was compiled here and is not stored, and log the reason once."""
        self.counters.count_unpublished(error.reason)
        if isinstance(error, InternalError):
            logger.debug("a fault of the compile client", exc_info=error)
        else:
            self._notices.failure(error, "what was compiled here is not published")

    def last_failure(self) -> tuple[str, str] | None:
        """Return the reason and the text of this thread's last failure since `forget_failure`."""
        return getattr(self._local, "failure", None)

    def forget_failure(self) -> None:
        """Begin a new graph in this thread."""
        self._local.failure = None

    def compiled_locally(self, key: str, reason: str, why: str, *, kernel: str = "") -> None:
        """Log why a graph, or `kernel`, is compiled here although the daemon is well; the first of a reason aloud."""
        what = f"kernel {kernel}" if kernel else "graph"
        text = f"{what} {key[:8]} is compiled here ({reason}): {why}"
        kind = "kernel" if kernel else "graph"
        self._notices.once(f"{kind} {reason}", text, logging.INFO, event="compiled_here", reason=reason, key=key)

    def trace_said(self, text: str, *, aloud: bool = False) -> None:
        """Log what became of a function's trace, and keep it for the explanation at the end."""
        with self._traces_lock:
            if len(self._traces) < _MAX_TRACES and text not in self._traces:
                self._traces.append(text)
        if aloud:
            self._notices.once(text, text)
        logger.debug("%s", text, extra={"daemon_event": "trace"})

    def traces(self) -> list[str]:
        """Return what was said of traces, in order."""
        with self._traces_lock:
            return list(self._traces)

    def finish(self, line: str, explanation: Sequence[str]) -> None:
        """Log the line for the end of the process and the explanation, and write the file."""
        if line or (line := self.counters.line()):
            say(line, event="summary", seconds=round(self.counters.seconds_saved, 3))
        self.explain(explanation)
        if self._file is not None:
            self._file.write(self.counters)

    @staticmethod
    def explain(explanation: Sequence[str]) -> None:
        """Log the lines of an explanation."""
        for part in explanation:
            say(part, event="explanation")

    def _start_afresh(self, notices: Notices) -> None:
        self._notices = notices
        self._traces: list[str] = []
        self._traces_lock = threading.Lock()
        self.counters = Counters()
        self.run = os.urandom(16).hex()

    def _forked(self) -> None:
        self._start_afresh(Notices(self._notices.logged()))


def program_name() -> str:
    """Return how this program is called, as `python -m NAME` or the script's file name; never a path."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and isinstance(spec.name, str):
        return spec.name.removesuffix(".__main__")[:MAX_NAME_TEXT]
    return os.path.basename(sys.argv[0] if sys.argv else "")[:MAX_NAME_TEXT]


def _after_fork(this: weakref.ref[ProcessReport]) -> None:
    report = this()
    if report is not None:
        report._forked()
