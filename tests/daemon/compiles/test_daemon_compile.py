from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from compile_wire.digest import digest_of
from compile_wire.environment import environment_id
from compile_wire.facts import Facts
from compile_wire.limits import MAX_INLINE_BYTES
from compile_wire.manifest import decode_manifest
from compile_wire.signature import verify_artifact
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compiler_daemon.store.record_files import encode_facts_record
from compiler_daemon.worker.known_facts import read_known
from tests.daemon.daemon_process import ENVIRONMENT, FIELDS, DaemonProcess, process_lives, wait_until


def reason_of(answer: pb.ArtifactEntry | pb.Refused) -> str:
    assert isinstance(answer, pb.Refused), answer
    return pb.Refused.Reason.Name(answer.reason).removeprefix("REASON_")


def artifact_of(answer: pb.ArtifactEntry | pb.Refused) -> pb.ArtifactEntry:
    assert isinstance(answer, pb.ArtifactEntry), answer
    return answer


def kinds(events: list[Any]) -> list[str]:
    return [event.WhichOneof("event") for event in events]


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


# Environments


def test_a_worker_of_another_environment_is_not_used_and_the_fields_are_named(
    start_daemon: Callable[..., DaemonProcess], key: str
) -> None:
    daemon = start_daemon()
    theirs = {**FIELDS, "torch": "9.9"}
    daemon.handshake(theirs)

    answers = [daemon.compiled(key, b"ok", environment_id=environment_id(theirs)) for _ in range(3)]

    assert [reason_of(answer) for answer in answers] == ["ENVIRONMENT"] * 3
    assert isinstance(answers[0], pb.Refused)
    assert list(answers[0].fields) == ["torch: 0.fake, 9.9"]
    assert daemon.jobs(key) == []
    assert daemon.status().counters["workers_started"] == 1


def test_a_worker_that_does_not_come_up_is_explained(start_daemon: Callable[..., DaemonProcess], key: str) -> None:
    daemon = start_daemon(worker=["--never-ready"])
    daemon.handshake()

    refused = daemon.compiled(key, b"ok")

    assert reason_of(refused) == "ENVIRONMENT"
    assert isinstance(refused, pb.Refused)
    assert "no torch in this environment" in refused.message


def test_a_worker_that_fails_to_come_up_once_is_started_again(
    start_daemon: Callable[..., DaemonProcess], key: str, tmp_path: Path
) -> None:
    daemon = start_daemon(worker=["--not-ready-once", str(tmp_path / "marker")])
    daemon.handshake()

    artifact_of(daemon.compiled(key, b"ok"))

    assert daemon.status().counters["workers_failed"] == 1


def test_a_handshake_warms_a_worker_up(start_daemon: Callable[..., DaemonProcess], key: str) -> None:
    daemon = start_daemon()

    daemon.handshake()

    [worker] = wait_until(
        lambda: [worker for worker in daemon.status().workers if worker.state == "idle"], what="a worker is ready"
    )
    assert worker.environment_id == ENVIRONMENT
    daemon.compiled(key, b"ok")
    assert daemon.jobs(key) == [worker.pid]


def test_only_a_compile_that_nobody_waits_for_stands_back(start_daemon: Callable[..., DaemonProcess], key: str) -> None:
    daemon = start_daemon(pool={"niceness": 7})
    daemon.handshake()
    daemon.compiled(key, b"ok")
    daemon.compiled(f"{key}-ahead", b"ok", ahead=True)
    assert daemon.niceness_of(key) == [0]
    assert daemon.niceness_of(f"{key}-ahead") == [7]
    (pid,) = daemon.jobs(key)
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0)


def test_a_client_on_this_host_gets_a_worker_of_its_own_interpreter(
    start_daemon: Callable[..., DaemonProcess], key: str, tmp_path: Path
) -> None:
    daemon = start_daemon(pool={"prewarm": False})
    daemon.handshake()
    # A link would not do: followed from outside its environment, Python would find no packages.
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\necho started >> {tmp_path / "started"}\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o700)

    artifact_of(daemon.compiled(key, b"ok", interpreter=str(wrapper)))

    assert (tmp_path / "started").read_text() == "started\n"


def test_an_interpreter_that_others_can_change_is_not_started(daemon: DaemonProcess, key: str, tmp_path: Path) -> None:
    shared = tmp_path / "python"
    shared.write_text("#!/bin/sh\n")
    shared.chmod(0o777)

    answers = [
        daemon.compiled(key, b"ok", interpreter=str(path), have=["0" * 64])
        for path in (shared, tmp_path / "absent", tmp_path)
    ]

    assert [reason_of(answer) for answer in answers] == ["ENVIRONMENT"] * 3
    assert daemon.jobs(key) == []


def test_a_worker_gets_scratch_of_its_own_and_nothing_of_torchs_settings_in_the_daemons_shell(
    tmp_path: Path, key: str
) -> None:
    shell = {"TORCH_COMPILE_CLIENT": "1", "TORCHINDUCTOR_CACHE_DIR": "/x", "TRITON_CACHE_DIR": "/y"}
    shell |= {"OMP_NUM_THREADS": "3", "SOMEBODYS_TOKEN": "secret"}
    shell |= {"TMPDIR": str(tmp_path)}  # a folder that others can write to might hold a header that they left for torch
    daemon = DaemonProcess(tmp_path / "d").start(environ=shell)
    try:
        daemon.handshake()
        daemon.compiled(key, f"environ {tmp_path / 'seen'}".encode())
    finally:
        daemon.__exit__()

    seen = json.loads((tmp_path / "seen").read_text())
    environ = seen["environ"]
    scratch = str(tmp_path / "d" / "scratch")
    assert environ["TORCHINDUCTOR_CACHE_DIR"].startswith(scratch)
    assert environ["TRITON_CACHE_DIR"].startswith(scratch)
    assert seen["cwd"].startswith(scratch)
    assert environ["TMPDIR"].startswith(seen["cwd"])
    assert seen["mode"] == 0o700
    assert environ["OMP_NUM_THREADS"] == "3"
    assert not environ.keys() & {"TORCH_COMPILE_CLIENT", "SOMEBODYS_TOKEN"}
    assert seen["sid"] != os.getsid(0)
    assert seen["sid"] == daemon.jobs(key)[0]


def test_a_worker_of_a_daemon_that_was_restarted_finds_what_the_store_knows_of_its_environment(
    start_daemon: Callable[..., DaemonProcess], key: str
) -> None:
    daemon = start_daemon()
    daemon.handshake()
    daemon.compiled(f"{key}-before", b"ok")
    daemon.kill()
    left = list((daemon.directory / "scratch").rglob("facts"))
    daemon.start()

    daemon.handshake()
    daemon.compiled(key, b"ok")

    assert left == []  # a fake worker writes no facts, and the daemon knew none when it started this one
    (found,) = (daemon.directory / "scratch").rglob("facts")
    assert read_known(found.parent, ENVIRONMENT) == Facts(vec_isa={"avx2": True})


def test_facts_that_another_version_has_kept_stop_no_worker(
    start_daemon: Callable[..., DaemonProcess], key: str
) -> None:
    daemon = start_daemon()
    daemon.handshake()
    daemon.compiled(f"{key}-before", b"ok")
    daemon.kill()
    (kept,) = (path for path in (daemon.directory / "store" / "facts").rglob("*") if path.is_file())
    kept.write_bytes(encode_facts_record(ENVIRONMENT, b"of another form"))
    daemon.start()

    daemon.handshake()

    artifact_of(daemon.compiled(key, b"ok"))
    assert list((daemon.directory / "scratch").rglob("facts")) == []


def test_jobs_of_two_keys_run_at_the_same_time_and_a_third_waits(
    start_daemon: Callable[..., DaemonProcess], key: str
) -> None:
    daemon = start_daemon(pool={"max_workers": 2}, flights={"event_s": 0.05})
    daemon.handshake()
    keys = [f"{key}-{number}" for number in range(3)]
    seen: list[str] = []
    lock = threading.Lock()

    def ask(one: str) -> None:
        artifact_of(daemon.compiled(one, b"ok 0.5"))
        with lock:
            seen.append(one)

    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(ask, one) for one in keys]
        wait_until(lambda: sum(bool(daemon.jobs(one)) for one in keys) == 2, what="two begin")
        status = daemon.status()
        for one in asked:
            one.result()

    assert sorted(worker.state for worker in status.workers) == ["busy", "busy"]
    assert status.queued == 1
    assert sorted(seen) == keys
