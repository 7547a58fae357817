"""A worker that dies, or goes beyond its limits, costs its own graph and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from compile_wire.digest import digest_of
from compile_wire.v1 import compiler_daemon_pb2 as pb
from tests.daemon.compiles.compile_answers import artifact_of, reason_of
from tests.daemon.daemon_process import DaemonProcess, process_lives, wait_until

# Workers that die


@pytest.mark.parametrize(
    "behaviour", ["wrong-key", "no-graph", "kernel-instead", "stored-blob", "more-blobs", "wrong-size", "missing-blob"]
)
def test_nothing_is_signed_that_is_not_what_was_asked_for(daemon: DaemonProcess, key: str, behaviour: str) -> None:
    stored = b"in the store already"
    daemon.write_blob(digest_of(stored), len(stored), stored)

    answer = daemon.compiled(key, behaviour.encode())

    assert reason_of(answer) == "WORKER_LOST"
    assert daemon.lookup(key) == []


def test_a_worker_is_given_no_secret_by_any_way_that_a_process_has(daemon: DaemonProcess, key: str) -> None:
    """The test looks at arguments, environment, open files, and what is in the folders that the worker is told of."""
    secrets = [(daemon.directory / name).read_bytes() for name in ("secret", "token")]
    daemon.compiled(key, b"ok")  # the worker is idle after this

    process = Path(f"/proc/{daemon.jobs(key)[0]}")
    told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
    opened = [os.readlink(each) for each in (process / "fd").iterdir()]
    scratch = [path.read_bytes() for path in (process / "cwd").resolve().rglob("*") if path.is_file()]

    kept = [path for path in opened if path.startswith(str(daemon.directory))]
    assert all(Path(path).parent == daemon.directory / "log" for path in kept), kept
    for secret in secrets:
        for text in (secret, secret.hex().encode(), secret.strip()):
            assert text not in told
            assert not any(text in content for content in scratch)


@pytest.mark.parametrize("graph", ["crash", "silent-end", "garbage", "spam", "wrong-key", "missing-blob", "wrong-blob"])
def test_a_graph_that_loses_two_workers_is_refused_and_then_in_quarantine(
    daemon: DaemonProcess, key: str, graph: str
) -> None:
    first = daemon.compiled(key, graph.encode())
    again = daemon.compiled(key, graph.encode())

    assert reason_of(first) == reason_of(again) == "WORKER_LOST"
    assert isinstance(again, pb.Refused)
    assert "killed 2 workers" in again.message
    assert key in {graph.key for graph in daemon.status().quarantined}
    workers = daemon.jobs(key)
    assert len(workers) == len(set(workers)) == 2
    assert not any(process_lives(pid) for pid in workers)
    assert daemon.lookup(key) == []
    artifact_of(daemon.compiled(f"{key}-other", b"ok"))


def test_a_crash_on_one_worker_is_made_good_on_another(daemon: DaemonProcess, key: str, tmp_path: Path) -> None:
    artifact_of(daemon.compiled(key, f"crash-once {tmp_path / 'marker'}".encode()))

    assert len(set(daemon.jobs(key))) == 2


def test_a_lost_worker_is_explained_by_its_last_words(daemon: DaemonProcess, key: str) -> None:
    refused = daemon.compiled(key, b"crash")

    assert isinstance(refused, pb.Refused)
    assert "the fake worker falls over" in refused.message


def test_all_waiters_survive_the_crash_of_the_worker(daemon: DaemonProcess, key: str, tmp_path: Path) -> None:
    graph = f"crash-once {tmp_path / 'marker'}".encode()

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: daemon.compiled(key, graph), range(4)))

    assert len({artifact_of(answer).manifest for answer in answers}) == 1


def test_quarantine_ends_after_a_while(start_daemon: Callable[..., DaemonProcess], key: str) -> None:
    daemon = start_daemon(flights={"quarantine_s": 0.3})
    daemon.handshake()
    daemon.compiled(key, b"crash")

    wait_until(lambda: isinstance(daemon.compiled(key, b"ok"), pb.ArtifactEntry), what="the graph is tried again")


# Limits


def test_a_job_over_its_time_is_killed_with_everything_below_it(
    start_daemon: Callable[..., DaemonProcess], key: str, tmp_path: Path
) -> None:
    daemon = start_daemon(pool={"wall_s": 0.8})
    daemon.handshake()

    refused = daemon.compiled(key, f"grandchild {tmp_path / 'pid'}".encode())

    assert reason_of(refused) == "LIMIT"
    [worker] = daemon.jobs(key)
    grandchild = int((tmp_path / "pid").read_text())
    assert not process_lives(worker)
    wait_until(lambda: not process_lives(grandchild), what="the grandchild ends")
    artifact_of(daemon.compiled(f"{key}-other", b"ok"))


def test_a_job_over_its_memory_is_killed_even_where_a_child_holds_it(
    start_daemon: Callable[..., DaemonProcess], key: str
) -> None:
    daemon = start_daemon(pool={"memory_bytes": 150 * 2**20})
    daemon.handshake()

    refused = daemon.compiled(key, b"allocate 300")

    assert reason_of(refused) == "LIMIT"
    assert isinstance(refused, pb.Refused)
    assert "MiB" in refused.message
    [worker] = daemon.jobs(key)
    assert not process_lives(worker)


def test_a_job_over_its_processor_time_is_killed(start_daemon: Callable[..., DaemonProcess], key: str) -> None:
    daemon = start_daemon(pool={"cpu_s": 0.5})
    daemon.handshake()

    refused = daemon.compiled(key, b"spin")

    assert reason_of(refused) == "LIMIT"
    assert isinstance(refused, pb.Refused)
    assert "processor time" in refused.message


def test_what_a_crashed_worker_leaves_behind_is_killed(daemon: DaemonProcess, key: str, tmp_path: Path) -> None:
    assert reason_of(daemon.compiled(key, f"orphan {tmp_path / 'pid'}".encode())) == "WORKER_LOST"

    orphan = int((tmp_path / "pid").read_text())
    wait_until(lambda: not process_lives(orphan), what="the orphan ends")


def test_a_worker_is_replaced_after_its_share_of_jobs(start_daemon: Callable[..., DaemonProcess], key: str) -> None:
    daemon = start_daemon(pool={"max_workers": 1, "jobs_per_worker": 2})
    daemon.handshake()

    for number in range(4):
        artifact_of(daemon.compiled(f"{key}-{number}", b"ok"))

    workers = [daemon.jobs(f"{key}-{number}")[0] for number in range(4)]
    assert workers[0] == workers[1] != workers[2] == workers[3]


@pytest.mark.parametrize("kind", ["done", "refused"])
def test_a_worker_in_which_a_graph_left_something_gets_no_other_job(daemon: DaemonProcess, key: str, kind: str) -> None:
    lost = daemon.status().counters["workers_lost"]

    answer = daemon.compiled(f"{key}-first", b"leave " + kind.encode())
    after = [daemon.compiled(f"{key}-{number}", b"ok") for number in range(4)]

    assert isinstance(answer, pb.ArtifactEntry if kind == "done" else pb.Refused)
    assert all(isinstance(each, pb.ArtifactEntry) for each in after)
    (first,) = daemon.jobs(f"{key}-first")
    assert first not in [pid for number in range(4) for pid in daemon.jobs(f"{key}-{number}")]
    assert daemon.status().counters["workers_lost"] == lost


def test_an_idle_worker_ends_after_a_while(start_daemon: Callable[..., DaemonProcess], key: str) -> None:
    daemon = start_daemon(pool={"idle_s": 0.2})
    daemon.handshake()
    daemon.compiled(key, b"ok")
    [worker] = daemon.jobs(key)

    wait_until(lambda: not process_lives(worker), what="the worker ends")

    assert list(daemon.status().workers) == []
