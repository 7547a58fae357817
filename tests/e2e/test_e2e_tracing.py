"""A collector receives one trace for each graph, over three processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as pb_grpc

from tests.e2e.conftest import Lab, wait_until


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A span as it arrived at the collector."""

    service: str
    pid: int
    name: str
    trace: bytes
    number: bytes
    parent: bytes
    began: int
    ended: int
    attributes: dict[str, str]


class Collector(pb_grpc.TraceServiceServicer):
    """Accepts spans as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[Seen] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  # the protocol names it
        for group in request.resource_spans:
            resource = {item.key: item.value for item in group.resource.attributes}
            for scope in group.scope_spans:
                for span in scope.spans:
                    seen = Seen(
                        service=resource["service.name"].string_value,
                        pid=resource["process.pid"].int_value,
                        name=span.name,
                        trace=span.trace_id,
                        number=span.span_id,
                        parent=span.parent_span_id,
                        began=span.start_time_unix_nano,
                        ended=span.end_time_unix_nano,
                        attributes={item.key: item.value.string_value for item in span.attributes},
                    )
                    with self._lock:
                        self._spans.append(seen)
        return pb.ExportTraceServiceResponse()

    def spans(self) -> list[Seen]:
        with self._lock:
            return list(self._spans)

    def has(self, service: str, name: str) -> bool:
        return any((span.service, span.name) == (service, name) for span in self.spans())


pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Start a collector on the loopback interface; every process that the test starts sends its spans there."""
    taken = Collector()
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    pb_grpc.add_TraceServiceServicer_to_server(taken, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    yield taken
    server.stop(None).wait()


@pytest.mark.slow
def test_one_trace_follows_a_graph_from_the_trainer_over_the_daemon_to_the_worker(
    lab: Lab, collector: Collector
) -> None:
    daemon = lab.daemon()
    lab.run("perceptron.py", "4", daemon=daemon, bare=True)
    wait_until(lambda: collector.has("compile-worker", "job"), what="the worker's spans arrive")
    wait_until(lambda: collector.has("compile-daemon", "CompileGraph"), what="the daemon's spans arrive")

    spans = collector.spans()
    [graph] = [span for span in spans if span.name == "graph"]
    of_trace = [span for span in spans if span.trace == graph.trace]
    by_service = {
        service: {span.name for span in of_trace if span.service == service}
        for service in ("compile-client", "compile-daemon", "compile-worker")
    }

    assert by_service["compile-client"] >= {"graph", "key", "lookup", "wait", "install", "load"}
    assert by_service["compile-daemon"] >= {"LookupArtifact", "CompileGraph", "queue", "store"}
    assert by_service["compile-worker"] >= {"job", "rebuild", "compile", "pack"}
    assert len({span.pid for span in of_trace}) == 3
    assert graph.attributes == {"program": "perceptron.py"}

    numbers = {span.number: span for span in of_trace}
    for span in of_trace:
        assert span is graph or span.parent in numbers, span
        assert span.began <= span.ended

    def ancestors(name: str) -> list[str]:
        [span] = [span for span in of_trace if span.name == name]
        found = []
        while span.parent in numbers:
            span = numbers[span.parent]
            found.append(span.name)
        return found

    assert ancestors("compile") == ["job", "CompileGraph", "wait", "graph"]
    assert ancestors("store") == ["CompileGraph", "wait", "graph"]
    assert ancestors("LookupArtifact") == ["lookup", "graph"]


@pytest.mark.slow
def test_a_collector_that_is_not_there_changes_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")

    traced = lab.run("perceptron.py", "4", daemon=lab.daemon(), bare=True)

    assert len(traced.result) == 2
    assert traced.report["compiled_by_daemon"] == 1
    assert traced.report["fallbacks"] == {}
