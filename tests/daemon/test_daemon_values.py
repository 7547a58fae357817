from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compile_wire.endpoint.address import MAX_SOCKET_PATH_BYTES, TcpAddress, UnixAddress
from compile_wire.errors import MalformedError
from compiler_daemon.access.directory import DaemonNote, DirectoryLock, Identity, prepare_directory
from compiler_daemon.compiles.crash_quarantine import GraphQuarantine
from compiler_daemon.compiles.interpreter import check_interpreter
from compiler_daemon.config import DaemonConfig, DaemonLocation, PoolConfig
from compiler_daemon.endpoint import read_address
from compiler_daemon.errors import DirectoryError, JobRefusedError, RunningError, UsageError
from compiler_daemon.metrics import Counters
from compiler_daemon.worker.protocol import WORKER_PROTOCOL
from compiler_daemon.workers.frames import Progress, RefusedFrame, read_hello, read_reply
from compiler_daemon.workers.process_tree import ProcessTree
from tests.daemon.daemon_process import ENVIRONMENT, FIELDS, process_lives, wait_until

HOME = Path.home()

# Addresses and places


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/d.sock", UnixAddress(Path("/run/d.sock"))),
        ("unix:///run/d.sock", UnixAddress(Path("/run/d.sock"))),
        ("unix:d.sock", UnixAddress(Path.cwd() / "d.sock")),
        ("localhost:50051", TcpAddress("localhost", 50051)),
        ("[::1]:0", TcpAddress("::1", 0)),
    ],
)
def test_an_address_is_read_and_written_in_one_form(text: str, address: UnixAddress | TcpAddress) -> None:
    assert read_address(text) == address
    assert read_address(str(address)) == address


@pytest.mark.parametrize("text", ["", "unix:", "host", "host:", ":1", "host:70000", "host:-1", "host:¹", "unix:a\0b"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read_address(text)


def test_a_sockets_path_may_be_as_long_as_the_system_allows_and_no_longer() -> None:
    longest = "/" + "x" * (MAX_SOCKET_PATH_BYTES - 1)

    read_address(f"unix:{longest}")
    with pytest.raises(UsageError, match="--address"):
        read_address(f"unix:{longest}x")


@pytest.mark.parametrize(
    ("environ", "directory", "address", "expected"),
    [
        ({}, None, None, (HOME / ".cache/compiler-daemon", None)),
        ({"XDG_CACHE_HOME": "/c"}, None, None, (Path("/c/compiler-daemon"), None)),
        ({"XDG_CACHE_HOME": "relative"}, None, None, (HOME / ".cache/compiler-daemon", None)),
        ({"COMPILER_DAEMON_DIR": "/e", "XDG_CACHE_HOME": "/c"}, None, None, (Path("/e"), None)),
        ({"COMPILER_DAEMON_DIR": "/e"}, Path("/a"), None, (Path("/a"), None)),
        ({"COMPILER_DAEMON_ADDRESS": "h:1"}, None, None, (HOME / ".cache/compiler-daemon", TcpAddress("h", 1))),
        ({"COMPILER_DAEMON_ADDRESS": "h:1"}, None, "g:2", (HOME / ".cache/compiler-daemon", TcpAddress("g", 2))),
    ],
)
def test_an_argument_goes_over_the_environment_and_that_over_the_default(
    environ: dict[str, str],
    directory: Path | None,
    address: str | None,
    expected: tuple[Path, UnixAddress | TcpAddress | None],
) -> None:
    location = DaemonLocation.resolve(environ, directory=directory, address=address)

    assert (location.directory, location.address) == expected


@pytest.mark.parametrize(
    ("address", "allowed", "good"),
    [
        ("127.0.0.1:1", True, True),
        ("[::1]:1", True, True),
        ("localhost:1", True, True),
        ("10.0.0.1:1", True, False),
        ("example.org:1", True, False),
        ("0.0.0.0:1", True, False),
    ],
)
def test_plain_tcp_is_refused_unless_it_is_loopback_and_asked_for(address: str, allowed: bool, good: bool) -> None:
    def configure() -> DaemonConfig:
        return DaemonConfig(directory=Path("/d"), address=read_address(address), insecure_loopback=allowed)

    if good:
        configure()
    else:
        with pytest.raises(UsageError, match="keys init"):
            configure()


@pytest.mark.parametrize(("address", "tls"), [("127.0.0.1:1", True), ("gpu7:1", True), ("unix:/d/s", False)])
def test_tcp_is_tls_unless_the_loopback_is_asked_for_in_the_clear(address: str, tls: bool) -> None:
    config = DaemonConfig(directory=Path("/d"), address=read_address(address))

    assert config.uses_tls == tls
    assert not DaemonConfig(directory=Path("/d"), address=read_address("[::1]:1"), insecure_loopback=True).uses_tls


def test_there_is_at_least_one_worker() -> None:
    assert PoolConfig().max_workers >= 1
    with pytest.raises(ValueError, match="at least one"):
        PoolConfig(max_workers=0)


# Identity


def test_a_new_directory_is_the_users_alone(tmp_path: Path) -> None:
    prepare_directory(tmp_path / "a" / "b")

    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_a_directory_that_others_may_read_is_closed_and_one_they_may_write_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    prepare_directory(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700

    tmp_path.chmod(0o770)
    with pytest.raises(DirectoryError, match="chmod 700"):
        prepare_directory(tmp_path)


@pytest.mark.parametrize("there", [("thesis.tex",), (".git", "store"), ("photos", "lost+found")])
def test_a_directory_with_other_things_in_it_is_refused_and_not_touched(tmp_path: Path, there: tuple[str, ...]) -> None:
    tmp_path.chmod(0o755)
    for name in there:
        (tmp_path / name).mkdir()

    with pytest.raises(DirectoryError, match=f"not empty.*{there[0]}.*--dir"):
        prepare_directory(tmp_path)

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.mark.parametrize("there", [(), ("lost+found",), ("daemon.sock", "scratch"), ("token", "notes.txt")])
def test_an_empty_directory_and_a_daemons_own_are_used(tmp_path: Path, there: tuple[str, ...]) -> None:
    for name in there:
        (tmp_path / name).touch()

    prepare_directory(tmp_path)


def test_token_and_secret_are_made_once(tmp_path: Path) -> None:
    made = Identity.open(tmp_path)

    assert Identity.open(tmp_path) == made
    assert len(made.token) == 64
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("token", "secret")} == {0o600}


@pytest.mark.parametrize("name", ["token", "secret"])
def test_a_secret_that_others_could_read_is_not_used(tmp_path: Path, name: str) -> None:
    Identity.open(tmp_path)
    (tmp_path / name).chmod(0o644)

    with pytest.raises(DirectoryError, match="chmod 600"):
        Identity.open(tmp_path)


def test_a_secret_of_the_wrong_length_is_not_used(tmp_path: Path) -> None:
    Identity.open(tmp_path)
    (tmp_path / "secret").write_bytes(b"short")

    with pytest.raises(DirectoryError, match="move it away"):
        Identity.open(tmp_path)


def test_the_lock_is_held_by_one_and_names_the_holder(tmp_path: Path) -> None:
    first, second = DirectoryLock(tmp_path), DirectoryLock(tmp_path)
    assert not second.is_held()

    first.acquire()

    assert second.is_held()
    with pytest.raises(RunningError, match=f"process {os.getpid()} serves"):
        second.acquire()
    first.release()
    assert not second.is_held()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"address": 1}', '{"address": "a", "pid": "x", "started": 0}'])
def test_a_note_that_cannot_be_read_is_no_note(tmp_path: Path, content: str) -> None:
    (tmp_path / "daemon.json").write_text(content)
    (tmp_path / "daemon.json").chmod(0o600)

    assert DaemonNote.read(tmp_path) is None


# Interpreters


def test_an_interpreter_is_not_resolved(tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to(sys.executable)

    assert check_interpreter(str(tmp_path / "python")) == str(tmp_path / "python")


def test_an_interpreter_must_be_an_absolute_path_to_something_that_can_be_executed(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("")

    for path in ("python", "./python", "", "/" + "x" * 5000, "/bin/sh\0"):
        with pytest.raises(MalformedError):
            check_interpreter(path)
    for path in (str(tmp_path / "text"), str(tmp_path), "/nowhere/python"):
        with pytest.raises(JobRefusedError):
            check_interpreter(path)


# Quarantine and counters


def test_a_graph_is_refused_after_two_deaths_until_time_has_passed() -> None:
    quarantine = GraphQuarantine(lasts_s=0.2)
    key = (ENVIRONMENT, "key")

    assert not quarantine.note_death(key, "first")
    assert quarantine.reason(key) == ""
    assert quarantine.note_death(key, "second")

    assert "second" in quarantine.reason(key)
    assert [view.key for view in quarantine.views()] == ["key"]
    time.sleep(0.25)
    assert quarantine.reason(key) == ""
    assert quarantine.views() == []


def test_a_compile_that_succeeds_forgives_a_death() -> None:
    quarantine = GraphQuarantine(lasts_s=60)
    key = (ENVIRONMENT, "key")

    quarantine.note_death(key, "first")
    quarantine.forgive(key)

    assert not quarantine.note_death(key, "another first")


def test_counts_are_taken_once_and_seconds_add_up() -> None:
    counters = Counters()
    counters.add("asked", 2)
    for _ in range(4):
        counters.add_seconds("spent", 0.3)

    taken = counters.take()

    assert taken == {"asked": 2, "spent": 1}
    assert counters.take() == {}
    counters.give_back(taken)
    assert counters.take() == taken


# What a worker may say


@pytest.mark.parametrize(
    "message",
    [
        None,
        {"type": "progress"},
        {"type": "hello"},
        {"type": "hello", "protocol": WORKER_PROTOCOL + 1, "environment": FIELDS, "facts": b""},
        {"type": "hello", "protocol": WORKER_PROTOCOL, "environment": {"a": 1}, "facts": b""},
        {"type": "hello", "protocol": WORKER_PROTOCOL, "environment": {}, "facts": b""},
        {"type": "hello", "protocol": WORKER_PROTOCOL, "environment": FIELDS, "facts": b"nonsense"},
        {"type": "hello", "protocol": WORKER_PROTOCOL, "environment": FIELDS},
    ],
)
def test_what_is_no_hello_is_malformed(message: dict[str, object] | None) -> None:
    with pytest.raises(MalformedError):
        read_hello(message)


@pytest.mark.parametrize(
    "message",
    [
        None,
        {"type": "progress", "id": 2, "phase": "compiling"},
        {"type": "progress", "id": 1, "phase": "dreaming"},
        {"type": "progress", "id": 1},
        {"type": "blob", "id": 1, "sha256": "..", "data": b""},
        {"type": "blob", "id": 1, "sha256": "0" * 64, "data": "text"},
        {"type": "done", "id": 1, "manifest": b"", "facts": b"nonsense"},
        {"type": "done", "id": 1},
        {"type": "refused", "id": 1, "reason": "TIRED", "message": "", "fields": []},
        {"type": "refused", "id": 1, "reason": "LIMIT", "message": "", "fields": [1]},
        {"type": "dance", "id": 1},
    ],
)
def test_what_a_worker_must_not_say_is_malformed(message: dict[str, object] | None) -> None:
    with pytest.raises(MalformedError):
        read_reply(message, 1)


def test_what_a_worker_may_say_is_read_and_cut_to_size() -> None:
    refused = {"type": "refused", "id": 1, "reason": "UNSUPPORTED", "message": "m" * 10_000, "fields": ["f"] * 1000}

    assert read_reply({"type": "progress", "id": 1, "phase": "packing"}, 1) == Progress("packing")
    answer = read_reply(refused, 1)
    assert isinstance(answer, RefusedFrame)
    assert (len(answer.message), len(answer.fields)) == (4096, 64)


# Processes


def test_a_tree_is_killed_whole_with_children_in_sessions_of_their_own(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "children = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True)]\n"
        f"open({str(tmp_path / 'pids')!r}, 'w').write(' '.join(str(child.pid) for child in children) + ' .')\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as leader:
        pids = tmp_path / "pids"
        wait_until(lambda: pids.exists() and pids.read_text().endswith("."), what="the children are there")
        tree = ProcessTree(leader.pid)
        usage = tree.usage()

        tree.kill()

        children = [int(pid) for pid in pids.read_text().split()[:-1]]
        assert usage.rss_bytes > 0
        assert not any(process_lives(pid) for pid in (leader.pid, *children))
