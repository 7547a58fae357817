from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from compile_wire.digest import digest_of
from compile_wire.environment import environment_id
from compile_wire.facts import decode_facts
from compile_wire.limits import MAX_GRAPH_BYTES, MAX_HAVE, MAX_INLINE_BYTES, PROTOCOL_VERSION
from compile_wire.signature import verify_artifact, verify_facts
from compile_wire.v1 import compiler_daemon_pb2 as pb
from tests.daemon.daemon_process import DEADLINE_S, ENVIRONMENT, FIELDS, DaemonProcess, manifest_of


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    assert isinstance(raised.value, grpc.Call)
    return raised.value.code()


# Who may ask


@pytest.mark.parametrize(
    "metadata",
    [(), (("authorization", "Bearer wrong"),), (("authorization", "Bearer " + "0" * 1000),), (("token", "x"),)],
    ids=["none", "wrong", "long", "other name"],
)
def test_a_call_without_the_token_is_unauthenticated(
    daemon: DaemonProcess, metadata: tuple[tuple[str, str], ...]
) -> None:
    options = {"timeout": DEADLINE_S, "metadata": metadata}
    service = daemon.compile_service
    calls: list[Callable[[], object]] = [
        lambda: daemon.admin_service.GetStatus(pb.GetStatusRequest(), **options),
        lambda: list(service.ReadBlob(pb.ReadBlobRequest(sha256="0" * 64), **options)),
        lambda: service.WriteBlob(iter([]), **options),
    ]

    codes = [code_of(call) for call in calls]

    assert codes == [grpc.StatusCode.UNAUTHENTICATED] * len(calls)


def test_health_is_answered_without_a_token_for_each_service_and_overall(daemon: DaemonProcess) -> None:
    services = ["", "compiler_daemon.v1.CompileService", "compiler_daemon.v1.AdminService"]

    assert [daemon.health(service) for service in services] == ["SERVING"] * 3


# Handshake


def test_a_handshake_names_the_environment_as_the_client_does(daemon: DaemonProcess) -> None:
    welcome = daemon.handshake()

    assert welcome.environment_id == environment_id(FIELDS)
    assert welcome.refusal == ""
    assert welcome.may_publish
    assert welcome.server_version


def test_another_protocol_version_is_refused_in_words(daemon: DaemonProcess) -> None:
    answer = daemon.handshake(protocol_version=PROTOCOL_VERSION + 1)

    assert "upgrade the daemon" in answer.refusal
    assert answer.environment_id == ""


def test_facts_that_a_worker_found_are_signed_and_told_to_the_next_client(daemon: DaemonProcess, key: str) -> None:
    daemon.compiled(key, b"ok")

    welcome = daemon.handshake()

    secret = (daemon.directory / "secret").read_bytes()
    verify_facts(secret, welcome.facts_signature, environment=ENVIRONMENT, facts=welcome.facts)
    assert decode_facts(welcome.facts).vec_isa == {"avx2": True}


def test_a_client_whose_interpreter_cannot_be_started_is_welcome_all_the_same(daemon: DaemonProcess) -> None:
    assert daemon.handshake(interpreter="/nowhere/python").environment_id == ENVIRONMENT


@pytest.mark.parametrize(
    "fields",
    [{}, {"": "x"}, {"x": "y" * 10_000}, {str(number): "" for number in range(100)}],
    ids=["none", "empty name", "long value", "too many"],
)
def test_an_environment_that_breaks_a_bound_is_invalid(daemon: DaemonProcess, fields: dict[str, str]) -> None:
    assert code_of(lambda: daemon.handshake(fields)) is grpc.StatusCode.INVALID_ARGUMENT


def test_an_environment_that_nobody_has_named_must_be_named_first(daemon: DaemonProcess, key: str) -> None:
    unknown = digest_of(b"unknown")

    assert code_of(lambda: daemon.lookup(key, environment=unknown)) is grpc.StatusCode.FAILED_PRECONDITION
    assert code_of(lambda: daemon.compiled(key, b"ok", environment_id=unknown)) is grpc.StatusCode.FAILED_PRECONDITION


# Publish and lookup


def test_an_unknown_key_is_an_empty_answer(daemon: DaemonProcess, key: str) -> None:
    assert daemon.lookup(key) == []


def test_a_published_artifact_is_found_signed_and_with_its_blobs(daemon: DaemonProcess, key: str) -> None:
    manifest = manifest_of(key, b"entry", b"object")

    assert daemon.publish(key, manifest, b"entry", b"object")
    [entry] = daemon.lookup(key)

    assert entry.manifest == manifest
    assert {blob.sha256: blob.data for blob in entry.blobs} == {
        digest_of(b"entry"): b"entry",
        digest_of(b"object"): b"object",
    }
    secret = (daemon.directory / "secret").read_bytes()
    verify_artifact(secret, entry.signature, key=key, environment=ENVIRONMENT, manifest=manifest)


def test_publishing_the_same_again_is_no_error_and_not_new(daemon: DaemonProcess, key: str) -> None:
    manifest = manifest_of(key, b"entry")
    daemon.publish(key, manifest, b"entry")

    assert not daemon.publish(key, manifest, b"entry")


def test_lookup_leaves_out_what_the_client_has_tried(daemon: DaemonProcess, key: str) -> None:
    first, second = manifest_of(key, b"entry 1"), manifest_of(key, b"entry 2")
    daemon.publish(key, first, b"entry 1")
    daemon.publish(key, second, b"entry 2")

    assert [entry.manifest for entry in daemon.lookup(key)] == [second, first]
    assert [entry.manifest for entry in daemon.lookup(key, have=[digest_of(second)])] == [first]
    assert daemon.lookup(key, have=[digest_of(first), digest_of(second)]) == []


def test_blobs_too_large_for_a_message_are_read_one_by_one(daemon: DaemonProcess, key: str) -> None:
    large = bytes(range(256)) * (MAX_INLINE_BYTES // 256 + 10)
    assert daemon.write_blob(digest_of(large), len(large), large[: 2**20], large[2**20 : 2**21], large[2**21 :])
    daemon.publish(key, manifest_of(key, b"entry", large), b"entry")

    [entry] = daemon.lookup(key)

    assert list(entry.blobs) == []
    assert daemon.read_blob(digest_of(large)) == large
    assert daemon.read_blob(digest_of(b"entry")) == b"entry"


def test_many_entries_of_one_key_never_exceed_a_message(daemon: DaemonProcess, key: str) -> None:
    blobs = [bytes([number]) * 2_000_000 for number in range(4)]
    for blob in blobs:
        daemon.publish(key, manifest_of(key, blob), blob)

    entries = daemon.lookup(key)

    assert [len(entry.blobs) for entry in entries] == [1, 0, 0, 0]
    assert [entry.manifest for entry in entries] == [manifest_of(key, blob) for blob in reversed(blobs)]


def test_a_manifest_of_another_key_or_environment_or_origin_is_refused(daemon: DaemonProcess, key: str) -> None:
    other = environment_id({"python": "cp312"})
    wrong = [
        manifest_of("another key", b"entry"),
        manifest_of(key, b"entry", environment=other),
        manifest_of(key, b"entry", origin="worker"),
        manifest_of(key, b"entry")[:-1],
        b"",
        b"\xff" * 100,
    ]

    codes = {code_of(lambda: daemon.publish(key, manifest, b"entry")) for manifest in wrong}  # noqa: B023  # called at once

    assert codes == {grpc.StatusCode.INVALID_ARGUMENT}
    assert daemon.lookup(key) == []


def test_an_artifact_with_a_missing_blob_is_not_found_and_not_stored(daemon: DaemonProcess, key: str) -> None:
    manifest = manifest_of(key, b"entry", f"absent of {key}".encode())

    assert code_of(lambda: daemon.publish(key, manifest, b"entry")) is grpc.StatusCode.NOT_FOUND
    assert daemon.lookup(key) == []


def test_a_blob_that_is_not_what_its_digest_says_is_refused(daemon: DaemonProcess, key: str) -> None:
    manifest = manifest_of(key, f"right {key}".encode())
    blob = pb.Blob(sha256=digest_of(f"right {key}".encode()), data=b"wrong")

    assert code_of(lambda: daemon.publish(key, manifest, blobs=[blob])) is grpc.StatusCode.INVALID_ARGUMENT


def test_a_blob_that_the_manifest_does_not_name_is_refused(daemon: DaemonProcess, key: str) -> None:
    assert (
        code_of(lambda: daemon.publish(key, manifest_of(key, b"entry"), b"entry", b"stowaway"))
        is grpc.StatusCode.INVALID_ARGUMENT
    )


def test_a_graph_that_is_not_the_manifests_is_refused(daemon: DaemonProcess, key: str) -> None:
    manifest = manifest_of(key, b"entry", graph=b"graph")

    assert (
        code_of(lambda: daemon.publish(key, manifest, b"entry", graph=pb.Graph(data=b"another")))
        is grpc.StatusCode.INVALID_ARGUMENT
    )
    assert daemon.publish(key, manifest, b"entry", graph=pb.Graph(data=b"graph"))


def test_a_daemon_that_takes_no_artifacts_says_so(start_daemon: Callable[..., DaemonProcess], key: str) -> None:
    daemon = start_daemon(daemon={"allow_publish": False})

    assert not daemon.handshake().may_publish
    assert (
        code_of(lambda: daemon.publish(key, manifest_of(key, b"entry"), b"entry")) is grpc.StatusCode.PERMISSION_DENIED
    )
    assert code_of(lambda: daemon.write_blob("0" * 64, MAX_GRAPH_BYTES + 1)) is grpc.StatusCode.PERMISSION_DENIED


def test_a_byte_changed_on_the_disk_is_a_miss_and_counted(daemon: DaemonProcess, key: str) -> None:
    content = f"to be damaged {key}".encode()
    daemon.publish(key, manifest_of(key, content), content)
    [path] = [path for path in (daemon.directory / "store").rglob(digest_of(content)) if path.is_file()]
    path.chmod(0o600)
    path.write_bytes(content.replace(b"to be", b"to bE"))

    assert daemon.lookup(key) == []

    assert code_of(lambda: daemon.read_blob(digest_of(content))) is grpc.StatusCode.NOT_FOUND
    assert daemon.status().counters["quarantined"] >= 1


def test_a_full_store_refuses_what_does_not_fit_and_serves_on(
    start_daemon: Callable[..., DaemonProcess], key: str
) -> None:
    daemon = start_daemon(daemon={"store_max_bytes": 2**20})
    daemon.handshake()
    large = bytes(2**21)

    assert code_of(lambda: daemon.publish(key, manifest_of(key, large), large)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert code_of(lambda: daemon.compiled(key, f"big {2**21}".encode())) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert daemon.publish(key, manifest_of(key, b"small"), b"small")
    assert len(daemon.lookup(key)) == 1


# Blobs


def test_a_blob_written_in_chunks_is_read_back(daemon: DaemonProcess) -> None:
    data = b"0123456789" * 1000

    assert daemon.write_blob(digest_of(data), len(data), data[:3], data[3:])
    assert not daemon.write_blob(digest_of(data), len(data), data)
    assert daemon.read_blob(digest_of(data)) == data


@pytest.mark.parametrize(
    ("announced", "size", "data"),
    [
        (digest_of(b"this"), 4, b"that"),
        (digest_of(b"short"), 6, b"short"),
        (digest_of(b"longer than said"), 3, b"longer than said"),
        (digest_of(b"huge"), 2**40, b"huge"),
        ("not a digest", 4, b"data"),
        ("", 0, b""),
    ],
)
def test_a_blob_that_does_not_match_its_announcement_is_refused(
    daemon: DaemonProcess, announced: str, size: int, data: bytes
) -> None:
    assert code_of(lambda: daemon.write_blob(announced, size, data)) is grpc.StatusCode.INVALID_ARGUMENT


def test_a_blob_that_is_not_there_is_not_found(daemon: DaemonProcess) -> None:
    assert code_of(lambda: daemon.read_blob(digest_of(b"nobody wrote this"))) is grpc.StatusCode.NOT_FOUND


# Malformed requests


def test_malformed_requests_are_invalid_before_any_work_is_done(daemon: DaemonProcess, key: str) -> None:
    digest = "0" * 64
    calls: list[Callable[[], object]] = [
        lambda: daemon.lookup(key, environment="no digest"),
        lambda: daemon.lookup(key, environment=digest.replace("0", "G")),
        lambda: daemon.lookup("", have=[]),
        lambda: daemon.lookup("k" * 10_000),
        lambda: daemon.lookup(key, have=[digest] * (MAX_HAVE + 1)),
        lambda: daemon.lookup(key, have=["x"]),
        lambda: daemon.compiled(key, b""),
        lambda: daemon.compiled(key, b"ok", graph=pb.Graph()),
        lambda: daemon.compiled(key, b"ok", graph=pb.Graph(sha256="../../etc/passwd")),
        lambda: daemon.compiled(key, b"ok", program="p" * 10_000),
        lambda: daemon.compiled(key, b"ok", interpreter="python3"),
        lambda: daemon.compiled(key, b"ok", interpreter="/" + "x" * 10_000),
        lambda: daemon.compiled(key, b"ok", have=["x"] * 10_000),
        lambda: daemon.handshake(interpreter="../python"),
        lambda: daemon.read_blob("../token"),
    ]

    codes = [code_of(call) for call in calls]

    assert codes == [grpc.StatusCode.INVALID_ARGUMENT] * len(calls)
    assert daemon.jobs(key) == []


def test_a_message_larger_than_the_limit_is_refused_and_the_daemon_serves_on(daemon: DaemonProcess, key: str) -> None:
    assert code_of(lambda: daemon.compiled(key, b"x" * (5 * 2**20))) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert daemon.health() == "SERVING"


# Bytes that are no message


def garbage_to(daemon: DaemonProcess, method: str, *, streaming: tuple[bool, bool], token: bool) -> grpc.StatusCode:
    make: Any = {
        (False, False): daemon.channel.unary_unary,
        (False, True): daemon.channel.unary_stream,
        (True, False): daemon.channel.stream_unary,
    }[streaming]
    garbage = b"\xff\xff\xff"
    options = {"timeout": DEADLINE_S, "metadata": daemon.metadata if token else ()}
    return code_of(lambda: list(make(method)(iter([garbage]) if streaming[0] else garbage, **options)))


@pytest.mark.parametrize(
    ("method", "streaming"),
    [
        ("CompileService/LookupArtifact", (False, False)),
        ("CompileService/CompileGraph", (False, True)),
        ("CompileService/WriteBlob", (True, False)),
        ("AdminService/Shutdown", (False, False)),
    ],
)
def test_bytes_that_are_no_message_are_refused_after_the_token_and_without_a_traceback(
    daemon: DaemonProcess, method: str, streaming: tuple[bool, bool]
) -> None:
    name = f"/compiler_daemon.v1.{method}"

    assert garbage_to(daemon, name, streaming=streaming, token=False) is grpc.StatusCode.UNAUTHENTICATED
    assert garbage_to(daemon, name, streaming=streaming, token=True) is grpc.StatusCode.INVALID_ARGUMENT

    assert daemon.health() == "SERVING"
    assert "DecodeError" not in daemon.log.read_text()


@pytest.mark.parametrize(("method", "streaming"), [("Check", (False, False)), ("Watch", (False, True))])
def test_a_prober_that_sends_no_message_is_told_so(
    daemon: DaemonProcess, method: str, streaming: tuple[bool, bool]
) -> None:
    code = garbage_to(daemon, f"/grpc.health.v1.Health/{method}", streaming=streaming, token=False)

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "DecodeError" not in daemon.log.read_text()


def test_a_watched_health_is_still_told(daemon: DaemonProcess) -> None:
    answers = daemon.health_service.Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)

    assert next(answers).status == health_pb2.HealthCheckResponse.SERVING

    answers.cancel()
