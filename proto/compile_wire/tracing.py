"""One trace for each graph, from the trainer over the daemon to the worker, for whoever asks for it.

It is on where the standard variable OTEL_EXPORTER_OTLP_ENDPOINT (or its twin for traces) is set and the packages of the
extra `otel` are installed; otherwise every call here does nothing and nothing is imported. The context travels as a W3C
`traceparent`: in the metadata of calls, and in the frame that gives a worker its job.

Spans are also added up by name (`seconds`), traced or not: where a process's time went costs a clock read each.

Guarantees: nothing here raises, and nothing waits for a collector, except at the end of a process for what is left.
Spans say what was done and how long it took, with the graph's key and the program's name; never what was in it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, ClassVar

TRACEPARENT = "traceparent"

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_MAX_TRACEPARENT = 256

_logger = logging.getLogger(__name__)
_lock = threading.Lock()


class _Process:
    """Holds what this process traces with."""

    tracer: Any = None
    processor: Any = None
    """Takes spans to the collector."""
    is_set_up = False
    seconds: ClassVar[defaultdict[str, float]] = defaultdict(float)


def set_up(service: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Begin to trace where this is asked for, under the name of a service; return whether it was. Once a process."""
    with _lock:
        if not _Process.is_set_up:
            _Process.is_set_up = True
            if _is_asked_for(environ):
                _Process.tracer = _make_tracer(service, environ)
                # A channel to the collector does not survive a fork, and a child is seldom one that compiles.
                os.register_at_fork(after_in_child=_switch_off)
    return _Process.tracer is not None


def is_on() -> bool:
    """Whether spans go anywhere."""
    return _Process.tracer is not None


def span(name: str, *, parent: str = "", **attributes: str) -> AbstractContextManager[None]:
    """Record a span around a block, inside the present one, or inside the one that another process calls `parent`."""
    return _Timed(name) if _Process.tracer is None else _Span(name, parent, attributes)


def seconds() -> dict[str, float]:
    """Return how long this process has spent in spans so far, by name; one inside another counts for both."""
    with _lock:
        return dict(_Process.seconds)


def passed(name: str, began_ns: int, **attributes: str) -> None:
    """Record a span that has just ended and began at `began_ns`, by `time.time_ns`."""
    _add(name, (time.time_ns() - began_ns) / 1e9)
    if _Process.tracer is None:
        return
    try:
        _Process.tracer.start_span(name, start_time=began_ns, attributes=attributes).end(time.time_ns())
    except Exception:
        _logger.debug("a span was lost", exc_info=True)


def carried() -> str:
    """Return the present span for another process; empty where there is none."""
    if _Process.tracer is None:
        return ""
    try:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        return carrier.get(TRACEPARENT, "")
    except Exception:
        _logger.debug("a trace does not go on", exc_info=True)
        return ""


class Elsewhere:
    """What another process does, told by the one that hears of it: a span, and its phases one after the other in it."""

    def __init__(self, service: str, pid: int, name: str, *, parent: str = "", **attributes: str) -> None:
        """The span belongs to `service`, process `pid`, and lies inside the one that is called `parent`."""
        self._tracer = _tracer_of(service, pid)
        self._whole = _Timed(name) if self._tracer is None else _Span(name, parent, attributes, self._tracer)
        self._phase: _Timed | None = None

    def enter(self, phase: str) -> None:
        """Begin a phase; the one before has ended."""
        self._end_phase()
        self._phase = _Timed(phase) if self._tracer is None else _Span(phase, "", {}, self._tracer)
        self._phase.__enter__()

    def __enter__(self) -> None:
        self._whole.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end_phase()
        self._whole.__exit__(kind, error, traceback)

    def _end_phase(self) -> None:
        if self._phase is not None:
            self._phase.__exit__(None, None, None)
            self._phase = None


class _Timed:
    """A span that is only timed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._began = time.monotonic()

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _add(self._name, time.monotonic() - self._began)


class _Span(_Timed):
    def __init__(self, name: str, parent: str, attributes: dict[str, str], tracer: Any = None) -> None:
        super().__init__(name)
        self._tracer = tracer or _Process.tracer
        self._parent = parent
        self._attributes = attributes
        self._inner: Any = None

    def __enter__(self) -> None:
        super().__enter__()
        try:
            if _Process.tracer is not None:
                inner = self._tracer.start_as_current_span(
                    self._name, context=_context(self._parent), attributes=self._attributes, record_exception=False
                )
                inner.__enter__()
                self._inner = inner
        except Exception:
            _logger.debug("a span was lost", exc_info=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        if self._inner is None:
            return
        try:
            if kind is not None:
                from opentelemetry import trace

                # The kind alone: an error's text may quote what was being compiled.
                trace.get_current_span().set_attribute("error.type", kind.__name__)
            self._inner.__exit__(None, None, None)
        except Exception:
            _logger.debug("a span was lost", exc_info=True)


def _add(name: str, seconds: float) -> None:
    with _lock:
        _Process.seconds[name] += seconds


def _context(parent: str) -> Any:
    """Return the context that a traceparent names; None, which is the present one, where it names none."""
    if not parent or len(parent) > _MAX_TRACEPARENT:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({TRACEPARENT: parent})


def _is_asked_for(environ: Mapping[str, str]) -> bool:
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    return not off and any(environ.get(name) for name in _ENDPOINTS)


def _make_tracer(service: str, environ: Mapping[str, str]) -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        _Process.processor = BatchSpanProcessor(OTLPSpanExporter())
        return _provided(environ.get("OTEL_SERVICE_NAME", service), os.getpid())
    except ImportError:
        _logger.warning("graphs are not traced: install the packages of `compiler-daemon[otel]`")
    except Exception as error:  # noqa: BLE001 - whatever the packages do not like, a training goes on without
        _logger.warning("graphs are not traced: %s: %s", type(error).__name__, error)
    return None


def _tracer_of(service: str, pid: int) -> Any:
    """Return a tracer for another process's spans; None where nothing is traced."""
    if _Process.tracer is None:
        return None
    try:
        return _provided(os.environ.get("OTEL_SERVICE_NAME", service), pid, shutdown_on_exit=False)
    except Exception:
        _logger.debug("another process is not traced", exc_info=True)
        return None


def _provided(service: str, pid: int, *, shutdown_on_exit: bool = True) -> Any:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    # A provider of our own: the process may trace its own affairs with another.
    resource = Resource.create({"service.name": service, "process.pid": pid})
    provider = TracerProvider(resource=resource, shutdown_on_exit=shutdown_on_exit)
    provider.add_span_processor(_Process.processor)
    return provider.get_tracer("compiler-daemon")


def _switch_off() -> None:
    _Process.tracer = None
