"""A graph is compiled by a worker of its own environment, and by none of another's."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from compile_wire.environment import environment_id
from compile_wire.facts import Facts
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compiler_daemon.store.record_files import encode_facts_record
from compiler_daemon.worker.known_facts import read_known
from compiler_daemon.workers.session_niceness import session_niceness
from tests.daemon.compiles.compile_answers import artifact_of, reason_of
from tests.daemon.daemon_process import ENVIRONMENT, FIELDS, DaemonProcess, wait_until

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


@pytest.mark.skipif(session_niceness(os.getpid()) is None, reason="this kernel does not group by session")
def test_the_session_of_a_worker_stands_back_until_somebody_waits_for_it(
    start_daemon: Callable[..., DaemonProcess], key: str
) -> None:
    daemon = start_daemon(pool={"niceness": 7})
    daemon.handshake()
    [worker] = wait_until(
        lambda: [worker for worker in daemon.status().workers if worker.state == "idle"], what="a worker is ready"
    )

    found = [session_niceness(worker.pid)]
    for number, ahead in enumerate((False, True, False)):
        daemon.compiled(f"{key}-{number}", b"ok", ahead=ahead)
        found.append(session_niceness(worker.pid))

    assert found == [7, 0, 7, 0]
    assert daemon.jobs(f"{key}-2") == [worker.pid]


def _python_that_starts_when_its_session_is_not_nice(folder: Path) -> Path:
    wrapper = folder / "python"
    wrapper.write_text(
        f"#!/bin/sh\nwhile ! grep -q 'nice 0' /proc/$$/autogroup; do sleep 0.05; echo x >> {folder / 'stood'}; done\n"
        f'exec {sys.executable} "$@"\n'
    )
    wrapper.chmod(0o700)
    return wrapper


@pytest.mark.skipif(session_niceness(os.getpid()) is None, reason="this kernel does not group by session")
def test_a_worker_that_is_getting_warm_comes_forward_for_the_first_graph(
    start_daemon: Callable[..., DaemonProcess], key: str, tmp_path: Path
) -> None:
    wrapper = _python_that_starts_when_its_session_is_not_nice(tmp_path)
    daemon = start_daemon(pool={"stand_back_s": 600.0})
    daemon.handshake(interpreter=str(wrapper))
    wait_until((tmp_path / "stood").exists, what="the worker stands back")

    artifact_of(daemon.compiled(key, b"ok", interpreter=str(wrapper)))


@pytest.mark.skipif(session_niceness(os.getpid()) is None, reason="this kernel does not group by session")
def test_a_worker_that_nobody_waits_for_takes_its_share_in_the_end(
    start_daemon: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    daemon = start_daemon(pool={"stand_back_s": 0.5})
    daemon.handshake(interpreter=str(_python_that_starts_when_its_session_is_not_nice(tmp_path)))

    wait_until((tmp_path / "stood").exists, what="the worker stands back")
    wait_until(
        lambda: [worker for worker in daemon.status().workers if worker.state == "idle"], what="the worker is up"
    )


@pytest.mark.skipif(session_niceness(os.getpid()) is None, reason="this kernel does not group by session")
def test_a_compile_that_nobody_waits_for_takes_its_share_before_its_time_is_over(
    start_daemon: Callable[..., DaemonProcess], key: str
) -> None:
    daemon = start_daemon(pool={"niceness": 7, "wall_s": 8.0})
    daemon.handshake()
    seen: list[int | None] = []

    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(daemon.compiled, key, b"ok 5", ahead=True)
        (pid,) = wait_until(lambda: daemon.jobs(key), what="the compile begins")
        while not answer.done():
            if not seen or seen[-1] != session_niceness(pid):
                seen.append(session_niceness(pid))
            time.sleep(0.02)

    artifact_of(answer.result())
    assert seen[-2:] == [7, 0]


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
