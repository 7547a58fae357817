from __future__ import annotations

import subprocess
import sys
import time

import pytest

from compile_wire import tracing

OFF = [
    {},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1", "OTEL_SDK_DISABLED": "TRUE"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1", "OTEL_TRACES_EXPORTER": "none"},
]


def python(code: str, **environ: str) -> str:
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True)
    return ended.stdout + ended.stderr


@pytest.mark.parametrize("environ", OFF)
def test_without_an_endpoint_nothing_is_imported_and_nothing_done(environ: dict[str, str]) -> None:
    code = """
import sys
from compile_wire import tracing
assert not tracing.set_up("test")
with tracing.span("a", key="b"):
    tracing.passed("c", 0)
    assert tracing.carried() == ""
print([name for name in sys.modules if name.split(".")[0] in ("opentelemetry", "grpc")])
"""
    assert python(code, **environ) == "[]\n"


def test_without_the_packages_it_is_said_once_and_work_goes_on() -> None:
    code = """
import sys
sys.modules["opentelemetry"] = None
from compile_wire import tracing
print(tracing.set_up("test"), tracing.set_up("test"))
with tracing.span("a"):
    print("work")
"""
    said = python(code, OTEL_EXPORTER_OTLP_ENDPOINT="http://localhost:1")

    assert said.count("compiler-daemon[otel]") == 1
    assert "False False\nwork\n" in said


def test_a_span_that_is_off_costs_next_to_nothing() -> None:
    assert not tracing.is_on()
    started = time.perf_counter()
    for _ in range(10_000):
        with tracing.span("a", key="b"):
            pass

    assert time.perf_counter() - started < 1.0


@pytest.mark.parametrize("parent", ["", "garbage", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 100_000, "\x00é"])
def test_a_parent_that_is_none_begins_a_trace_and_raises_nothing(parent: str) -> None:
    code = f"""
from compile_wire import tracing
assert tracing.set_up("test")
try:
    with tracing.span("a", parent={parent!r}):
        assert tracing.carried().startswith("00-")
        raise KeyError("b")
except KeyError:
    print("raised")
import os; os._exit(0)
"""
    code = code.replace('print("raised")', 'print("raised", flush=True)')
    assert "raised" in python(code, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
