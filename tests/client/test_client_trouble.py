"""Every failure raises the right counter and is said once; the call ends in time with nothing, and never raises."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from compile_client.session.client import DaemonClient
from compile_client.transport.messages import LocalCompile, Part
from compile_wire.limits import MAX_GRAPH_BYTES
from compile_wire.v1 import compiler_daemon_pb2 as pb
from tests.client.client_samples import ENVIRONMENT, KEY, graph_request
from tests.client.fake_daemon import FakeDaemon, Faults, RawListener

Make = Callable[..., DaemonClient]
Log = pytest.LogCaptureFixture

STATUS = [
    (grpc.StatusCode.UNAVAILABLE, "unavailable"),
    (grpc.StatusCode.CANCELLED, "unavailable"),
    (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated"),
    (grpc.StatusCode.INVALID_ARGUMENT, "invalid"),
    (grpc.StatusCode.UNIMPLEMENTED, "refused"),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "full"),
    (grpc.StatusCode.NOT_FOUND, "missing"),
    (grpc.StatusCode.INTERNAL, "internal"),
    (grpc.StatusCode.UNKNOWN, "internal"),
    (grpc.StatusCode.DATA_LOSS, "internal"),
    (grpc.StatusCode.FAILED_PRECONDITION, "handshake"),
]


def fallbacks(client: DaemonClient) -> object:
    return client.counters.as_dict()["fallbacks"]


def warnings(log: Log) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(("code", "reason"), STATUS)
@pytest.mark.parametrize("call", ["Handshake", "LookupArtifact", "CompileGraph"])
def test_a_failing_call_is_counted_by_its_kind(
    daemon: FakeDaemon, client: DaemonClient, call: str, code: grpc.StatusCode, reason: str
) -> None:
    daemon.faults.abort[call] = code
    request = client.begin_graph(KEY)

    assert request.lookup() == []
    assert request.compile(graph_request()) is None

    assert request.ended
    assert fallbacks(client) == {reason: 1}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("wrong_signature", "bad_signature"),
        ("wrong_key", "bad_signature"),
        ("damaged_blob", "bad_digest"),
        ("broken_manifest", "malformed"),
    ],
)
@pytest.mark.parametrize("never_inline", [False, True])
def test_a_wrong_artifact_is_a_counted_miss_and_never_returned(
    daemon: FakeDaemon, client: DaemonClient, fault: str, reason: str, never_inline: bool
) -> None:
    daemon.put(KEY, ENVIRONMENT, b"entry" * 100)
    daemon.faults.never_inline = never_inline
    setattr(daemon.faults, fault, True)
    request = client.begin_graph(KEY)

    assert request.lookup() == []
    assert fallbacks(client) == {reason: 1}

    daemon.faults = Faults()
    assert client.begin_graph(KEY).lookup()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("wrong_signature", "bad_signature"),
        ("wrong_key", "bad_signature"),
        ("damaged_blob", "bad_digest"),
        ("broken_manifest", "malformed"),
        ("no_outcome", "malformed"),
    ],
)
def test_a_wrong_answer_to_a_compile_is_never_returned(
    daemon: FakeDaemon, client: DaemonClient, fault: str, reason: str
) -> None:
    setattr(daemon.faults, fault, True)

    assert client.begin_graph(KEY).compile(graph_request()) is None
    assert fallbacks(client) == {reason: 1}


def test_a_blob_longer_than_its_manifest_says_is_not_read_on(daemon: FakeDaemon, client: DaemonClient) -> None:
    daemon.put(KEY, ENVIRONMENT, b"entry" * 100)
    daemon.faults.never_inline = True
    daemon.faults.endless_blob = True

    assert client.begin_graph(KEY).lookup() == []
    assert fallbacks(client) == {"bad_digest": 1}


def test_a_secret_that_was_replaced_costs_one_miss(daemon: FakeDaemon, client: DaemonClient) -> None:
    daemon.put(KEY, ENVIRONMENT, b"entry")
    assert client.begin_graph(KEY).lookup()

    daemon.rotate_secret()

    assert client.begin_graph(KEY).lookup() == []
    assert client.begin_graph(KEY).lookup()
    assert fallbacks(client) == {"bad_signature": 1}


def test_entries_that_would_fill_the_memory_are_left_out(
    daemon: FakeDaemon, client: DaemonClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compile_client.transport.connection.MAX_ARTIFACT_BYTES", 250)
    for content in (b"a", b"b", b"c"):
        newest = daemon.put(KEY, ENVIRONMENT, content * 100)

    found = client.begin_graph(KEY).lookup()

    assert len(found) == 2
    assert found[0].digest == newest


def test_one_bad_entry_does_not_cost_the_good_one(daemon: FakeDaemon, client: DaemonClient) -> None:
    good = daemon.put(KEY, ENVIRONMENT, b"good")
    daemon.put(KEY, ENVIRONMENT, b"bad", guards="x")
    daemon.blobs = {name: b"BAD" if data == b"bad" else data for name, data in daemon.blobs.items()}

    found = client.begin_graph(KEY).lookup()

    assert [artifact.digest for artifact in found] == [good]
    assert fallbacks(client) == {"bad_digest": 1}


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        (Faults(refusal="too old"), "refused"),
        (Faults(protocol=99), "refused"),
        (Faults(wrong_environment=True), "environment"),
    ],
)
def test_a_handshake_that_fails_leaves_the_daemon_alone(
    daemon: FakeDaemon, client: DaemonClient, faults: Faults, reason: str
) -> None:
    daemon.faults = faults

    assert not client.available()
    assert not client.available()

    assert fallbacks(client) == {reason: 1, "breaker": 1}
    assert daemon.calls["Handshake"] == 1


def test_facts_that_are_not_signed_are_not_taken_over(daemon: FakeDaemon, client: DaemonClient) -> None:
    from compile_wire.facts import Facts

    daemon.faults.facts = Facts(vec_isa={"avx512": True})
    daemon.faults.wrong_facts_signature = True

    assert not client.available()
    assert client.facts() == Facts()
    assert fallbacks(client) == {"bad_signature": 1}


@pytest.mark.parametrize("call", ["Handshake", "LookupArtifact", "CompileGraph", "ReadBlob"])
def test_a_daemon_that_hangs_costs_a_bounded_time(daemon: FakeDaemon, make_client: Make, call: str) -> None:
    client = make_client(answer_s=0.8, silence_s=0.8)
    daemon.faults.hang.add(call)
    daemon.faults.never_inline = True
    daemon.put(KEY, ENVIRONMENT, b"entry" * 100)
    start = time.monotonic()
    request = client.begin_graph(KEY)

    if call != "CompileGraph":
        assert request.lookup() == []
    assert call == "LookupArtifact" or request.compile(graph_request()) is None

    assert request.compile(graph_request()) is None
    assert time.monotonic() - start < 5
    assert fallbacks(client) == {"timeout": 1}


@pytest.mark.parametrize("call", ["Handshake", "LookupArtifact", "CompileGraph", "ReadBlob"])
def test_a_daemon_that_is_killed_in_a_call_is_no_more_than_a_miss(
    daemon: FakeDaemon, client: DaemonClient, call: str
) -> None:
    daemon.faults.cut.add(call)
    daemon.faults.never_inline = True
    daemon.put(KEY, ENVIRONMENT, b"entry" * 100)
    request = client.begin_graph(KEY)

    if call != "CompileGraph":
        assert request.lookup() == []
    assert request.compile(graph_request()) is None

    assert fallbacks(client) == {"unavailable": 1}


def test_a_daemon_that_comes_back_is_used_again(daemon: FakeDaemon, client: DaemonClient) -> None:
    daemon.put(KEY, ENVIRONMENT, b"entry")
    daemon.faults.cut.add("LookupArtifact")
    assert client.begin_graph(KEY).lookup() == []
    daemon.faults = Faults()
    daemon.stop()
    daemon.start()

    assert client.begin_graph(KEY).lookup()
    assert fallbacks(client) == {"unavailable": 1}


def test_a_daemon_restarted_between_two_graphs_is_not_even_noticed(daemon: FakeDaemon, client: DaemonClient) -> None:
    daemon.put(KEY, ENVIRONMENT, b"entry")
    assert client.begin_graph(KEY).lookup()
    daemon.stop()
    daemon.start()

    assert client.begin_graph(KEY).lookup()
    assert fallbacks(client) == {}


def test_a_daemon_that_greets_and_never_answers_is_left_alone(daemon: FakeDaemon, make_client: Make) -> None:
    client = make_client(answer_s=0.1)
    daemon.faults.hang.add("LookupArtifact")

    for _ in range(5):
        if client.available():
            assert client.begin_graph(KEY).lookup() == []

    assert fallbacks(client) == {"timeout": 2, "breaker": 3}


def test_a_stopped_process_is_asked_a_few_times_and_then_left_alone(directory: Path, make_client: Make) -> None:
    (directory / "token").touch(mode=0o600)
    (directory / "token").write_text("t")
    (directory / "secret").touch(mode=0o600)
    (directory / "secret").write_bytes(bytes(32))
    client = make_client(answer_s=0.2)
    start = time.monotonic()

    with RawListener(directory / "daemon.sock", greeting=None):
        for _ in range(10):
            assert client.begin_graph(KEY).lookup() == []

    assert fallbacks(client) == {"timeout": 2, "breaker": 8}
    assert time.monotonic() - start < 5


def test_someone_who_is_no_daemon_is_no_more_than_a_miss(directory: Path, make_client: Make) -> None:
    (directory / "token").touch(mode=0o600)
    (directory / "token").write_text("t")
    (directory / "secret").touch(mode=0o600)
    (directory / "secret").write_bytes(bytes(32))
    client = make_client(answer_s=0.8)

    with RawListener(directory / "daemon.sock", greeting=b"HTTP/1.1 200 OK\r\n\r\n\x00\xff" * 20):
        assert client.begin_graph(KEY).lookup() == []

    (reason,) = client.counters.as_dict()["fallbacks"]  # type: ignore[misc, attr-defined]  # as_dict is for JSON
    assert reason in {"unavailable", "timeout", "internal"}


def test_progress_without_end_stops_at_the_deadline_and_says_nothing_against_the_daemon(
    daemon: FakeDaemon, make_client: Make
) -> None:
    client = make_client(graph_timeout_s=1.0)
    daemon.faults.never_finishes = True
    start = time.monotonic()

    for _ in range(3):
        assert client.begin_graph(KEY).compile(graph_request()) is None

    assert time.monotonic() - start < 5
    assert fallbacks(client) == {"timeout": 3}


def test_a_compile_that_runs_far_too_long_is_left_to_the_daemon_and_said_nothing_against_it(
    daemon: FakeDaemon, make_client: Make
) -> None:
    client = make_client(hedge_s=0.2, graph_timeout_s=60.0)
    daemon.faults.never_finishes = True
    start = time.monotonic()

    for _ in range(3):
        request = client.begin_graph(KEY)
        assert request.compile(graph_request()) is None
        assert request.ended

    assert time.monotonic() - start < 20
    assert fallbacks(client) == {"slow": 3}


def test_a_graph_that_always_took_long_is_waited_for_as_long_again(daemon: FakeDaemon, make_client: Make) -> None:
    client = make_client(hedge_s=0.1, graph_timeout_s=1.5)
    daemon.faults.never_finishes = True
    daemon.faults.expected_s = 60.0

    assert client.begin_graph(KEY).compile(graph_request()) is None

    assert fallbacks(client) == {"timeout": 1}


def test_all_waits_for_a_graph_lie_inside_one_deadline(daemon: FakeDaemon, make_client: Make) -> None:
    client = make_client(graph_timeout_s=0.3, answer_s=5.0)
    daemon.faults.hang.add("LookupArtifact")
    start = time.monotonic()
    request = client.begin_graph(KEY)

    assert request.lookup() == []
    assert request.compile(graph_request()) is None

    assert time.monotonic() - start < 3


def test_a_draining_daemon_is_counted_as_one(daemon: FakeDaemon, client: DaemonClient) -> None:
    daemon.faults.refuse_graph = pb.Refused(reason=pb.Refused.REASON_DRAINING)

    assert client.begin_graph(KEY).compile(graph_request()) is None
    assert fallbacks(client) == {"draining": 1}


def test_a_graph_too_large_for_the_wire_is_not_sent(daemon: FakeDaemon, client: DaemonClient) -> None:
    assert client.begin_graph(KEY).compile(graph_request(bytes(MAX_GRAPH_BYTES + 1))) is None

    assert fallbacks(client) == {"invalid": 1}
    assert daemon.calls["CompileGraph"] == 0


def test_a_daemon_that_never_remembers_is_not_introduced_to_for_ever(daemon: FakeDaemon, client: DaemonClient) -> None:
    daemon.faults.forget_always = True

    assert client.begin_graph(KEY).lookup() == []

    assert daemon.calls["Handshake"] == 2
    assert fallbacks(client) == {"handshake": 1}


def test_an_absent_daemon_is_counted_for_each_graph_and_said_once(client: DaemonClient, caplog: Log) -> None:
    for _ in range(5):
        assert client.begin_graph(KEY).lookup() == []

    assert fallbacks(client) == {"absent": 5}
    (said,) = warnings(caplog)
    assert "torch compiles here" in said
    assert "compiler-daemon serve" in said


def test_each_kind_of_trouble_is_said_once(daemon: FakeDaemon, client: DaemonClient, caplog: Log) -> None:
    daemon.faults.abort["LookupArtifact"] = grpc.StatusCode.RESOURCE_EXHAUSTED
    for _ in range(3):
        client.begin_graph(KEY).lookup()
    daemon.faults.abort["LookupArtifact"] = grpc.StatusCode.INVALID_ARGUMENT
    for _ in range(3):
        client.begin_graph(KEY).lookup()

    assert fallbacks(client) == {"full": 3, "invalid": 3}
    assert len(warnings(caplog)) == 2


def test_no_secret_is_logged(daemon: FakeDaemon, client: DaemonClient, caplog: Log) -> None:
    caplog.set_level(logging.DEBUG, "compile_client")
    daemon.faults.abort["LookupArtifact"] = grpc.StatusCode.UNAUTHENTICATED

    client.begin_graph(KEY).lookup()

    assert caplog.text
    assert daemon.token not in caplog.text
    assert daemon.secret.hex() not in caplog.text


def test_a_stale_socket_is_an_absent_daemon(daemon: FakeDaemon, client: DaemonClient) -> None:
    daemon.stop()

    assert client.begin_graph(KEY).lookup() == []
    assert fallbacks(client) == {"absent": 1}


def test_a_directory_that_others_can_reach_is_refused(
    daemon: FakeDaemon, client: DaemonClient, directory: Path, caplog: Log
) -> None:
    directory.chmod(0o755)

    assert client.begin_graph(KEY).lookup() == []

    assert fallbacks(client) == {"unsafe_directory": 1}
    assert f"chmod 700 {directory}" in warnings(caplog)[0]
    assert daemon.calls["Handshake"] == 0


def test_an_environment_that_cannot_be_described_is_trouble_and_no_crash(daemon: FakeDaemon, make_client: Make) -> None:
    def broken() -> dict[str, str]:
        raise RuntimeError("no compiler")

    client = make_client(broken)

    assert client.begin_graph(KEY).lookup() == []
    assert fallbacks(client) == {"environment": 1}


def test_a_fault_of_ours_is_trouble_and_no_crash(
    daemon: FakeDaemon, client: DaemonClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compile_client.transport.connection.manifest_digest", lambda _: 1 / 0)
    daemon.put(KEY, ENVIRONMENT, b"entry")

    assert client.begin_graph(KEY).lookup() == []
    assert fallbacks(client) == {"internal": 1}


def test_a_fault_of_the_caller_is_trouble_and_no_crash(client: DaemonClient) -> None:
    assert not client.publish_later(None)  # type: ignore[arg-type]  # that is the fault

    assert fallbacks(client) == {"internal": 1}


def test_an_impatient_user_is_obeyed(daemon: FakeDaemon, client: DaemonClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: bytes) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("compile_client.transport.connection.manifest_digest", interrupted)
    daemon.put(KEY, ENVIRONMENT, b"entry")

    with pytest.raises(KeyboardInterrupt):
        client.begin_graph(KEY).lookup()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "read_only"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "full"),
        (grpc.StatusCode.UNAVAILABLE, "unavailable"),
        (grpc.StatusCode.NOT_FOUND, "missing"),
    ],
)
def test_what_cannot_be_published_is_counted(
    daemon: FakeDaemon, client: DaemonClient, code: grpc.StatusCode, reason: str
) -> None:
    daemon.faults.abort["PublishArtifact"] = code
    parts = (Part("entry", "", b"entry"),)

    client.publish_later(LocalCompile(key=KEY, guards="", compile_s=1.0, parts=parts))
    client.close()

    counters = client.counters.as_dict()
    assert counters["unpublished"] == {reason: 1}
    assert counters["fallbacks"] == {}


def test_what_is_not_fit_for_the_wire_is_not_published(daemon: FakeDaemon, client: DaemonClient) -> None:
    parts = (Part("object", "../../etc", b"x"),)

    client.publish_later(LocalCompile(key=KEY, guards="", compile_s=1.0, parts=parts))
    client.close()

    assert client.counters.as_dict()["unpublished"] == {"invalid": 1}
    assert daemon.calls["PublishArtifact"] == 0


def test_publishing_to_a_daemon_that_hangs_delays_the_end_by_a_bounded_time(
    daemon: FakeDaemon, make_client: Make
) -> None:
    client = make_client(flush_s=0.3, answer_s=2.0)
    daemon.faults.hang.add("PublishArtifact")
    parts = (Part("entry", "", b"entry"),)
    for number in range(3):
        client.publish_later(LocalCompile(key=f"{KEY}{number}", guards="", compile_s=1.0, parts=parts))
    assert daemon.arrived.wait(10)
    start = time.monotonic()

    client.close()

    assert time.monotonic() - start < 2
    assert client.counters.as_dict()["unpublished"] == {"exit": 3}
