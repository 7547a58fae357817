from __future__ import annotations

import importlib.metadata
import json
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

import compiler_daemon
from compile_wire.manifest import decode_manifest
from compile_wire.v1 import compiler_daemon_pb2 as pb
from tests.daemon.daemon_process import DEADLINE_S, ENVIRONMENT, DaemonProcess, manifest_of, process_lives, wait_until


def run(*arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "compiler_daemon", *arguments],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **(environ or {})},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


# The command line


def test_serve_prints_one_line_when_it_answers_and_stop_ends_it(tmp_path: Path) -> None:
    environ = {"PATH": "/usr/bin:/bin", "COMPILER_DAEMON_DIR": str(tmp_path / "d")}
    command = [sys.executable, "-m", "compiler_daemon"]
    with subprocess.Popen(
        [*command, "serve", "--no-prewarm"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        shown = run("status", "--json", environ=environ)
        table = run("status", "--dir", str(tmp_path / "d"))
        stopped = run("stop", environ=environ)
        rest = process.stdout.read()
        code = process.wait(DEADLINE_S)

    assert ready == f"ready unix:{tmp_path / 'd' / 'daemon.sock'}\n"
    assert rest == ""
    assert code == 0
    status = json.loads(shown.stdout)
    assert (shown.returncode, status["pid"], status["artifacts"]) == (0, process.pid, 0)
    assert status["directory"] == str(tmp_path / "d")
    assert table.returncode == 0
    assert str(process.pid) in table.stdout
    assert stopped.returncode == 0
    assert {path.name for path in (tmp_path / "d").iterdir()} == {
        "token",
        "secret",
        "store",
        "runs.sqlite3",
        "daemon.lock",
    }


@pytest.mark.parametrize("been_there", [False, True])
def test_status_of_nothing_fails_and_says_what_to_do(
    tmp_path: Path, start_daemon: Callable[..., DaemonProcess], been_there: bool
) -> None:
    if been_there:
        daemon = start_daemon()
        daemon.process.terminate()
        daemon.close()

    status = run("status", "--dir", str(tmp_path / "d"))
    stop = run("stop", "--dir", str(tmp_path / "d"))

    assert status.returncode == 1
    assert "compiler-daemon serve" in status.stderr
    assert status.stdout == ""
    assert stop.returncode == 0
    assert "nothing to stop" in stop.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("serve", "--dir", ""), 2, "it is empty"),
        (("status", "--dir", " "), 2, "it is empty"),
        (("keys", "client", "alice", "--out", ""), 2, "it is empty"),
        (("serve", "--address", ""), 2, "write unix:PATH or HOST:PORT"),
        (("serve", "--workers", "0"), 2, "workers"),
        (("serve", "--store-size", "20G"), 2, "20GB or 20GiB"),
        (("serve", "--store-size", "0GB"), 2, "more than nothing"),
        (("serve", "--idle", "5m"), 2, "5min"),
        (("dance",), 2, "dance"),
        (("serve", "--address", "nonsense"), 2, "write unix:PATH or HOST:PORT"),
        (("serve", "--address", "127.0.0.1:0"), 2, "--insecure-loopback"),
        (("serve", "--address", "0.0.0.0:0", "--insecure-loopback"), 2, "plain TCP"),
        (("serve", "--address", "unix:/tmp/" + "x" * 120), 2, "choose a shorter one with --address"),
        (("serve", "--address", "unix:/nowhere/at/all/s"), 1, "does not exist"),
    ],
)
def test_wrong_use_is_one_sentence_that_says_what_to_do(
    tmp_path: Path, arguments: tuple[str, ...], code: int, text: str
) -> None:
    more = ("--dir", str(tmp_path / "d")) if arguments[0] == "serve" and "--dir" not in arguments else ()

    ended = run(*arguments, *more)

    assert ended.returncode == code
    assert text in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


# Identity


def test_what_the_daemon_makes_is_its_users_alone(daemon: DaemonProcess) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in daemon.directory.iterdir()}

    assert stat.S_IMODE(daemon.directory.stat().st_mode) == 0o700
    assert modes["token"] == modes["secret"] == modes["daemon.json"] == 0o600
    assert not any(mode & 0o077 for mode in modes.values())


def test_token_and_secret_survive_a_restart_and_are_in_no_log(start_daemon: Callable[..., DaemonProcess]) -> None:
    daemon = start_daemon()
    identity = [(daemon.directory / name).read_bytes() for name in ("token", "secret")]
    daemon.handshake()
    daemon.process.terminate()
    daemon.close()

    again = start_daemon()

    assert [(again.directory / name).read_bytes() for name in ("token", "secret")] == identity
    assert identity[0].decode() not in again.log.read_text()


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(0o777)

    ended = run("serve", "--dir", str(tmp_path / "d"))

    assert ended.returncode == 1
    assert "others may write" in ended.stderr


# One daemon for each directory and address


def test_a_second_daemon_on_the_same_directory_is_refused_and_names_the_first(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    ended = run("serve", "--dir", str(daemon.directory), "--address", f"unix:{tmp_path / 's'}")

    assert ended.returncode == 1
    assert f"process {daemon.process.pid} serves" in ended.stderr
    assert daemon.health() == "SERVING"


def test_a_second_daemon_on_the_same_socket_is_refused_and_names_the_first(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    ended = run("serve", "--dir", str(tmp_path / "d"), "--address", daemon.address)

    assert ended.returncode == 1
    assert f"process {daemon.process.pid} listens" in ended.stderr
    assert daemon.health() == "SERVING"


def test_a_stale_socket_is_recovered(start_daemon: Callable[..., DaemonProcess], tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "d" / "daemon.sock"))

    assert start_daemon().health() == "SERVING"


def test_something_else_in_the_sockets_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d" / "daemon.sock").write_text("mine")

    ended = run("serve", "--dir", str(tmp_path / "d"))

    assert ended.returncode == 1
    assert "is no socket" in ended.stderr
    assert (tmp_path / "d" / "daemon.sock").read_text() == "mine"


def test_a_loopback_address_serves_when_asked_for_and_never_starts_the_clients_interpreter(
    start_daemon: Callable[..., DaemonProcess], key: str, tmp_path: Path
) -> None:
    daemon = start_daemon(address="127.0.0.1:0", daemon={"insecure_loopback": True})
    daemon.handshake()

    [*_, last] = daemon.compile(key, b"ok", interpreter=str(tmp_path / "absent"))

    assert not daemon.address.endswith(":0")
    assert last.HasField("artifact")


# How it ends


def test_sigterm_finishes_the_running_compile_and_hands_back_the_waiting_one(
    start_daemon: Callable[..., DaemonProcess], key: str
) -> None:
    daemon = start_daemon(pool={"max_workers": 1}, flights={"event_s": 0.05})
    daemon.handshake()
    running = daemon.compile(f"{key}-1", b"ok 3")
    next(running)
    wait_until(lambda: daemon.jobs(f"{key}-1"), what="the first compile begins")
    waiting = daemon.compile(f"{key}-2", b"ok")
    next(waiting)
    [worker] = daemon.jobs(f"{key}-1")

    daemon.process.send_signal(signal.SIGTERM)
    [*_, handed_back] = waiting
    health = daemon.health("compiler_daemon.v1.CompileService")
    with pytest.raises(grpc.RpcError) as refused:
        daemon.lookup(key)
    [late] = daemon.compile(f"{key}-3", b"ok")
    [*_, finished] = running
    code = daemon.process.wait(DEADLINE_S)

    assert handed_back.refused.reason == late.refused.reason == pb.Refused.REASON_DRAINING
    assert health == "NOT_SERVING"
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert finished.HasField("artifact")
    assert code == 0
    assert not process_lives(worker)


def test_blobs_of_an_artifact_finished_during_the_drain_can_still_be_read(
    start_daemon: Callable[..., DaemonProcess], key: str
) -> None:
    daemon = start_daemon()
    daemon.handshake()
    running = daemon.compile(key, f"big {2**22} 0.5".encode())
    wait_until(lambda: next(running) and daemon.jobs(key), what="the compile begins")

    daemon.process.send_signal(signal.SIGTERM)
    [*_, finished] = running
    large = max(decode_manifest(finished.artifact.manifest).blobs, key=lambda blob: blob.size)

    assert daemon.read_blob(large.sha256) == bytes(2**22)
    assert daemon.process.wait(DEADLINE_S) == 0


def test_a_drain_ends_at_its_limit(start_daemon: Callable[..., DaemonProcess], key: str) -> None:
    daemon = start_daemon(daemon={"drain_s": 0.3})
    daemon.handshake()
    running = daemon.compile(key, b"hang")
    wait_until(lambda: next(running) and daemon.jobs(key), what="the compile begins")
    [worker] = daemon.jobs(key)

    daemon.process.send_signal(signal.SIGTERM)
    [*_, last] = running

    assert daemon.process.wait(DEADLINE_S) == 0
    assert last.refused.reason == pb.Refused.REASON_DRAINING
    assert not process_lives(worker)


def test_a_second_signal_ends_it_at_once(start_daemon: Callable[..., DaemonProcess], key: str) -> None:
    daemon = start_daemon()
    daemon.handshake()
    running = daemon.compile(key, b"hang")
    wait_until(lambda: next(running) and daemon.jobs(key), what="the compile begins")

    daemon.process.send_signal(signal.SIGTERM)
    wait_until(lambda: daemon.health() == "NOT_SERVING", what="the drain begins")
    daemon.process.send_signal(signal.SIGINT)

    assert daemon.process.wait(DEADLINE_S) == 0
    assert not process_lives(daemon.jobs(key)[0])


def test_stop_drains_a_daemon_with_a_compile_running(start_daemon: Callable[..., DaemonProcess], key: str) -> None:
    daemon = start_daemon()
    daemon.handshake()
    running = daemon.compile(key, b"ok 0.5")
    wait_until(lambda: next(running) and daemon.jobs(key), what="the compile begins")

    stopped = run("stop", "--dir", str(daemon.directory))

    assert stopped.returncode == 0
    assert daemon.process.wait(1) == 0
    [*_, last] = running
    assert last.HasField("artifact")


def test_kill_9_leaves_no_worker_and_loses_no_artifact_environment_or_count(
    start_daemon: Callable[..., DaemonProcess], key: str
) -> None:
    daemon = start_daemon()
    daemon.handshake()
    manifest = manifest_of(key, b"entry")
    daemon.publish(key, manifest, b"entry")
    [*_, made] = daemon.compile(f"{key}-made", b"ok")
    worker = daemon.jobs(f"{key}-made")[0]
    # The daemon writes counts to the disk once a second.
    time.sleep(1.5)
    daemon.kill()

    wait_until(lambda: not process_lives(worker), what="the worker ends by itself")
    again = start_daemon()

    assert [entry.manifest for entry in again.lookup(key)] == [manifest]
    assert again.lookup(f"{key}-made") == [made.artifact]
    assert again.status().counters["artifacts_published"] == 1
    assert again.status().counters["compiles_done"] == 1


def test_scratch_of_an_earlier_run_is_emptied(start_daemon: Callable[..., DaemonProcess], tmp_path: Path) -> None:
    left = tmp_path / "d" / "scratch" / "left"
    left.mkdir(parents=True)
    (tmp_path / "d").chmod(0o700)

    start_daemon()

    assert not left.exists()


# What it costs


def test_the_daemon_imports_no_torch_and_is_small_when_idle(
    start_daemon: Callable[..., DaemonProcess], key: str
) -> None:
    daemon = start_daemon(pool={"prewarm": False})
    daemon.handshake()
    daemon.lookup(key)

    mapped = {Path(region.path).name for region in psutil.Process(daemon.process.pid).memory_maps()}
    status = daemon.status()

    assert not any(name.startswith(("libtorch", "libtriton", "_C.")) for name in mapped)
    assert status.rss_bytes < 60e6


def test_the_version_is_the_packages() -> None:
    assert compiler_daemon.__version__ == importlib.metadata.version("compiler-daemon")


def test_no_room_of_the_daemon_imports_torch() -> None:
    code = (
        "import sys, compiler_daemon.app, compiler_daemon.cli, compiler_daemon.admin.connection\n"
        "print([name for name in ('torch', 'triton', 'numpy', 'sympy') if name in sys.modules])"
    )

    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert imported.stdout == "[]\n"


def test_reflection_is_served_only_when_asked_for(start_daemon: Callable[..., DaemonProcess]) -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    def services(daemon: DaemonProcess) -> list[str]:
        request: Any = reflection_pb2.ServerReflectionRequest(list_services="")
        stub = reflection_pb2_grpc.ServerReflectionStub(daemon.channel)
        [answer] = stub.ServerReflectionInfo(iter([request]), **daemon.options())
        return [service.name for service in answer.list_services_response.service]

    assert "compiler_daemon.v1.CompileService" in services(start_daemon("with", daemon={"reflection": True}))
    with pytest.raises(grpc.RpcError) as raised:
        services(start_daemon("without"))
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_environments_are_listed_by_their_id_in_the_status(daemon: DaemonProcess, key: str) -> None:
    daemon.compiled(key, b"ok")

    assert {worker.environment_id for worker in daemon.status().workers} == {ENVIRONMENT}
