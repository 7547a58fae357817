"""A worker that runs any code it is given, under a real daemon: what it can reach, confined and unconfined.

Each probe runs twice, because a probe that fails without the sandbox, too, would show nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import compiler_daemon
from compile_wire.environment import environment_id
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compiler_daemon.admin.doctor import checks as doctor
from compiler_daemon.app import check_sandbox, serve
from compiler_daemon.config import SANDBOX_VARIABLE, DaemonConfig, DaemonLocation, PoolConfig, SandboxMode, sandbox_mode
from compiler_daemon.errors import StartError, UsageError
from compiler_daemon.worker import confinement
from compiler_daemon.worker.confinement import landlock, system_calls
from compiler_daemon.worker.confinement.places import CannotConfineError, places
from tests.daemon.daemon_process import HERE, DaemonProcess
from tests.daemon.probing_worker import FIELDS

_COMMAND = ["-P", str(HERE / "probing_worker.py")]

pytestmark = pytest.mark.skipif(bool(confinement.why_not()), reason=f"no sandbox here: {confinement.why_not()}")


@dataclass(frozen=True, slots=True)
class Scene:
    """A daemon whose sandbox is on or off, and everything that its workers must not reach."""

    daemon: DaemonProcess
    things: dict[str, str | int]

    def probe(self, name: str, *arguments: object) -> str:
        """Have the worker run a probe; return the outcome."""
        text = json.dumps([name, *arguments]).encode()
        answer: Any = self.daemon.compiled(str(uuid.uuid4()), text, environment_id=environment_id(FIELDS))
        return str(answer.message)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Scene]]:
    with ExitStack() as scope:
        yield {mode: _scene(scope, tmp_path_factory.mktemp(mode), mode) for mode in ("required", "off")}


def _scene(scope: ExitStack, folder: Path, mode: str) -> Scene:
    home, directory = folder / "home", folder / "d"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text("a key")
    other = folder / "canary"
    other.write_text("anybody's file in a temporary folder")
    pool = {"command": _COMMAND, "sandbox": mode, "max_workers": 1}
    # The test starts this daemon itself, because its home must not be ours.
    daemon = DaemonProcess(directory, fields=FIELDS, pool=pool).start(environ={"HOME": str(home)})
    scope.push(daemon.__exit__)
    keys = directory / "keys"
    keys.mkdir()
    (keys / "ca.key").write_text("an authority's key")
    (directory / "scratch" / "worker-99").mkdir(parents=True)
    (directory / "scratch" / "worker-99" / "entry").write_text("another worker's")
    (directory / "log" / "worker-9.log").write_text("another worker's log") if (directory / "log").exists() else None
    daemon.handshake(FIELDS)
    stream = scope.enter_context(socket.create_server(("127.0.0.1", 0)))
    abstract = scope.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    abstract.bind(f"\0{folder.name}-{os.getpid()}")
    abstract.listen()
    datagrams = scope.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    datagrams.bind(str(folder / "datagrams"))
    # This process belongs to the user and is no ancestor, so a debugger may attach to it unless something forbids it.
    victim = scope.enter_context(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
    scope.callback(victim.kill)
    things: dict[str, str | int] = {
        "token": str(directory / "token"),
        "secret": str(directory / "secret"),
        "keys": str(keys / "ca.key"),
        "index": str(directory / "store" / "index.sqlite3"),
        "directory": str(directory),
        "store": str(directory / "store"),
        "scratch": str(directory / "scratch"),
        "another's scratch": str(directory / "scratch" / "worker-99" / "entry"),
        "new": str(directory / "store" / "new"),
        "home": str(home),
        "ssh": str(home / ".ssh" / "id_ed25519"),
        "new at home": str(home / ".bashrc"),
        "elsewhere": str(other),
        "new elsewhere": str(folder / "new"),
        "system": "/etc/passwd",
        "prefix": str(Path(sys.prefix) / "pyvenv.cfg"),
        "environment": f"/proc/{daemon.process.pid}/environ",
        "command line": f"/proc/{daemon.process.pid}/cmdline",
        "port": stream.getsockname()[1],
        "socket": str(directory / "daemon.sock"),
        "abstract": f"@{folder.name}-{os.getpid()}",
        "datagrams": str(folder / "datagrams"),
        "daemon": daemon.process.pid,
        "victim": victim.pid,
    }
    return Scene(daemon, things)


_READERS = ["read", "read_by_child", "read_by_interpreter", "read_by_link"]
_PROBES = [
    *[(reader, thing) for reader in _READERS for thing in ("token", "secret", "keys", "index", "ssh", "elsewhere")],
    *[("read", thing) for thing in ("another's scratch", "system", "environment", "command line")],
    ("read_by_hard_link", "token"),
    ("read_by_preprocessor", "another's scratch"),
    *[("list", thing) for thing in ("directory", "store", "scratch", "home")],
    *[("write", thing) for thing in ("token", "index", "another's scratch", "prefix")],
    *[("make", thing) for thing in ("new", "new at home", "new elsewhere")],
    *[(change, "secret") for change in ("change_mode", "cut", "move")],
    ("change_mode", "prefix"),
    *[(way, "port") for way in ("connect", "connect_by_child", "connect_by_thread", "datagram")],
    ("listen", None),
    *[("connect_unix", thing) for thing in ("socket", "abstract")],
    ("datagram_unix", "datagrams"),
    *[("signal", thing) for thing in ("daemon", "victim")],
    ("stop", "daemon"),
    *[("read_memory", thing) for thing in ("victim",)],
    ("limit", "daemon"),
    *[(what, None) for what in ("rings", "keys", "namespace", "shared_memory")],
]


@pytest.mark.parametrize(("probe", "thing"), _PROBES)
def test_a_worker_that_was_taken_over_is_kept_from(scenes: dict[str, Scene], probe: str, thing: str | None) -> None:
    def tried(mode: str) -> str:
        scene = scenes[mode]
        return scene.probe(probe, *([scene.things[thing]] if thing else []))

    assert tried("off").startswith("done: "), "the probe shows nothing: it fails without a sandbox, too"
    answer = tried("required")
    assert answer.startswith(("PermissionError: ", "OSError: [Errno 18] "))
    assert any(words in answer for words in ("ermission denied", "not permitted", "cross-device link"))


def test_a_worker_that_is_confined_can_still_do_its_work(scenes: dict[str, Scene]) -> None:
    assert {mode: scene.probe("work") for mode, scene in scenes.items()} == {"off": "done: 3", "required": "done: 3"}


def test_each_worker_has_a_folder_of_its_own_that_goes_with_it(tmp_path: Path) -> None:
    pool = {"command": _COMMAND, "jobs_per_worker": 1, "max_workers": 1}
    with DaemonProcess(tmp_path / "d", fields=FIELDS, pool=pool) as daemon:
        daemon.handshake(FIELDS)
        scene = Scene(daemon, {})
        places = [scene.probe("where").removeprefix("done: ") for _ in range(3)]

    assert len(set(places)) == 3
    assert not [place for place in places[:2] if os.path.exists(place)]
    assert not [place for place in places if not place.startswith(str(tmp_path / "d" / "scratch"))]


# What is said about it


def test_status_says_what_the_workers_say(scenes: dict[str, Scene]) -> None:
    said = {mode: scene.daemon.status().sandbox for mode, scene in scenes.items()}

    assert said == {"off": "off: the daemon was told so", "required": f"in force: {confinement.in_words()}"}


def test_a_worker_that_does_not_confine_itself_is_told_about_and_where_it_must_it_gets_no_job(
    start_daemon: Callable[..., DaemonProcess], key: str
) -> None:
    trusting, strict = start_daemon("trusting"), start_daemon("strict", pool={"sandbox": "required"})
    answers = []
    for daemon in (trusting, strict):
        daemon.handshake()
        answers.append(daemon.compiled(key, b"ok"))

    assert isinstance(answers[0], pb.ArtifactEntry)
    assert trusting.status().sandbox == "not in force for all workers: it does not say whether it is confined"
    assert "are not confined: it does not say" in trusting.log.read_text()
    assert isinstance(answers[1], pb.Refused)
    assert "is not confined, and must be" in answers[1].message
    assert strict.jobs(key) == []


@pytest.mark.parametrize(
    ("abi", "machine", "says"),
    [(0, "x86_64", "has no Landlock"), (1, "x86_64", "version 1, and 2 is the first"), (7, "vax", "processor")],
)
def test_a_machine_that_cannot_confine_serves_unless_it_must(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, abi: int, machine: str, says: str
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: abi)
    monkeypatch.setattr(platform, "machine", lambda: machine)

    def config(mode: SandboxMode) -> DaemonConfig:
        location = DaemonLocation.resolve({}, directory=tmp_path / "d", address=None)
        return DaemonConfig(
            directory=location.directory, address=location.default_address, pool=PoolConfig(sandbox=mode)
        )

    with pytest.raises(StartError, match=says):
        asyncio.run(serve(config("required"), on_ready=lambda _address: None))
    assert not (tmp_path / "d").exists()
    check_sandbox(config("auto"))

    assert [says in record.getMessage() for record in caplog.records] == [True]
    assert says in doctor.check_sandbox(None).text


def test_the_sandbox_is_chosen_by_argument_over_environment_over_default() -> None:
    assert sandbox_mode({}) == "auto"
    assert sandbox_mode({SANDBOX_VARIABLE: "required"}) == "required"
    assert sandbox_mode({SANDBOX_VARIABLE: "required"}, "off") == "off"
    with pytest.raises(UsageError, match="auto, off or required"):
        sandbox_mode({SANDBOX_VARIABLE: "yes"})


# Which paths


def test_a_place_above_what_is_hidden_is_left_out_and_one_that_the_interpreter_needs_stops_it(tmp_path: Path) -> None:
    tools = tmp_path / "tools" / "bin"
    tools.mkdir(parents=True)
    (tools / "g++").write_text("")
    (tools / "g++").chmod(0o700)

    def found(*hidden: Path) -> set[Path]:
        environ = {"PATH": str(tools), "CXX": "g++"}
        return set(places(scratch=tmp_path, readable=[], hidden=hidden, environ=environ).read)

    assert tmp_path / "tools" in found()
    assert tmp_path / "tools" not in found(tmp_path / "tools" / "home")
    assert Path(compiler_daemon.__file__).parent in found(Path(compiler_daemon.__file__).parents[1] / "runs")
    with pytest.raises(CannotConfineError, match="use another --dir"):
        found(Path(sys.prefix) / "share" / "d")


def test_the_numbers_of_system_calls_are_those_of_the_kernels_headers() -> None:
    headers = ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm-generic/unistd.h")
    if not all(os.path.exists(header) for header in headers):
        pytest.skip("the kernel's headers are not installed")
    for column, header in enumerate(headers):
        text = Path(header).read_text()
        known = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
        told = {name: numbers[column] for name, numbers in system_calls.NUMBERS.items()}

        assert {name: number for name, number in told.items() if known.get(name, number) != number} == {}
        assert [name for name, number in told.items() if number < 0 and name in known] == []
