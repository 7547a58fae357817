"""The client's facade, against an honest daemon."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from compile_client.session.client import DaemonClient
from compile_client.transport.messages import Artifact, LocalCompile, Part, Refusal
from compile_wire.digest import digest_of
from compile_wire.environment import environment_id
from compile_wire.facts import Facts
from compile_wire.limits import MAX_INLINE_BYTES
from compile_wire.v1 import compiler_daemon_pb2 as pb
from tests.client.client_samples import ENVIRONMENT, KEY, graph_request
from tests.client.fake_daemon import FakeDaemon

Make = Callable[..., DaemonClient]


def compiled(key: str = KEY, size: int = 100, graph: bytes | None = b"graph") -> LocalCompile:
    parts = (Part("entry", "", b"entry" + key.encode()), Part("object", "k.so", b"\x7f" * size))
    return LocalCompile(key=key, guards="", compile_s=3.0, parts=parts, graph=graph)


def test_a_stored_artifact_is_found_whole(daemon: FakeDaemon, client: DaemonClient) -> None:
    digest = daemon.put(KEY, ENVIRONMENT, b"entry", guards="s0 > 4", size=1000)

    (artifact,) = client.begin_graph(KEY).lookup()

    assert artifact.digest == digest
    assert artifact.manifest.guards == "s0 > 4"
    assert {digest_of(data) for data in artifact.blobs.values()} == {ref.sha256 for ref in artifact.manifest.blobs}


def test_a_miss_is_empty_and_no_trouble(daemon: FakeDaemon, client: DaemonClient) -> None:
    request = client.begin_graph(KEY)

    assert request.lookup() == []
    assert not request.ended
    assert client.counters.as_dict()["fallbacks"] == {}


def test_entries_that_were_tried_already_are_left_out(daemon: FakeDaemon, client: DaemonClient) -> None:
    old = daemon.put(KEY, ENVIRONMENT, b"old", guards="s0 < 4")
    new = daemon.put(KEY, ENVIRONMENT, b"new", guards="s0 > 4")
    request = client.begin_graph(KEY)

    assert [artifact.digest for artifact in request.lookup()] == [new, old]
    assert [artifact.digest for artifact in request.lookup(have={new})] == [old]


def test_an_artifact_too_large_for_a_message_is_read_blob_by_blob(daemon: FakeDaemon, client: DaemonClient) -> None:
    daemon.put(KEY, ENVIRONMENT, b"entry", size=MAX_INLINE_BYTES + 1)

    (artifact,) = client.begin_graph(KEY).lookup()

    assert artifact.manifest.total_bytes > MAX_INLINE_BYTES
    assert daemon.calls["ReadBlob"] == 2


@pytest.mark.parametrize("size", [100, MAX_INLINE_BYTES + 1])
def test_a_graph_is_compiled_and_comes_back_verified(daemon: FakeDaemon, client: DaemonClient, size: int) -> None:
    graph = b"g" * size

    outcome = client.begin_graph(KEY).compile(graph_request(graph))

    assert isinstance(outcome, Artifact)
    assert outcome.manifest.graph == digest_of(graph)
    assert daemon.calls["WriteBlob"] == (size > MAX_INLINE_BYTES)


def test_over_a_unix_socket_the_interpreter_is_named(daemon: FakeDaemon, client: DaemonClient) -> None:
    client.begin_graph(KEY).compile(graph_request())

    (request,) = daemon.requests["CompileGraph"]
    assert Path(request.interpreter).is_absolute()
    assert request.program == "test"


def test_a_refusal_is_counted_and_is_no_trouble(daemon: FakeDaemon, client: DaemonClient) -> None:
    daemon.faults.refuse_graph = pb.Refused(
        reason=pb.Refused.REASON_KEY_MISMATCH, message="another key", fields=["dtype: a, b"]
    )
    request = client.begin_graph(KEY)

    outcome = request.compile(graph_request())

    assert outcome == Refusal("key_mismatch", "another key", ("dtype: a, b",))
    assert not request.ended
    counters = client.counters.as_dict()
    assert counters["refused"] == {"key_mismatch": 1}
    assert counters["fallbacks"] == {}


@pytest.mark.parametrize("size", [100, MAX_INLINE_BYTES + 1])
def test_what_was_compiled_here_is_published(daemon: FakeDaemon, client: DaemonClient, size: int) -> None:
    assert client.available()

    assert client.publish_later(compiled(size=size))
    client.close()

    assert daemon.published == [KEY]
    assert daemon.requests["PublishArtifact"][0].graph.data == b"graph"
    assert client.counters.as_dict()["published"] == 1


def test_a_large_graph_is_published_by_its_name(daemon: FakeDaemon, client: DaemonClient) -> None:
    graph = b"g" * (MAX_INLINE_BYTES + 1)

    client.publish_later(compiled(graph=graph))
    client.close()

    assert daemon.requests["PublishArtifact"][0].graph.sha256 == digest_of(graph)
    assert daemon.blobs[digest_of(graph)] == graph


def test_what_is_published_is_found_by_the_next_process(daemon: FakeDaemon, make_client: Make) -> None:
    first = make_client()
    first.publish_later(compiled())
    first.close()

    (artifact,) = make_client().begin_graph(KEY).lookup()

    assert artifact.manifest.origin == "trainer"
    assert artifact.manifest.compile_s == 3.0


def test_a_read_only_client_publishes_nothing(daemon: FakeDaemon, make_client: Make) -> None:
    client = make_client(read_only=True)
    assert client.available()

    assert not client.may_publish()
    assert not client.publish_later(compiled())
    client.close()

    assert daemon.calls["PublishArtifact"] == 0
    assert client.counters.as_dict()["unpublished"] == {}


def test_a_daemon_that_forbids_publishing_is_believed(daemon: FakeDaemon, client: DaemonClient) -> None:
    daemon.faults.may_publish = False

    assert client.available()
    assert not client.may_publish()


def test_facts_come_with_the_handshake(daemon: FakeDaemon, client: DaemonClient) -> None:
    daemon.faults.facts = Facts(vec_isa={"avx2": True})
    assert client.facts() == Facts()

    assert client.available()

    assert client.facts() == Facts(vec_isa={"avx2": True})
    assert client.environment_id() == environment_id(ENVIRONMENT)


def test_the_environment_is_described_once(daemon: FakeDaemon, make_client: Make) -> None:
    asked: list[int] = []
    client = make_client(lambda: asked.append(1) or ENVIRONMENT)
    assert not asked

    for _ in range(3):
        client.begin_graph(KEY).lookup()

    assert asked == [1]
    assert daemon.calls["Handshake"] == 1


def test_threads_share_one_connection(daemon: FakeDaemon, client: DaemonClient) -> None:
    found: list[int] = []
    daemon.put(KEY, ENVIRONMENT, b"entry")
    threads = [threading.Thread(target=lambda: found.append(len(client.begin_graph(KEY).lookup()))) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert found == [1] * 8
    assert daemon.calls["Handshake"] == 1


def test_a_restarted_daemon_is_introduced_to_again(daemon: FakeDaemon, client: DaemonClient) -> None:
    daemon.put(KEY, ENVIRONMENT, b"entry")
    assert client.begin_graph(KEY).lookup()

    daemon._environments.clear()

    assert client.begin_graph(KEY).lookup()
    assert daemon.calls["Handshake"] == 2
    assert client.counters.as_dict()["fallbacks"] == {}


def test_waiting_is_counted(daemon: FakeDaemon, client: DaemonClient) -> None:
    client.begin_graph(KEY).compile(graph_request())

    assert client.counters.as_dict()["seconds_waited"] > 0  # type: ignore[operator]  # as_dict is for JSON
