"""Every text that a client can send is tried with hostile values: it is refused, or cleaned before it is shown.

Neither the log nor a terminal may be changed by it. The table names every text field of every request in the schema,
and a new field must be added to it.
"""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from compile_wire.digest import digest_of
from compile_wire.environment import environment_id
from compile_wire.limits import PROTOCOL_VERSION
from compile_wire.plain import is_plain, plain
from compile_wire.v1 import compiler_daemon_pb2, inventory_pb2, kernels_pb2, page_pb2, replay_pb2, runs_pb2
from compiler_daemon.admin.answers import CompileState, DaemonState, Explanation, Figures
from compiler_daemon.admin.insight.explain_view import print_explanation
from compiler_daemon.admin.insight.statistics_view import print_statistics
from compiler_daemon.admin.status.view import print_status
from compiler_daemon.text.log_format import DAEMON_FORMAT, PlainFormatter
from tests.daemon.daemon_process import ENVIRONMENT, DaemonProcess, manifest_of
from tests.daemon.run_samples import graph, report, run_name

ESCAPE, BELL, TURN = "\x1b", "\x07", "\u202e"
HOSTILE = {
    "a line": "train.py\n2026-11-28 00:00:00,000 INFO compiler_daemon.rpc.access_log: Shutdown OK by owner",
    "a title": f"{ESCAPE}]0;owned{BELL}",
    "a colour": f"train.py{ESCAPE}[31m",
    "a return": "train.py\rforged",
    "another line end": "train.py\u2028forged\x85forged",
    "writing turned around": f"train{TURN}yp.",
    "eight bits": "train.py\x9b31m",
    "nothing": "train\x00.py",
}
_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [\w.]+: |    \| |$")

KERNELS = {"kind": "triton kernels", "triton": "0.fake"}
CLEANED, REFUSED, COMPARED = "cleaned", "refused", "compared with what is stored, and forgotten"
FIELDS = {
    "HandshakeRequest.client_version": CLEANED,
    "HandshakeRequest.environment": REFUSED,
    "HandshakeRequest.program": CLEANED,
    "HandshakeRequest.interpreter": REFUSED,
    "LookupArtifactRequest.environment_id": REFUSED,
    "LookupArtifactRequest.key": REFUSED,
    "LookupArtifactRequest.have": REFUSED,
    "CompileGraphRequest.environment_id": REFUSED,
    "CompileGraphRequest.key": REFUSED,
    "CompileGraphRequest.have": REFUSED,
    "PublishArtifactRequest.disputed": REFUSED,
    "CompileGraphRequest.interpreter": REFUSED,
    "CompileGraphRequest.program": CLEANED,
    "CompileGraphRequest.graph.sha256": REFUSED,
    "PublishArtifactRequest.environment_id": REFUSED,
    "PublishArtifactRequest.key": REFUSED,
    "PublishArtifactRequest.program": CLEANED,
    "PublishArtifactRequest.blobs.sha256": REFUSED,
    "PublishArtifactRequest.graph.sha256": REFUSED,
    "ReadBlobRequest.sha256": REFUSED,
    "WriteBlobRequest.sha256": REFUSED,
    "ListArtifactsRequest.environment_id": COMPARED,
    "ListArtifactsRequest.program": CLEANED,
    "ListArtifactsRequest.origin": CLEANED,
    "ListRequestsRequest.environment_id": COMPARED,
    "ListRequestsRequest.program": CLEANED,
    "DescribeRequest.name": REFUSED,
    "ReadGraphRequest.sha256": REFUSED,
    "RemoveArtifactsRequest.digests": REFUSED,
    "SetPinnedRequest.digests": REFUSED,
    "FindMissingRequest.digests": REFUSED,
    "ImportBlobRequest.sha256": REFUSED,
    "ImportArtifactRequest.environment": REFUSED,
    "ImportArtifactRequest.program": CLEANED,
    "ImportArtifactRequest.graph": REFUSED,
    "CompileKernelRequest.environment_id": REFUSED,
    "CompileKernelRequest.key": REFUSED,
    "CompileKernelRequest.interpreter": REFUSED,
    "CompileKernelRequest.program": CLEANED,
    "CompileKernelRequest.kernel.sha256": REFUSED,
    "ReplayGraphRequest.environment_id": REFUSED,
    "ReplayGraphRequest.key": REFUSED,
    "ReplayGraphRequest.program": CLEANED,
    "ReplayGraphRequest.interpreter": REFUSED,
    "ReplayGraphRequest.graph.sha256": REFUSED,
    "ReportRunRequest.run": REFUSED,
    "ReportRunRequest.program": CLEANED,
    "ReportRunRequest.environment_id": REFUSED,
    "ReportRunRequest.fallbacks": REFUSED,
    "ReportRunRequest.graphs.key": REFUSED,
    "ReportRunRequest.graphs.reason": REFUSED,
    "ReportRunRequest.graphs.message": CLEANED,
    "ReportRunRequest.graphs.graph_sha256": REFUSED,
    "ExplainRunRequest.run": REFUSED,
    "ExplainRunRequest.key": REFUSED,
    "ExplainRunRequest.program": CLEANED,
}


def _texts(message: Descriptor, path: str) -> Iterator[str]:
    for field in message.fields:
        name = f"{path}.{field.name}"
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if field.type == FieldDescriptor.TYPE_STRING or is_map:
            yield name
        elif field.message_type is not None:
            yield from _texts(field.message_type, name)


def _requests() -> dict[str, tuple[str, Descriptor, bool, bool]]:
    """Return each request of the schema with its method, and whether the request and its answers are streams."""
    found = {}
    for schema in (compiler_daemon_pb2, inventory_pb2, kernels_pb2, page_pb2, replay_pb2, runs_pb2):
        for service in schema.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                path = f"/{service.full_name}/{method.name}"
                told = (path, method.input_type, method.client_streaming, method.server_streaming)
                found[method.input_type.name] = told
    return found


def test_every_text_that_a_client_can_send_is_in_the_table() -> None:
    there = {name for _, message, _, _ in _requests().values() for name in _texts(message, message.name)}

    assert there == set(FIELDS)


def _valid(message: str, key: str) -> Any:
    """Return a request whose texts are all valid."""
    module = next(
        one for one in (compiler_daemon_pb2, inventory_pb2, kernels_pb2, replay_pb2, runs_pb2) if hasattr(one, message)
    )
    request = getattr(module, message)()
    names = {field.name for field in request.DESCRIPTOR.fields}
    if message == "HandshakeRequest":
        request.protocol_version = PROTOCOL_VERSION
        request.environment.update({"python": "cp311"})
    if "environment_id" in names and not message.startswith("List"):
        request.environment_id = ENVIRONMENT
    if "key" in names and message != "ExplainRunRequest":
        request.key = key
    if message == "ReportRunRequest":
        request.run = run_name()
        request.graphs.append(report(1, key, "COMPILED_HERE", spec=graph()))
    if message == "PublishArtifactRequest":
        request.manifest = manifest_of(key, b"entry")
        request.blobs.add(sha256=digest_of(b"entry"), data=b"entry")
    if "graph" in names and message in {"CompileGraphRequest", "ReplayGraphRequest"}:
        request.graph.data = b"ok"
    if message == "CompileKernelRequest":
        request.environment_id = environment_id(KERNELS)
        request.kernel.data = b"ok"
    if message == "ImportArtifactRequest":
        request.manifest = manifest_of(key, b"entry")
        request.environment.update({"python": "cp311", "torch": "0.fake"})
    return request


def _with(request: Any, path: str, text: str) -> Any:
    *parents, name = path.split(".")[1:]
    target = request
    for parent in parents:
        target = getattr(target, parent)
        if not hasattr(target, "DESCRIPTOR"):  # a repeated field
            target = target[0] if len(target) else target.add()
    field = target.DESCRIPTOR.fields_by_name[name]
    value = getattr(target, name)
    if field.message_type is not None:  # a map: the text goes into its values if they are text, otherwise into its keys
        if field.message_type.fields_by_name["value"].type == FieldDescriptor.TYPE_STRING:
            value["gpu"] = text
        else:
            value[text] = 1
    elif field.is_repeated:
        value.append(text)
    else:
        setattr(target, name, text)
    return request


def _call(daemon: DaemonProcess, message: str, request: Any) -> grpc.StatusCode:
    path, _, streams_in, streams_out = _requests()[message]
    kind = f"{'stream' if streams_in else 'unary'}_{'stream' if streams_out else 'unary'}"
    call = getattr(daemon.channel, kind)(path, request_serializer=None, response_deserializer=None)
    data = request.SerializeToString()
    try:
        answer = call(iter([data]) if streams_in else data, **daemon.options())
        if streams_out:
            list(answer)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


@pytest.mark.parametrize("field", FIELDS)
def test_hostile_text_is_refused_or_cleaned_and_never_forges_a_line_of_the_log(
    daemon: DaemonProcess, key: str, field: str
) -> None:
    message = field.partition(".")[0]
    daemon.handshake(KERNELS)
    before = len(daemon.log.read_text())

    for number, text in enumerate(HOSTILE.values()):
        code = _call(daemon, message, _with(_valid(message, f"{key}-{number}"), field, text))
        if FIELDS[field] == REFUSED:
            assert code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}, text
        else:
            assert code not in {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}, text

    written = daemon.log.read_text()[before:]
    assert [line for line in written.split("\n") if not is_plain(line)] == []
    assert [line for line in written.split("\n") if not _LINE.match(line)] == []
    assert not re.search(r"^2026-11-28 00:00:00,000 INFO .*access_log: Shutdown OK", written, re.MULTILINE)


def test_what_was_said_of_hostile_programs_is_shown_plainly(daemon: DaemonProcess, key: str) -> None:
    for number, text in enumerate(HOSTILE.values()):
        daemon.compiled(f"{key}-{number}", b"ok", program=text)
        run = _with(_valid("ReportRunRequest", f"{key}-{number}-missed"), "ReportRunRequest.program", text)
        run.graphs[0].message = text
        assert _call(daemon, "ReportRunRequest", run) is grpc.StatusCode.OK

    for command in (["stats"], ["explain"], ["ls"], ["status"], ["show", f"{key}-0"]):
        done = subprocess.run(
            [sys.executable, "-m", "compiler_daemon", *command, "--dir", str(daemon.directory)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert [line for line in done.stdout.split("\n") if not is_plain(line)] == [], command


def _print_status(told: dict[str, Any]) -> None:
    print_status(DaemonState.of(told), [CompileState.of(flight) for flight in told["in_flight"]], told["page"])


def _shown(show: Callable[[Any], None], told: Any) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        show(told)
    return out.getvalue()


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in HOSTILE.items()])
def test_views_clean_what_an_older_daemon_has_let_in(text: str) -> None:
    flight = {"key": text, "program": text, "phase": text, "position": 0, "waited_s": 0, "elapsed_s": 0, "waiters": 1}
    calls = {"state": "open", "reason": text, "retry_in_s": 1.0}
    worker = {"pid": 1, "state": text, "environment_id": text, "key": text, "elapsed_s": 0, "jobs_done": 0}
    status = {
        **dict.fromkeys(("server_version", "address", "directory", "sandbox", "page"), text),
        **dict.fromkeys(("pid", "uptime_s", "rss_bytes", "artifacts", "blobs", "store_bytes", "queued"), 0),
        **{"store_max_bytes": 1, "draining": False, "workers": [{**worker, "rss_bytes": 0}], "in_flight": [flight]},
        **{"quarantined": [{"key": text, "reason": text, "left_s": 0}], "counters": {text: 1}},
        "tiers": [{"address": text, "reads": calls, "writes": calls, "rejected": {text: 1}, "rejections": [text]}],
    }
    program = {
        **dict.fromkeys(("runs", "hits", "hits_local", "compiled_by_daemon", "compiled_here"), 0),
        **{"program": text, "seconds_saved": 0, "seconds_waited": 0, "seen": 0},
    }
    slow = {"key": text, "program": text, "compile_s": 0, "origin": text, "hits": 0, "bytes": 0}
    figures = {
        **dict.fromkeys(("hits", "misses", "merged", "compiled", "published", "artifacts", "store_bytes", "runs"), 0),
        **dict.fromkeys(("seconds_spent", "seconds_spent_here", "seconds_saved"), 0),
        **{"store_max_bytes": 1, "programs": [program], "slowest": [slow], "refused_by_reason": {text: 1}},
        **{"misses_by_reason": {text: 1}, "here_by_reason": {text: 1}, "fallbacks_by_reason": {text: 1}},
    }
    explained = {
        **{"kind": "graph", "number": 1, "name": text, "key": text, "outcome": text, "reason": text, "message": text},
        **{"sentence": text, "nearest": {"key": text, "program": text}, "differences": [{"text": text}], "more": 0},
    }
    run = {
        **dict.fromkeys(("hits", "hits_local", "compiled_by_daemon", "compiled_here", "seconds_saved"), 0),
        **{"run": "1", "program": text, "pid": 1, "ended": True, "fallbacks": {text: 1}},
    }
    told: list[tuple[Callable[[Any], None], Any]] = [
        (_print_status, status),
        (lambda told: print_statistics(Figures.of(told)), figures),
        (lambda told: print_explanation(Explanation.of(told)), {"run": run, "graphs": [explained], "more": 0}),
    ]

    for show, what in told:
        lines = _shown(show, what).split("\n")
        assert [line for line in lines if not is_plain(line)] == []
        assert not any(line.startswith("2026-11-28") for line in lines)


def test_markup_in_a_name_is_shown_and_not_obeyed_and_so_is_the_place_in_the_queue() -> None:
    flight = {"key": "k", "program": "[bold]train[/bold].py", "phase": "queued", "position": 3, "waited_s": 0}
    state = {
        **dict.fromkeys(("server_version", "address", "directory", "sandbox", "page"), ""),
        **dict.fromkeys(("pid", "uptime_s", "rss_bytes", "artifacts", "blobs", "store_bytes", "queued"), 0),
        **{"store_max_bytes": 1, "draining": False, "workers": [], "quarantined": [], "counters": {}},
        "in_flight": [{**flight, "elapsed_s": 0, "waiters": 1}],
    }

    shown = _shown(_print_status, state)

    assert "[bold]train[/bold].py" in shown
    assert "waiting, 3 before it" in shown


# The log


@pytest.mark.parametrize("text", HOSTILE.values())
def test_a_record_is_one_line_and_its_traceback_is_set_off(text: str) -> None:
    try:
        int(text)
    except ValueError:
        record = logging.LogRecord("a.b", logging.INFO, __file__, 1, "refused %s", (text,), sys.exc_info())

    first, *rest = PlainFormatter(DAEMON_FORMAT).format(record).split("\n")

    assert is_plain(first)
    assert _LINE.match(first)
    assert rest
    assert all(line.startswith("    | ") and is_plain(line) for line in rest)


def test_plain_text_is_left_as_it_is() -> None:
    assert plain("træn ⚙ 模型.py") == "træn ⚙ 模型.py"
    record = logging.LogRecord("a", logging.INFO, __file__, 1, "træn ⚙ 模型.py", (), None)
    assert PlainFormatter("%(message)s").format(record) == "træn ⚙ 模型.py"
