"""One compile for a key however many ask, and an artifact that is signed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from compile_wire.digest import digest_of
from compile_wire.limits import MAX_INLINE_BYTES
from compile_wire.manifest import decode_manifest
from compile_wire.signature import verify_artifact
from compile_wire.v1 import compiler_daemon_pb2 as pb
from tests.daemon.compiles.compile_answers import artifact_of, kinds, reason_of
from tests.daemon.daemon_process import ENVIRONMENT, DaemonProcess, wait_until

# One graph


def test_a_compile_ends_in_a_signed_artifact_that_the_next_lookup_finds(daemon: DaemonProcess, key: str) -> None:
    *events, last = daemon.compile(key, b"ok", program="a test")

    assert set(kinds(events)) <= {"queued", "running"}
    assert {event.running.phase for event in events if event.HasField("running")} <= {
        "starting",
        "rebuilding",
        "compiling",
        "packing",
        "storing",
    }
    secret = (daemon.directory / "secret").read_bytes()
    verify_artifact(secret, last.artifact.signature, key=key, environment=ENVIRONMENT, manifest=last.artifact.manifest)
    assert {blob.sha256 for blob in last.artifact.blobs} == {
        blob.sha256 for blob in decode_manifest(last.artifact.manifest).blobs
    }
    assert daemon.lookup(key) == [last.artifact]


def test_asking_again_is_answered_from_the_store(daemon: DaemonProcess, key: str) -> None:
    first = artifact_of(daemon.compiled(key, b"ok"))

    assert daemon.compiled(key, b"ok") == first
    assert len(daemon.jobs(key)) == 1


def test_a_graph_too_large_for_a_message_is_named_by_its_digest(daemon: DaemonProcess, key: str) -> None:
    graph = b"ok #" + b"x" * (5 * 2**20)
    daemon.write_blob(digest_of(graph), len(graph), *(graph[at : at + 2**20] for at in range(0, len(graph), 2**20)))

    artifact_of(daemon.compiled(key, b"", graph=pb.Graph(sha256=digest_of(graph))))


def test_a_graph_that_was_never_written_is_not_found(daemon: DaemonProcess, key: str) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        daemon.compiled(key, b"", graph=pb.Graph(sha256=digest_of(b"never written")))

    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_an_artifact_too_large_for_a_message_comes_without_its_blobs(daemon: DaemonProcess, key: str) -> None:
    size = MAX_INLINE_BYTES + 1

    entry = artifact_of(daemon.compiled(key, f"big {size}".encode()))

    assert list(entry.blobs) == []
    [large] = [blob for blob in decode_manifest(entry.manifest).blobs if blob.role == "object"]
    assert daemon.read_blob(large.sha256) == bytes(size)


def test_a_waiter_hears_something_all_the_time_and_what_to_expect(
    start_daemon: Callable[..., DaemonProcess], key: str
) -> None:
    daemon = start_daemon(flights={"event_s": 0.1})
    daemon.handshake()
    daemon.compiled(f"{key}-before", b"ok 0.4")

    times, events = [], []
    for event in daemon.compile(key, b"ok 1"):
        times.append(time.monotonic())
        events.append(event)

    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 1.0
    elapsed = [event.running.elapsed_s for event in events if event.HasField("running")]
    assert elapsed == sorted(elapsed)
    assert elapsed[-1] > 0.8
    assert "compiling" in {event.running.phase for event in events}
    assert events[-2].running.expected_s == pytest.approx(0.4, abs=0.3)


def test_a_client_whose_artifact_did_not_fit_gets_another(daemon: DaemonProcess, key: str) -> None:
    first = artifact_of(daemon.compiled(key, b"ok"))

    second = artifact_of(daemon.compiled(key, b"ok", have=[digest_of(first.manifest)]))

    assert second.manifest != first.manifest
    assert [entry.manifest for entry in daemon.lookup(key)] == [second.manifest, first.manifest]


@pytest.mark.parametrize("reason", ["KEY_MISMATCH", "UNSUPPORTED", "COMPILE_ERROR", "UNCACHEABLE"])
def test_what_the_worker_refuses_is_told_and_tried_again_next_time(
    daemon: DaemonProcess, key: str, reason: str
) -> None:
    answers = [daemon.compiled(key, f"refuse {reason}".encode()) for _ in range(3)]

    assert [reason_of(answer) for answer in answers] == [reason] * 3
    assert isinstance(answers[0], pb.Refused)
    assert answers[0].message == "because of the test"
    assert list(answers[0].fields) == ["shape: 1, 2"]
    assert len(daemon.jobs(key)) == 3


# Single flight


def test_eight_askers_share_one_compile(daemon: DaemonProcess, key: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: daemon.compiled(key, b"ok 0.5"), range(8)))

    assert len({artifact_of(answer).manifest for answer in answers}) == 1
    assert len(daemon.jobs(key)) == 1


def test_a_waiter_that_goes_disturbs_no_other(daemon: DaemonProcess, key: str) -> None:
    first = daemon.compile(key, b"ok 0.7")
    next(first)
    with ThreadPoolExecutor(1) as threads:
        second = threads.submit(daemon.compiled, key, b"ok 0.7")
        wait_until(lambda: daemon.jobs(key), what="the compile begins")
        first.cancel()
        artifact_of(second.result())

    assert len(daemon.jobs(key)) == 1


def test_a_waiters_deadline_is_its_own(daemon: DaemonProcess, key: str) -> None:
    with ThreadPoolExecutor(1) as threads:
        patient = threads.submit(daemon.compiled, key, b"ok 0.8")
        wait_until(lambda: daemon.jobs(key), what="the compile begins")
        with pytest.raises(grpc.RpcError) as raised:
            list(daemon.compile(key, b"ok 0.8", timeout=0.2))
        artifact_of(patient.result())

    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_compile_that_nobody_waits_for_any_more_is_finished_and_stored(daemon: DaemonProcess, key: str) -> None:
    asker = daemon.compile(key, b"ok 0.4")
    next(asker)
    wait_until(lambda: daemon.jobs(key), what="the compile begins")

    asker.cancel()

    wait_until(lambda: daemon.lookup(key), what="the artifact is stored")
    assert len(daemon.jobs(key)) == 1


def test_a_full_queue_is_refused_politely(start_daemon: Callable[..., DaemonProcess], key: str) -> None:
    daemon = start_daemon(pool={"max_workers": 1}, flights={"max_queued": 1, "event_s": 0.05})
    daemon.handshake()
    running = daemon.compile(f"{key}-1", b"ok 1")
    next(running)
    wait_until(lambda: daemon.jobs(f"{key}-1"), what="the first compile begins")
    waiting = daemon.compile(f"{key}-2", b"ok")
    assert next(waiting).HasField("queued")

    with pytest.raises(grpc.RpcError) as raised:
        daemon.compiled(f"{key}-3", b"ok")

    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert [kinds(list(stream))[-1] for stream in (running, waiting)] == ["artifact", "artifact"]
