"""Tests of whole processes: what they import, how they end, and what a fork leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client.client_samples import ENVIRONMENT, KEY
from tests.client.fake_daemon import FakeDaemon

LIGHT = [
    "transport.endpoint",
    "transport.messages",
    "transport.circuit_breaker",
    "config",
    "transport.connection",
    "transport.deadline",
    "errors",
    "reporting.explanation",
    "transport.reconnect",
    "transport.stream_timeout",
    "log",
    "reporting.progress",
    "session.publisher",
    "reporting.counters",
    "reporting.run_reporter",
    "reporting.process_report",
    "reporting.run_queue",
    "session.client",
    "transport.verify",
]

PRELUDE = f"""
import os, sys
from compile_client.config import ClientConfig
from compile_client.session.client import DaemonClient
from compile_client.transport.messages import CompileRequest, LocalCompile, Part
KEY = {KEY!r}
client = DaemonClient(ClientConfig.from_environment(os.environ), lambda: {ENVIRONMENT!r})
def graph():
    client.counters.count_graph()
    return client.begin_graph(KEY).lookup()
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(directory: Path, tmp_path: Path) -> Run:
    """Run a program with a client in a process of its own; its report is written to `report.json`."""

    def run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {
            "COMPILER_DAEMON_DIR": str(directory),
            "TORCH_COMPILE_CLIENT_REPORT": str(tmp_path / "report.json"),
        }
        return subprocess.run(
            [sys.executable, "-c", PRELUDE + program],
            env=env | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def report(tmp_path: Path) -> dict[str, object]:
    fields: dict[str, object] = json.loads((tmp_path / "report.json").read_text())
    return fields


def test_importing_the_client_imports_nothing_heavy() -> None:
    modules = ", ".join(f"compile_client.{name}" for name in LIGHT)
    program = (
        f"import sys, compile_client, {modules}\n"
        "print([name for name in ('grpc', 'torch', 'rich', 'google.protobuf', 'asyncio') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.strip() == "[]"


def test_an_absent_daemon_is_noticed_without_grpc(run: Run, tmp_path: Path) -> None:
    done = run("graph(); print('grpc' in sys.modules, 'rich' in sys.modules)")

    assert done.returncode == 0
    assert done.stdout.strip() == "False False"
    assert "no daemon at unix:" in done.stderr
    assert "torch compiles here" in done.stderr
    assert report(tmp_path)["fallbacks"] == {"absent": 1}


def test_a_process_without_graphs_is_silent_and_still_reports(run: Run, tmp_path: Path) -> None:
    done = run("")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert report(tmp_path)["graphs"] == 0


@pytest.mark.parametrize(
    ("end", "code"),
    [("sys.exit(3)", 3), ("raise ValueError", 1), ("raise KeyboardInterrupt", -signal.SIGINT), ("", 0)],
)
def test_however_a_program_ends_its_counters_are_written(
    daemon: FakeDaemon, run: Run, tmp_path: Path, end: str, code: int
) -> None:
    daemon.put(KEY, ENVIRONMENT, b"entry")

    done = run(f"for a in graph(): client.counters.count_hit(a.manifest.compile_s)\n{end}")

    assert done.returncode == code
    assert report(tmp_path)["hits"] == 1
    assert "compile daemon: 1 graph: 1 from the daemon's store (saved 20 s)" in done.stderr


def test_what_was_compiled_here_is_published_before_the_process_ends(
    daemon: FakeDaemon, run: Run, tmp_path: Path
) -> None:
    done = run(
        "graph()\n"
        "client.publish_later(LocalCompile(key=KEY, guards='', compile_s=1.0, parts=(Part('entry', '', b'e'),)))"
    )

    assert done.returncode == 0
    assert daemon.published == [KEY]
    assert report(tmp_path)["published"] == 1


def test_the_log_can_be_switched_off(run: Run) -> None:
    done = run("graph()", TORCH_COMPILE_CLIENT_LOG="off")

    assert done.stderr == ""


def test_a_malformed_setting_is_said_once_and_does_not_stop_the_program(run: Run) -> None:
    done = run("graph()", TORCH_COMPILE_CLIENT_TIMEOUT="soon")

    assert done.returncode == 0
    assert done.stderr.count("TORCH_COMPILE_CLIENT_TIMEOUT is a positive number") == 1


def test_a_program_that_has_set_up_logging_gets_the_records(run: Run) -> None:
    done = run("import logging; logging.basicConfig(format='[%(name)s] %(message)s')\ngraph()")

    assert done.stderr.count("no daemon at") == 1
    assert "[compile_client] compile daemon: no daemon at" in done.stderr


FORK = """
found = graph()
pid = os.fork()
if pid == 0:
    {child}
    sys.exit(0)
_, status = os.waitpid(pid, 0)
print("child", os.waitstatus_to_exitcode(status))
print("parent", len(graph()))
"""


def test_a_forked_child_that_compiles_opens_its_own_connection(daemon: FakeDaemon, run: Run, tmp_path: Path) -> None:
    daemon.put(KEY, ENVIRONMENT, b"entry")

    done = run(FORK.format(child="assert client.counters.graphs == 0; assert len(graph()) == 1"))

    assert done.stdout.splitlines() == ["child 0", "parent 1"]
    assert daemon.calls["Handshake"] == 2
    assert report(tmp_path)["graphs"] == 2
    (other,) = tmp_path.glob("report.json.*")
    assert json.loads(other.read_text())["graphs"] == 1


def test_a_forked_child_that_compiles_nothing_pays_and_says_nothing(
    daemon: FakeDaemon, run: Run, tmp_path: Path
) -> None:
    daemon.put(KEY, ENVIRONMENT, b"entry")

    done = run(FORK.format(child="pass"))

    assert done.stdout.splitlines() == ["child 0", "parent 1"]
    assert daemon.calls["Handshake"] == 1
    assert done.stderr.count("compile daemon:") == 1
    assert list(tmp_path.glob("report.json.*")) == []


def test_a_child_forked_in_the_middle_of_a_call_asks_nothing(daemon: FakeDaemon, run: Run, tmp_path: Path) -> None:
    daemon.faults.never_finishes = True
    program = """
import threading, time
request = CompileRequest(kind="graph", key=KEY, payload=b"graph")
asking = threading.Thread(target=lambda: client.begin_graph(KEY).compile(request), daemon=True)
asking.start()
while not client._channel.busy:
    time.sleep(0.01)
pid = os.fork()
if pid == 0:
    assert graph() == []
    assert client.counters.as_dict()["fallbacks"] == {"forked": 1}
    sys.exit(0)
print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = run(program, TORCH_COMPILE_CLIENT_TIMEOUT="20")

    assert done.stdout.splitlines() == ["child 0"]
