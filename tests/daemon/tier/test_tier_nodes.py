"""Two daemons share a tier of each engine: one serves what the other has compiled, if it trusts the other's signer."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from compile_wire.manifest import manifest_digest
from compile_wire.v1 import compiler_daemon_pb2 as pb
from tests.daemon.daemon_process import manifest_of, wait_until
from tests.daemon.tier.engine_samples import Place
from tests.daemon.tier.node_samples import LEASE_S, Node, started


@pytest.fixture
def nodes(tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Node]]]:
    """Start nodes on the tier of each engine."""
    for name, value in place.environ.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as scope:

        def start(*names: str, strangers: bool = False, **settings: Any) -> list[Node]:
            made = [Node(tmp_path / name, str(place.address), **settings) for name in names or ("a", "b")]
            return scope.enter_context(contextmanager(started)(made, strangers=strangers))

        yield start


def digest(answer: pb.ArtifactEntry | pb.Refused) -> str:
    assert isinstance(answer, pb.ArtifactEntry), answer
    return manifest_digest(answer.manifest)


def refused(answer: pb.ArtifactEntry | pb.Refused) -> pb.Refused:
    assert isinstance(answer, pb.Refused), answer
    return answer


def test_a_lookup_on_another_node_finds_what_one_has_compiled(nodes: Any) -> None:
    a, b = nodes()

    made = digest(a.compiled("k1", b"ok"))

    assert [manifest_digest(entry.manifest) for entry in b.lookup("k1")] == [made]
    assert b.counted("tier_hits") == 1
    assert b.jobs("k1") == []
    assert [manifest_digest(entry.manifest) for entry in b.lookup("k1")] == [made]
    assert b.counted("tier_hits") == 1, "the second lookup is answered from the node's own store"


def test_nodes_that_are_asked_at_once_compile_a_graph_once_and_have_the_same_artifact(nodes: Any) -> None:
    a, b = nodes()
    keys = [f"k{number}" for number in range(4)]

    asked = [[node.asked(key, b"ok 0.3") for key in keys] for node in (a, b)]
    of_a, of_b = ([digest(each.answer()) for each in one] for one in asked)

    assert of_a == of_b
    assert [len(a.jobs(key)) + len(b.jobs(key)) for key in keys] == [1] * len(keys)
    phases = {phase for one in asked for each in one for phase in each.phases}
    assert any(phase.startswith("compiled on ") for phase in phases), phases


def test_a_node_without_a_signer_reads_and_compiles_for_itself(nodes: Any) -> None:
    a, b = nodes()
    (c,) = nodes("c")
    c.files.own.unlink()
    c.believe(a.signer)
    made = digest(a.compiled("k1", b"ok"))

    asked = [node.asked("k2", b"ok 0.5") for node in (b, c)]
    of_b, of_c = (digest(each.answer()) for each in asked)

    assert [manifest_digest(entry.manifest) for entry in c.lookup("k1")] == [made]
    assert of_b != of_c, "who takes no lease compiles beside the others: so would all, without leases"
    assert c.counted("tier_written") == 0


def test_what_a_trainer_has_published_is_shared_unless_only_workers_are_believed(nodes: Any) -> None:
    a, b = nodes()
    (c,) = nodes("c", tier={"accept": "worker"})
    c.believe(a.signer)

    a.publish("p1", manifest_of("p1", b"entry", b"object"), b"entry", b"object")
    wait_until(lambda: a.counted("tier_written") >= 1, what="the artifact is in the tier")

    assert len(b.lookup("p1")) == 1
    assert c.lookup("p1") == []
    assert c.counted("tier_rejected.origin_refused") >= 1


def test_a_stranger_is_a_miss_that_says_whom_to_trust_and_trust_and_distrust_need_no_restart(nodes: Any) -> None:
    a, b = nodes(strangers=True)
    a.compiled("k1", b"ok")

    assert b.lookup("k1") == []
    assert f"compiler-daemon keys trust {a.signer.line}" in b.log.read_text()

    b.believe(a.signer)
    assert len(b.lookup("k1")) == 1

    a.compiled("k2", b"ok")
    b.believe(distrusted=[a.signer])
    assert b.lookup("k2") == []
    assert b.counted("tier_rejected.distrusted_signer") >= 1
    b.believe(a.signer)
    assert len(b.lookup("k2")) == 1


def test_a_node_that_is_killed_is_taken_over_within_the_lease_and_a_second(nodes: Any) -> None:
    a, b = nodes()
    lost = a.asked("k1", b"ok 60")
    wait_until(lambda: a.jobs("k1"), what="the first node compiles")
    waiting = b.asked("k1", b"ok")
    wait_until(lambda: any("compiled on" in phase for phase in waiting.phases), what="the other node waits")

    a.process.kill()
    killed = time.monotonic()
    made = digest(waiting.answer())

    assert time.monotonic() - killed < LEASE_S + 1 + 2.5, (
        "the lease, a second, and a poll of the tier on a busy machine"
    )
    assert len(b.jobs("k1")) == 1
    assert made
    with pytest.raises(grpc.RpcError):
        lost.answer()


def test_a_node_that_is_stopped_gives_its_compile_back_at_once(nodes: Any) -> None:
    a, b = nodes("a", "b", daemon={"drain_s": 0.2})
    a.asked("k1", b"ok 60")
    wait_until(lambda: a.jobs("k1"), what="the first node compiles")
    waiting = b.asked("k1", b"ok")
    wait_until(lambda: any("compiled on" in phase for phase in waiting.phases), what="the other node waits")

    a.process.send_signal(signal.SIGTERM)
    wait_until(lambda: a.process.poll() is not None, what="the first node has gone")
    gone = time.monotonic()
    digest(waiting.answer())

    assert time.monotonic() - gone < LEASE_S, "it waited for the lease to run out"


def test_a_node_that_slept_through_its_lease_takes_the_artifact_of_who_was_faster(nodes: Any) -> None:
    a, b = nodes()
    sleeping = a.asked("k1", b"ok 1.5")
    wait_until(lambda: a.jobs("k1"), what="the first node compiles")
    a.process.send_signal(signal.SIGSTOP)

    made = digest(b.compiled("k1", b"ok"))
    a.process.send_signal(signal.SIGCONT)

    assert digest(sleeping.answer()) == made
    assert len(a.jobs("k1")) == len(b.jobs("k1")) == 1
    assert [manifest_digest(entry.manifest) for entry in a.lookup("k1")] == [made]
    assert a.counted("tier_adopted") == 1


def test_a_graph_that_one_node_was_refused_is_not_tried_on_another(nodes: Any) -> None:
    a, b = nodes()

    first = refused(a.compiled("k1", b"refuse UNSUPPORTED"))
    second = refused(b.compiled("k1", b"refuse UNSUPPORTED"))

    assert first.reason == second.reason
    assert "another node has tried" in second.message
    assert b.jobs("k1") == []


def test_a_graph_that_kills_workers_kills_two_in_the_fleet(nodes: Any) -> None:
    a, b = nodes()

    for node in (a, b):
        refused(node.compiled("k1", b"crash"))

    assert len(a.jobs("k1")) + len(b.jobs("k1")) == 2


def test_what_a_trainer_disputes_is_not_taken_from_the_tier_again(nodes: Any) -> None:
    a, b = nodes()
    wrong = digest(a.compiled("k1", b"ok"))
    assert [manifest_digest(entry.manifest) for entry in b.lookup("k1")] == [wrong]

    own = manifest_of("k1", b"entry", b"other code")
    b.publish("k1", own, b"entry", b"other code", disputed=[wrong])

    assert [manifest_digest(entry.manifest) for entry in b.lookup("k1")] == [manifest_digest(own)]
    wait_until(lambda: b.counted("tier_written") == 1, what="what was published instead is in the tier")
    assert digest(b.compiled("k1", b"ok", have=[manifest_digest(own)])) not in {wrong, manifest_digest(own)}


def test_a_second_artifact_of_a_key_goes_into_the_next_slot_and_both_are_found(nodes: Any) -> None:
    a, b = nodes()
    first = digest(a.compiled("k1", b"ok"))

    second = digest(a.compiled("k1", b"ok", have=[first]))

    assert first != second
    assert [manifest_digest(entry.manifest) for entry in b.lookup("k1", have=[first])] == [second]
    assert {first, second} >= {manifest_digest(entry.manifest) for entry in b.lookup("k1")}
