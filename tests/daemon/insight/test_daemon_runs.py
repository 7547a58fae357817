"""A real daemon keeps, explains and counts what trainers report."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from typing import Any, Self

import grpc
import pytest

from compile_wire.environment import environment_id
from compile_wire.limits import MAX_GRAPHS_PER_REPORT, MAX_MESSAGE_TEXT
from compile_wire.v1 import compiler_daemon_pb2 as base_pb
from compile_wire.v1 import runs_pb2 as pb
from compile_wire.v1 import runs_pb2_grpc as pb_grpc
from tests.daemon.daemon_process import (
    DEADLINE_S,
    ENVIRONMENT,
    FIELDS,
    INTERRUPTIBLE,
    DaemonProcess,
    manifest_of,
    wait_until,
)
from tests.daemon.run_samples import graph, report, run_name


class Runs:
    """Calls `RunService` of one daemon."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        self.stub = pb_grpc.RunServiceStub(daemon.channel)

    def report(self, run: str, *graphs: pb.GraphReport, **fields: Any) -> None:
        request = pb.ReportRunRequest(
            **{"run": run, "program": "train.py", "pid": 7, "environment_id": ENVIRONMENT, **fields}, graphs=graphs
        )
        self.stub.ReportRun(request, **self.daemon.options())

    def explain(self, **fields: str) -> pb.ExplainRunResponse:
        return self.stub.ExplainRun(pb.ExplainRunRequest(**fields), **self.daemon.options())

    def statistics(self) -> pb.GetStatisticsResponse:
        return self.stub.GetStatistics(pb.GetStatisticsRequest(), **self.daemon.options())

    def flights(self) -> list[pb.FlightStatus]:
        return list(self.stub.ListFlights(pb.ListFlightsRequest(), **self.daemon.options()).flights)

    def publish(self, key: str, spec: bytes, fields: dict[str, str] | None = None) -> None:
        """Publish an artifact as if it had been there before the next run began."""
        environment = environment_id(fields) if fields else ENVIRONMENT
        self.daemon.handshake(fields or FIELDS)
        blob = f"entry of {key}".encode()
        manifest = manifest_of(key, blob, graph=spec, environment=environment)
        assert self.daemon.publish(
            key, manifest, blob, graph=base_pb.Graph(data=spec), program="train.py", environment_id=environment
        )


@pytest.fixture
def runs(daemon: DaemonProcess) -> Runs:
    return Runs(daemon)


def told(answer: pb.ExplainRunResponse) -> list[str]:
    (only,) = answer.graphs
    return [difference.text for difference in only.differences]


def cli(daemon: DaemonProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "compiler_daemon", *arguments, "--dir", str(daemon.directory)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_new_graph_is_explained_by_the_nearest_known_one(start_daemon: Callable[..., DaemonProcess]) -> None:
    runs = Runs(start_daemon())
    known, changed = graph(shape=(8, 4)), graph(shape=(16, 4))
    runs.publish("known", known)
    runs.publish("stranger", graph(shape=(8, 4), operator="torch.tanh", threads=1))
    assert runs.daemon.compiled("changed", changed, program="train.py").manifest

    runs.report(run_name(), report(1, "changed", spec=changed, waited_s=2.0), ended=True)
    answer = runs.explain()

    assert told(answer) == ["input 0 (x): shape [16, 4], was [8, 4]"]
    (explained,) = answer.graphs
    assert (explained.cause, explained.nearest.key) == ("new", "known")
    assert explained.sentence == "never seen before; the nearest known request differs in"
    assert answer.run.compiled_by_daemon == 1
    assert answer.run.ended


def test_a_request_that_came_later_explains_nothing(start_daemon: Callable[..., DaemonProcess]) -> None:
    runs = Runs(start_daemon())
    spec = graph()
    runs.daemon.handshake()
    runs.daemon.compiled("mine", spec, program="train.py")
    runs.publish("later", graph(shape=(16, 4)))

    runs.report(run_name(), report(1, "mine", spec=spec, age_s=30.0))
    (explained,) = runs.explain().graphs

    assert not explained.HasField("nearest")
    assert explained.sentence == "never seen before, and there is no earlier request to compare it with"


def test_a_key_known_for_another_environment_is_explained_by_the_fields_that_differ(runs: Runs) -> None:
    key, spec = "elsewhere", graph()
    runs.publish(key, spec, {**FIELDS, "torch": "2.11.0+cpu", "torch_key": "x"})
    fields = {**FIELDS, "torch": "2.13.0+cpu", "torch_key": "y"}
    runs.daemon.handshake(fields)
    time.sleep(0.6)  # only a request older than this counts as one from before the run

    run = run_name()
    runs.report(run, report(1, key, "COMPILED_HERE", spec=spec), environment_id=environment_id(fields))
    (explained,) = (answer := runs.explain(run=run)).graphs

    assert explained.cause == "environment"
    assert told(answer) == ["torch 2.13.0, was 2.11.0"]


def test_an_artifact_that_is_gone_is_told_from_one_that_never_was(start_daemon: Callable[..., DaemonProcess]) -> None:
    runs = Runs(start_daemon())
    runs.publish("there", graph())
    time.sleep(0.6)  # the same wait as in the test above

    run = run_name()
    runs.report(run, report(1, "there", spec=graph()), report(2, "never", spec=graph(shape=(2, 2))))

    assert [graph.cause for graph in runs.explain(run=run).graphs] == ["gone", "new"]
    assert dict(runs.statistics().misses_by_reason) == {"gone": 1, "new": 1}


def test_guards_that_did_not_hold_are_the_cause(runs: Runs) -> None:
    run = run_name()
    runs.report(run, report(1, "guarded", tried=2, message="these guards did not hold: s0 > 4"))

    (explained,) = runs.explain(run=run).graphs

    assert explained.cause == "guards"
    assert explained.message == "these guards did not hold: s0 > 4"


def test_a_refused_graph_is_explained_though_it_is_not_in_the_store(runs: Runs, key: str) -> None:
    runs.publish(f"known-{key}", graph(shape=(128, 4)))
    spec = graph(shape=(64, 4))
    refused = runs.daemon.compiled(f"refuse-{key}", spec, program="train.py")
    run = run_name()

    runs.report(
        run, report(1, f"refuse-{key}", "COMPILED_HERE", spec=spec, reason="unsupported", message="node y: no", tried=0)
    )
    (explained,) = (answer := runs.explain(run=run)).graphs

    assert isinstance(refused, base_pb.Refused)
    assert (explained.reason, explained.message) == ("unsupported", "node y: no")
    assert "input 0 (x): shape [64, 4], was [128, 4]" in told(answer)


def test_a_key_is_found_by_its_beginning(runs: Runs) -> None:
    runs.publish("beginning-of-a-key", graph(shape=(3, 3)))

    assert [graph.key for graph in runs.explain(key="beginning-of").graphs] == ["beginning-of-a-key"]


def test_an_ambiguous_or_unknown_key_is_said(runs: Runs) -> None:
    runs.publish("twice-a", graph(shape=(3, 5)))
    runs.publish("twice-b", graph(shape=(3, 6)))

    with pytest.raises(grpc.RpcError) as ambiguous:
        runs.explain(key="twice-")
    with pytest.raises(grpc.RpcError) as unknown:
        runs.explain(key="no-such-key")

    assert ambiguous.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "twice-a, twice-b" in ambiguous.value.details()
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_repeated_report_counts_once(start_daemon: Callable[..., DaemonProcess]) -> None:
    runs = Runs(start_daemon())
    run = run_name()
    for _ in range(3):
        runs.report(run, report(1, "a", "HIT", saved_s=5.0), report(2, "b"), fallbacks={"timeout": 2})
    runs.report(run, report(3, "c", "COMPILED_HERE", reason="not_carried", spent_s=4.0), fallbacks={"timeout": 3})

    now = runs.statistics()

    (program,) = now.programs
    assert (program.runs, program.hits, program.compiled_by_daemon, program.compiled_here) == (1, 1, 1, 1)
    assert (program.seconds_saved, program.seconds_spent) == (5.0, 4.0)
    assert dict(now.fallbacks_by_reason) == {"timeout": 3}
    assert dict(now.here_by_reason) == {"not_carried": 1}


def test_what_was_reported_survives_a_kill(start_daemon: Callable[..., DaemonProcess]) -> None:
    daemon = start_daemon()
    runs = Runs(daemon)
    runs.publish("kept", graph())
    runs.report(run_name(), report(1, "a", "HIT"), report(2, "b", "COMPILED_HERE", reason="uncacheable"))
    before = wait_until(
        lambda: (now := runs.statistics()).published and dict(now.misses_by_reason) and now, what="figures"
    )
    time.sleep(1.5)  # counters go to the disk once a second

    daemon.kill()
    daemon.start()
    after = Runs(daemon).statistics()

    assert after.programs == before.programs
    assert after.misses_by_reason == before.misses_by_reason
    assert (after.published, after.slowest[0].key) == (1, "kept")
    assert Runs(daemon).explain().run == before.last_runs[0]


def test_a_damaged_file_of_runs_is_set_aside_and_nothing_else_is_lost(
    start_daemon: Callable[..., DaemonProcess],
) -> None:
    daemon = start_daemon()
    Runs(daemon).publish("kept", graph())
    daemon.kill()
    for path in daemon.directory.glob("runs.sqlite3*"):
        path.unlink()
    (daemon.directory / "runs.sqlite3").write_bytes(b"no database" * 1000)

    daemon.start()

    assert (daemon.directory / "runs.sqlite3.damaged").exists()
    daemon.handshake()
    assert len(daemon.lookup("kept")) == 1
    Runs(daemon).report(run_name(), report(1, "a"))
    assert Runs(daemon).statistics().runs == 1


BROKEN: dict[str, dict[str, Any]] = {
    "run too short": {"run": "short"},
    "run no hex": {"run": "g" * 32},
    "environment": {"environment_id": "x"},
    "program": {"program": "p" * 2000},
    "age no number": {"age_s": float("nan")},
    "age negative": {"age_s": -1.0},
    "too many graphs": {"graphs": [report(n, "k") for n in range(MAX_GRAPHS_PER_REPORT + 1)]},
    "key": {"graphs": [report(1, "k" * 300)]},
    "message": {"graphs": [report(1, "k", message="m" * (MAX_MESSAGE_TEXT + 1))]},
    "reason": {"graphs": [report(1, "k", reason="two words")]},
    "seconds": {"graphs": [report(1, "k", waited_s=float("inf"))]},
    "graph": {"graphs": [report(1, "k", graph_sha256="no digest")]},
    "outcome": {"graphs": [pb.GraphReport(number=1, key="k")]},
    "too many reasons": {"fallbacks": {f"r{n}": 1 for n in range(100)}},
}


@pytest.mark.parametrize("fields", BROKEN.values(), ids=BROKEN)
def test_a_report_that_breaks_a_bound_is_refused(runs: Runs, fields: dict[str, Any]) -> None:
    request = pb.ReportRunRequest(**{"run": run_name(), "environment_id": ENVIRONMENT, **fields})

    with pytest.raises(grpc.RpcError) as refused:
        runs.stub.ReportRun(request, **runs.daemon.options())

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_compiles_under_way_are_listed_with_when_they_will_be_done(start_daemon: Callable[..., DaemonProcess]) -> None:
    daemon = start_daemon(pool={"max_workers": 1}, daemon={"drain_s": 0.2})
    runs = Runs(daemon)
    daemon.handshake()
    daemon.compiled("first", graph())  # a first compile, by which the daemon expects others to last
    running = daemon.compile("sleep-1", graph(shape=(2, 4)), program="train.py")
    wait_until(lambda: [f for f in runs.flights() if f.phase == "compiling"], what="a compile runs")
    joined = daemon.compile("sleep-1", graph(shape=(2, 4)))
    queued = daemon.compile("sleep-2", graph(shape=(3, 4)))

    flights = wait_until(
        lambda: (
            (now := runs.flights())
            and len(now) == 2
            and now[0].waiters == 2
            and all(flight.HasField("eta_s") for flight in now)
            and now
        ),
        what="two compiles, each with when it will be done",
    )

    assert [flight.key for flight in flights] == ["sleep-1", "sleep-2"]
    assert (flights[0].program, flights[0].phase, flights[0].elapsed_s > 0) == ("train.py", "compiling", True)
    assert (flights[1].phase, flights[1].waiters) == ("queued", 1)
    assert flights[1].eta_s >= flights[0].eta_s
    state = json.loads(cli(daemon, "status", "--json").stdout)
    assert [flight["key"] for flight in state["in_flight"]] == ["sleep-1", "sleep-2"]
    assert "sleep-1" in cli(daemon, "status").stdout
    for call in (running, joined, queued):
        call.cancel()


def test_the_command_line_explains_and_counts(start_daemon: Callable[..., DaemonProcess]) -> None:
    runs = Runs(start_daemon())
    runs.publish("known", graph(shape=(8, 4)))
    changed = graph(shape=(16, 4))
    assert runs.daemon.compiled("changed", changed, program="train.py").manifest
    runs.report(run_name(), report(1, "changed", spec=changed), report(2, "known", "HIT", saved_s=3.0), ended=True)

    for words in ([], ["changed"], ["--program", "train.py"]):
        assert "input 0 (x): shape [16, 4], was [8, 4]" in cli(runs.daemon, "explain", *words).stdout
    answer = json.loads(cli(runs.daemon, "explain", "--json").stdout)
    assert [graph["outcome"] for graph in answer["graphs"]] == ["compiled_by_daemon"]
    figures = json.loads(cli(runs.daemon, "stats", "--json").stdout)
    assert figures["programs"][0]["hits"] == 1
    assert figures["misses_by_reason"] == {"new": 1}
    assert "train.py" in cli(runs.daemon, "stats").stdout


def test_unknown_things_and_wrong_use_have_their_exit_codes(daemon: DaemonProcess) -> None:
    unknown = cli(daemon, "explain", "no-such-key")
    both = cli(daemon, "explain", "key", "--program", "p")

    assert (unknown.returncode, both.returncode) == (1, 2)
    assert "no key begins with no-such-key" in unknown.stderr


def test_watching_prints_a_line_again_and_again_where_there_is_no_terminal(daemon: DaemonProcess) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "compiler_daemon", "stats", "--watch", "--every", "0.2", "--dir", str(daemon.directory)],
        stdout=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout is not None
        lines = [watching.stdout.readline() for _ in range(2)]
        watching.terminate()
        watching.wait(DEADLINE_S)

    assert all("hits" in line and "artifacts" in line for line in lines)


class Terminal:
    """Runs a command in a terminal of 40 lines and 80 columns, until the block ends."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (40, 80))
        self._process = subprocess.Popen(
            [*INTERRUPTIBLE, sys.executable, "-m", "compiler_daemon", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={name: os.environ[name] for name in os.environ if name not in ("COLUMNS", "LINES")}
            | {"TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(theirs)
        self.seen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self.end()

    def read_until(self, pattern: str) -> None:
        """Read on until the output matches `pattern`; fail after the deadline, or when the command ends."""
        end = time.monotonic() + DEADLINE_S
        while not re.search(pattern, self.seen):
            assert select.select([self._ours], [], [], max(0.0, end - time.monotonic()))[0], self.seen
            self.seen += os.read(self._ours, 65536).decode()

    def interrupt(self) -> int:
        """Do what ctrl-C does and return the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        """Wait for the command's end and return the exit code."""
        with contextlib.suppress(OSError):  # Linux answers EIO when the other end is closed
            while part := os.read(self._ours, 65536):
                self.seen += part.decode()
        os.close(self._ours)
        return self._process.wait(DEADLINE_S)


def test_watching_in_a_terminal_fills_the_screen_follows_what_happens_and_gives_the_screen_back(
    start_daemon: Callable[..., DaemonProcess],
) -> None:
    daemon = start_daemon()
    with Terminal("stats", "--watch", "--every", "0.2", "--dir", str(daemon.directory)) as terminal:
        terminal.read_until("artifacts")
        assert "watched.py" not in terminal.seen

        Runs(daemon).report(run_name(), report(1, "a", "HIT"), program="watched.py")
        terminal.read_until("watched.py")

        assert terminal.interrupt() == 0
    assert "\x1b[?1049h" in terminal.seen
    assert "\x1b[?1049l" in terminal.seen
    assert "Traceback" not in terminal.seen


def test_watching_a_daemon_that_goes_ends_with_words_on_the_screen_that_was_there_before(
    start_daemon: Callable[..., DaemonProcess],
) -> None:
    daemon = start_daemon()
    with Terminal("stats", "--watch", "--every", "0.2", "--dir", str(daemon.directory)) as terminal:
        terminal.read_until("artifacts")

        daemon.kill()

        assert terminal.end() == 1
    assert "no daemon" in terminal.seen.rpartition("\x1b[?1049l")[2]
