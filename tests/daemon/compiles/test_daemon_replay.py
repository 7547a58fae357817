"""Kept graphs are compiled again, by a daemon that lost its artifacts and by one of another environment."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compile_wire.digest import digest_of
from compile_wire.environment import environment_id
from compile_wire.manifest import decode_manifest
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compile_wire.v1 import replay_pb2, replay_pb2_grpc
from tests.daemon.daemon_process import ENVIRONMENT, FIELDS, DaemonProcess

OTHERS = {**FIELDS, "torch": "1.fake"}
TALK_S = 60.0


def verb(daemon: DaemonProcess, name: str, *arguments: str, code: int = 0) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "compiler_daemon", name, "--dir", str(daemon.directory), "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=TALK_S,
        check=False,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout) if done.stdout else done.stderr


def lose_artifacts(daemon: DaemonProcess) -> None:
    from compiler_daemon.admin.connection import OperatorClient
    from compiler_daemon.admin.inventory.calls import InventoryClient
    from compiler_daemon.config import DaemonLocation

    client = InventoryClient(OperatorClient.of(DaemonLocation(directory=daemon.directory, address=None)))
    client.remove([row.digest for row in client.artifacts()])


@pytest.fixture
def served(start_daemon: Callable[..., DaemonProcess]) -> DaemonProcess:
    """A daemon that has compiled three graphs of two programs."""
    daemon = start_daemon()
    daemon.handshake()
    for number, program in enumerate(("one.py", "one.py", "two.py")):
        daemon.compiled(f"key-{number}", b"ok #%d" % number, program=program)
    return daemon


def test_kept_graphs_bring_back_lost_artifacts_under_their_keys(served: DaemonProcess) -> None:
    lose_artifacts(served)
    assert served.lookup("key-0") == []

    first = verb(served, "replay", "--all")
    again = verb(served, "replay", "--all")

    assert (first["graphs"], first["compiled"], first["refused"]) == (3, 3, 0)
    assert first["serves"] == {"same": 3}
    assert (again["compiled"], again["already_there"]) == (0, 3)
    for number in range(3):
        (entry,) = served.lookup(f"key-{number}")
        manifest = decode_manifest(entry.manifest)
        assert (manifest.origin, manifest.environment) == ("replay", ENVIRONMENT)
    counters = served.status().counters
    assert counters["lookup_hits_replayed"] == counters["graphs_replayed"] == 3


def test_a_program_can_be_named(served: DaemonProcess) -> None:
    lose_artifacts(served)

    done = verb(served, "replay", "--program", "two.py")

    assert [outcome["key"] for outcome in done["outcomes"]] == ["key-2"]
    assert served.lookup("key-0") == []


def test_graphs_of_another_torch_are_filed_under_the_key_that_they_have_here_and_their_hits_are_counted(
    served: DaemonProcess, start_daemon: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    file = tmp_path / "sweep.graphs"
    subprocess.run(
        [sys.executable, "-m", "compiler_daemon", "export", "--graphs", "--dir", str(served.directory), str(file)],
        check=True,
        timeout=TALK_S,
        capture_output=True,
    )
    upgraded = start_daemon("upgraded", fields=OTHERS)

    done = verb(upgraded, "replay", str(file))
    before = verb(upgraded, "replay", "--served")
    found = upgraded.lookup(f"here-{digest_of(b'ok #0')[:16]}", environment=environment_id(OTHERS))

    assert done["compiled"] == 3
    assert done["serves"] == {"torch": 3}
    assert {outcome["environment"] for outcome in done["outcomes"]} == {environment_id(OTHERS)}
    assert before["replayed"] == 3
    assert before["served"] == 0
    assert len(found) == 1
    assert verb(upgraded, "replay", "--served") == {
        "replayed": 3,
        "served": 1,
        "hits": 1,
        "seconds_saved": pytest.approx(decode_manifest(found[0].manifest).compile_s, abs=0.01),
    }


def test_a_graph_that_is_refused_or_kills_its_worker_is_listed_and_the_others_go_on(
    start_daemon: Callable[..., DaemonProcess],
) -> None:
    daemon = start_daemon()
    daemon.handshake()
    for key, graph in (("bad", b"refuse UNSUPPORTED"), ("good", b"ok"), ("worse", b"crash")):
        daemon.publish(
            key,
            _published(key, graph),
            b"entry",
            graph=pb.Graph(data=graph),
            program="p",
        )
    lose_artifacts(daemon)

    done = verb(daemon, "replay", "--all", code=1)

    outcomes = {outcome["key"]: outcome for outcome in done["outcomes"]}
    assert outcomes["good"]["status"] == "compiled"
    assert outcomes["bad"]["why"] == "unsupported: because of the test"
    assert outcomes["worse"]["why"].startswith("worker_lost: ")


def test_an_interpreter_that_is_not_there_is_a_reason(served: DaemonProcess) -> None:
    lose_artifacts(served)

    done = verb(served, "replay", "--program", "two.py", "--python", "/nonexistent/python", code=1)

    assert "/nonexistent/python is not there" in done["outcomes"][0]["why"]


def test_a_graph_without_a_known_key_gets_one_and_a_malformed_request_is_refused(served: DaemonProcess) -> None:
    stub = replay_pb2_grpc.ReplayServiceStub(served.channel)
    request = replay_pb2.ReplayGraphRequest(graph=pb.Graph(data=b"ok #x"), environment_id=ENVIRONMENT)

    *_, last = stub.ReplayGraph(request, **served.options())

    assert last.replayed.compiled
    assert last.replayed.key == f"here-{digest_of(b'ok #x')[:16]}"
    for broken in (
        replay_pb2.ReplayGraphRequest(environment_id=ENVIRONMENT),
        replay_pb2.ReplayGraphRequest(graph=pb.Graph(data=b"ok"), environment_id="x"),
        replay_pb2.ReplayGraphRequest(graph=pb.Graph(data=b"ok"), environment_id=ENVIRONMENT, key="k" * 1000),
    ):
        with pytest.raises(Exception, match="INVALID_ARGUMENT"):
            list(stub.ReplayGraph(broken, **served.options()))


def test_wrong_use_is_exit_code_two_and_what_is_not_there_one(daemon: DaemonProcess, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"no graphs")

    assert "one of them" in verb(daemon, "replay", code=2)["error"]["message"]
    assert "one of them" in verb(daemon, "replay", "--all", "--served", code=2)["error"]["message"]
    assert verb(daemon, "replay", "--program", "nobody.py", code=1)["error"]["kind"] == "BundleError"
    assert verb(daemon, "replay", str(broken), code=1)["error"]["kind"] == "BundleError"


def _published(key: str, graph: bytes) -> bytes:
    from tests.daemon.daemon_process import manifest_of

    return manifest_of(key, b"entry", graph=graph)
