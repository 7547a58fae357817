"""A daemon with a farm of a real Dask scheduler and real Dask workers, over TLS; a fake worker does the compiles."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from compile_wire.signature import verify_artifact
from compile_wire.v1 import compiler_daemon_pb2 as pb
from tests.daemon.daemon_process import ENVIRONMENT, DaemonProcess, process_lives, wait_until
from tests.daemon.farm.farm_samples import STARTS_S, Certificates, DaskFarm, DaskProcess

pytestmark = [
    pytest.mark.slow,  # a scheduler and workers of Dask take seconds to start
    pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="Dask is not installed"),
]

StartDaemon = Callable[..., DaemonProcess]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("farm") / "tls")


@pytest.fixture
def farm(tmp_path: Path, certificates: Certificates) -> Iterator[DaskFarm]:
    with DaskFarm(tmp_path / "farm", certificates) as farm:
        yield farm


def counters(daemon: DaemonProcess) -> dict[str, int]:
    return dict(daemon.status().counters)


def wait_for_offer(daemon: DaemonProcess, at_once: int = 1) -> None:
    said = f"compiles {at_once} at once for environment {ENVIRONMENT[:12]}"
    wait_until(lambda: said in daemon.log.read_text(), what=said, deadline_s=STARTS_S)


def parent_of(pid: int) -> int:
    return psutil.Process(pid).ppid()


def wait_for_job(daemon: DaemonProcess, key: str, count: int = 1) -> list[int]:
    wait_until(lambda: len(daemon.jobs(key)) >= count, what=f"{count} jobs of {key}")
    return daemon.jobs(key)


def is_artifact(answer: pb.ArtifactEntry | pb.Refused) -> bool:
    return isinstance(answer, pb.ArtifactEntry)


def test_a_graph_is_compiled_below_a_worker_of_the_farm_and_signed_here(
    farm: DaskFarm, start_daemon: StartDaemon
) -> None:
    node = farm.add_worker()
    daemon = start_daemon(farm=farm.settings())
    daemon.handshake()
    wait_for_offer(daemon)

    *events, last = daemon.compile("k", b"ok 2.5")

    (pid,) = daemon.jobs("k")
    assert parent_of(pid) == node.pid
    secret = (daemon.directory / "secret").read_bytes()
    verify_artifact(secret, last.artifact.signature, key="k", environment=ENVIRONMENT, manifest=last.artifact.manifest)
    phases = {event.running.phase for event in events if event.HasField("running")}
    assert f"compiling on {os.uname().nodename}" in phases
    assert counters(daemon)["farm_compiles"] == 1
    assert daemon.lookup("k"), "what the farm has compiled is in this daemon's store"

    # A refusal by the farm counts as one; a result for another key does not: this machine tries once more.
    refused = daemon.compiled("r", b"refuse UNSUPPORTED")
    lied = daemon.compiled("l", b"wrong_key")

    assert isinstance(refused, pb.Refused)
    assert [*refused.fields] == ["shape: 1, 2"]
    assert len(daemon.jobs("r")) == 1
    assert isinstance(lied, pb.Refused)
    assert len(daemon.jobs("l")) == 2
    assert "the worker handed over something else" in daemon.log.read_text()

    # After each of these the place in the farm is free again.
    assert is_artifact(daemon.compiled("k2", b"ok"))
    assert counters(daemon)["farm_compiles"] == 2


def test_a_farm_of_another_environment_is_said_once_and_compiles_nothing(
    farm: DaskFarm, start_daemon: StartDaemon
) -> None:
    farm.add_worker(environ={"PYTHON_FAKE_FIELDS": json.dumps({"torch": "another"})})
    daemon = start_daemon(farm=farm.settings())
    daemon.handshake()
    wait_until(lambda: "at once for environment" in daemon.log.read_text(), what="an offer", deadline_s=STARTS_S)

    started = time.monotonic()
    assert is_artifact(daemon.compiled("k", b"ok"))

    assert time.monotonic() - started < 4, "it waited for a farm that cannot compile it"
    assert parent_of(daemon.jobs("k")[0]) == daemon.process.pid
    assert counters(daemon).get("farm_compiles", 0) == 0


def test_what_the_farm_has_no_room_for_is_compiled_here_after_the_wait(
    farm: DaskFarm, start_daemon: StartDaemon
) -> None:
    node = farm.add_worker()
    daemon = start_daemon(farm=farm.settings(wait_s=0.5))
    daemon.handshake()
    wait_for_offer(daemon)

    first = daemon.compile("slow", b"ok 6")
    next(iter(first))
    (there,) = wait_for_job(daemon, "slow")
    second = daemon.compiled("quick", b"ok")

    assert is_artifact(second)
    assert parent_of(there) == node.pid
    assert parent_of(daemon.jobs("quick")[0]) == daemon.process.pid
    assert counters(daemon)["farm_busy"] == 1
    *_, last = first
    assert last.HasField("artifact")


def test_a_job_that_nobody_at_the_farm_begins_is_compiled_here(farm: DaskFarm, start_daemon: StartDaemon) -> None:
    from distributed import Client, Security

    farm.add_worker()
    daemon = start_daemon(farm=farm.settings(wait_s=1))
    daemon.handshake()
    wait_for_offer(daemon)
    assert farm.certificates is not None
    files = farm.certificates.settings
    security: Any = Security(
        tls_ca_file=files["ca"], tls_client_cert=files["certificate"], tls_client_key=files["key"],
        require_encryption=True,
    )  # fmt: skip

    with Client(farm.address, security=security) as somebody_else:
        occupied = somebody_else.submit(time.sleep, 30, priority=1000)
        wait_until(
            lambda: any(somebody_else.processing().values()),
            what="the farm's only thread is taken",
            deadline_s=STARTS_S,
        )
        answer = daemon.compiled("k", b"ok")
        del occupied

    assert is_artifact(answer)
    assert parent_of(daemon.jobs("k")[0]) == daemon.process.pid
    assert counters(daemon)["farm_away"] == 1
    assert "nobody there has begun for 1 s" in daemon.log.read_text()


def test_a_scheduler_that_dies_leaves_its_jobs_to_this_machine_at_once(
    farm: DaskFarm, start_daemon: StartDaemon
) -> None:
    farm.add_worker()
    daemon = start_daemon(farm=farm.settings())
    daemon.handshake()
    wait_for_offer(daemon)

    events = daemon.compile("k", b"ok 4")
    wait_for_job(daemon, "k")
    killed = time.monotonic()
    farm.scheduler.kill()
    pids = wait_for_job(daemon, "k", 2)
    gone_s = time.monotonic() - killed
    *_, last = events

    assert last.HasField("artifact")
    assert parent_of(pids[1]) == daemon.process.pid
    assert gone_s < 3, "it waited for a scheduler that is dead"
    assert is_artifact(daemon.compiled("k2", b"ok"))
    assert counters(daemon)["farm_away"] == 1


def test_a_graph_whose_node_dies_runs_on_another_node(farm: DaskFarm, start_daemon: StartDaemon) -> None:
    nodes = {node.pid: node for node in (farm.add_worker(), farm.add_worker())}
    daemon = start_daemon(farm=farm.settings())
    daemon.handshake()
    wait_for_offer(daemon, 2)

    events = daemon.compile("k", b"ok 3")
    (first,) = wait_for_job(daemon, "k")
    dead: DaskProcess = nodes[parent_of(first)]
    dead.process.send_signal(signal.SIGKILL)
    pids = wait_for_job(daemon, "k", 2)
    second_parent = parent_of(pids[1])
    *_, last = events

    assert last.HasField("artifact")
    assert second_parent in nodes.keys() - {dead.pid}
    assert counters(daemon)["farm_compiles"] == 1
    wait_until(
        lambda: not psutil.pid_exists(first) or psutil.Process(first).status() == "zombie", what="its worker ends"
    )


def test_a_farm_whose_authority_is_another_is_said_once_and_compiles_nothing(
    farm: DaskFarm, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    farm.add_worker()
    stranger = Certificates(tmp_path / "stranger")
    daemon = start_daemon(farm={"address": farm.address, **stranger.settings})
    daemon.handshake()
    said = "compiles nothing, this machine does: it does not answer"
    wait_until(lambda: said in daemon.log.read_text(), what=said, deadline_s=STARTS_S)

    assert is_artifact(daemon.compiled("k", b"ok"))

    assert parent_of(daemon.jobs("k")[0]) == daemon.process.pid
    assert daemon.log.read_text().count(said) == 1


def test_the_farms_process_ends_with_its_daemon(farm: DaskFarm, start_daemon: StartDaemon) -> None:
    farm.add_worker()
    daemon = start_daemon(farm=farm.settings())
    daemon.handshake()
    wait_for_offer(daemon)
    children = psutil.Process(daemon.process.pid).children()
    (process,) = [child for child in children if "compiler_daemon.farm" in child.cmdline()]

    daemon.kill()

    wait_until(lambda: not process_lives(process.pid), what="the farm's process ends")


def test_a_scheduler_that_is_silent_delays_graphs_for_a_few_seconds_and_then_none(
    farm: DaskFarm, start_daemon: StartDaemon
) -> None:
    farm.add_worker()
    daemon = start_daemon(farm=farm.settings(wait_s=1))
    daemon.handshake()
    wait_for_offer(daemon)
    farm.scheduler.process.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        assert is_artifact(daemon.compiled("k", b"ok"))
        first_s = time.monotonic() - started
        said = "compiles nothing, this machine does: its scheduler has gone"
        wait_until(lambda: said in daemon.log.read_text(), what=said)
        started = time.monotonic()
        assert is_artifact(daemon.compiled("k2", b"ok"))
        second_s = time.monotonic() - started
    finally:
        farm.scheduler.process.send_signal(signal.SIGCONT)

    assert first_s < 4
    assert second_s < 0.9
    assert parent_of(daemon.jobs("k2")[0]) == daemon.process.pid
