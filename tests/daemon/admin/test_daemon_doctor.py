"""`compiler-daemon doctor` on real directories and a real daemon, as an operator types it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compile_torch import versions
from compiler_daemon.admin.answers import DaemonState
from compiler_daemon.admin.doctor import checks as doctor
from compiler_daemon.cli import cli
from compiler_daemon.errors import DaemonError
from tests.daemon.daemon_process import DEADLINE_S, DaemonProcess

PATH = os.environ["PATH"]
UNSET: dict[str, str | None] = {
    name: None for name in os.environ if name.startswith(("TORCH", "COMPILER_DAEMON_")) or name == "CXX"
}


class Findings:
    """The findings of one run of `doctor`, by check."""

    def __init__(self, directory: Path, *arguments: str, **environ: str) -> None:
        ended = CliRunner().invoke(
            cli, ["doctor", "--json", "--no-trainer", "--dir", str(directory), *arguments], env={**UNSET, **environ}
        )
        assert isinstance(ended.exception, SystemExit | None), ended.exception
        self.code = ended.exit_code
        answer = json.loads(ended.stdout)
        self.problems: int = answer["problems"]
        self.by_check: dict[str, list[dict[str, str]]] = {}
        for finding in answer["findings"]:
            self.by_check.setdefault(finding["check"], []).append(finding)

    def said(self, check: str, level: str) -> str:
        return " ".join(finding["text"] for finding in self.by_check.get(check, []) if finding["level"] == level)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A directory as a daemon leaves it, although no daemon runs."""
    directory = tmp_path / "d"
    directory.mkdir(mode=0o700)
    for name, size in (("token", 64), ("secret", 32)):
        (directory / name).write_bytes(b"x" * size)
        (directory / name).chmod(0o600)
    return directory


# With a daemon


def test_a_healthy_daemon_has_no_problem_and_its_process_and_address_are_named(daemon: DaemonProcess) -> None:
    found = Findings(daemon.directory, TORCH_COMPILE_CLIENT="1")

    assert (found.code, found.problems) == (0, 0)
    assert found.said("daemon", "ok") == f"process {daemon.process.pid} serves at {daemon.address}"
    assert str(daemon.process.pid) in found.said("socket", "ok")
    assert "health and status" in found.said("answers", "ok")
    assert "B are free" in found.said("room", "ok") + found.said("room", "note")


def test_the_words_are_a_line_for_each_check_and_hold_neither_token_nor_secret(daemon: DaemonProcess) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "compiler_daemon", "doctor", "--no-trainer", "--dir", str(daemon.directory)],
        env={"PATH": PATH},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert ended.returncode == 0
    assert all(line.split()[0] in {"ok", "note", "problem"} for line in ended.stdout.splitlines())
    assert (daemon.directory / "token").read_text() not in ended.stdout + ended.stderr
    secret = (daemon.directory / "secret").read_bytes()
    assert secret.hex() not in ended.stdout
    assert secret not in ended.stdout.encode()


def test_a_stopped_daemon_is_a_problem_within_seconds(start_daemon: Callable[..., DaemonProcess]) -> None:
    daemon = start_daemon()
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        found = Findings(daemon.directory)
    finally:
        daemon.process.send_signal(signal.SIGCONT)

    assert found.code == 1
    assert "did not answer within 3 s" in found.said("answers", "problem")


def test_a_killed_daemon_is_told_from_one_that_never_ran(start_daemon: Callable[..., DaemonProcess]) -> None:
    daemon = start_daemon()
    daemon.kill()

    found = Findings(daemon.directory)

    assert found.code == 1
    assert f"process {daemon.process.pid} was killed" in found.said("daemon", "problem")
    assert "the next start removes it" in found.said("socket", "note")
    assert found.said("token", "ok")


def test_a_daemon_on_loopback_works_with_a_note(start_daemon: Callable[..., DaemonProcess]) -> None:
    daemon = start_daemon(address="127.0.0.1:0", daemon={"insecure_loopback": True})

    found = Findings(daemon.directory)

    assert found.code == 0
    assert "every user of this machine" in found.said("address", "note")
    assert found.said("answers", "ok")


def test_nothing_is_asked_of_another_machine(daemon: DaemonProcess) -> None:
    found = Findings(daemon.directory, "--address", "192.0.2.1:1")

    assert "no loopback address" in found.said("address", "problem")
    assert "not tried" in found.said("socket", "note")
    assert "answers" not in found.by_check


# Directory, token, secret


def test_a_directory_that_is_not_there_is_said_with_what_makes_it_and_is_not_made(tmp_path: Path) -> None:
    found = Findings(tmp_path / "d")

    assert found.code == 1
    assert "`compiler-daemon serve` makes it" in found.said("directory", "problem")
    assert "none runs" in found.said("daemon", "problem")
    assert not (tmp_path / "d").exists()


def test_looking_changes_nothing(prepared: Path) -> None:
    before = sorted(path.name for path in prepared.iterdir())

    Findings(prepared)

    assert sorted(path.name for path in prepared.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "mode", "check", "text"),
    [
        ("", 0o770, "directory", "others may write"),
        ("", 0o755, "directory", "others can read"),
        ("token", 0o644, "token", "chmod 600"),
        ("secret", 0o640, "secret", "chmod 600"),
    ],
)
def test_a_wrong_mode_is_a_problem_with_the_command_that_mends_it(
    prepared: Path, name: str, mode: int, check: str, text: str
) -> None:
    (prepared / name).chmod(mode)

    found = Findings(prepared)

    assert text in found.said(check, "problem")
    assert "chmod" in found.said(check, "problem")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(("name", "check"), [("", "directory"), ("token", "token"), ("secret", "secret")])
def test_another_owner_is_a_problem(prepared: Path, name: str, check: str) -> None:
    os.chown(prepared / name, 12345, 12345)

    assert "belongs to user 12345" in Findings(prepared).said(check, "problem")


@pytest.mark.parametrize(
    ("name", "content", "text"), [("secret", b"short", "has 5 bytes, not 32"), ("token", b"", "is empty")]
)
def test_a_token_or_secret_that_cannot_be_one_is_a_problem(
    prepared: Path, name: str, content: bytes, text: str
) -> None:
    (prepared / name).write_bytes(content)

    assert text in Findings(prepared).said(name, "problem")


def test_a_link_in_the_place_of_the_secret_is_a_problem(prepared: Path) -> None:
    (prepared / "secret").rename(prepared / "elsewhere")
    (prepared / "secret").symlink_to(prepared / "elsewhere")

    assert "is no plain file" in Findings(prepared).said("secret", "problem")


# Socket


def test_a_path_too_long_for_a_socket_is_a_problem(tmp_path: Path) -> None:
    assert "the system allows 107" in Findings(tmp_path / ("x" * 120)).said("daemon", "problem")


def test_something_else_in_the_sockets_place_is_a_problem(prepared: Path) -> None:
    (prepared / "daemon.sock").write_text("mine")

    assert "is no socket" in Findings(prepared).said("socket", "problem")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_socket_of_another_user_is_a_problem_and_is_shown_no_token(prepared: Path) -> None:
    listen = (
        "import os, socket, sys\n"
        "os.setuid(12345)\n"
        "server = socket.socket(fileno=int(sys.argv[1]))\n"
        "server.listen()\n"
        "print('listens', flush=True)\n"
        "peer, _ = server.accept()\n"
        "print(peer.recv(1 << 16))\n"
    )
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(prepared / "daemon.sock"))
        number = server.fileno()
        with subprocess.Popen(
            [sys.executable, "-c", listen, str(number)], pass_fds=[number], stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "listens\n"
            found = Findings(prepared)
            received = other.stdout.read()

    assert "of user 12345" in found.said("socket", "problem")
    assert "answers" not in found.by_check
    assert received == "b''\n"


# Store


def test_damaged_blobs_are_counted(prepared: Path) -> None:
    (prepared / "store" / "quarantine").mkdir(parents=True)
    (prepared / "store").chmod(0o700)
    for number in range(3):
        (prepared / "store" / "quarantine" / f"blob.{number}").touch()

    assert "3 damaged" in Findings(prepared).said("quarantine", "note")


def test_a_store_that_others_may_write_to_is_a_problem(prepared: Path) -> None:
    (prepared / "store").mkdir()
    (prepared / "store").chmod(0o777)

    assert "others may write" in Findings(prepared).said("store", "problem")


@pytest.mark.parametrize(("limit", "level"), [(2**20, "ok"), (2**60, "note")])
def test_a_disk_that_fills_before_the_store_does_is_noted(tmp_path: Path, limit: int, level: str) -> None:
    assert doctor.check_room(tmp_path, DaemonState(store_max_bytes=limit)).level == level


# This interpreter and this shell


def test_compiler_and_strip_are_looked_for_on_path(prepared: Path, tmp_path: Path) -> None:
    missing = Findings(prepared, PATH=str(tmp_path)).said("tools", "problem")

    assert "`g++`" in missing
    assert "`strip`" in missing
    assert "`nowhere-c++`" in Findings(prepared, CXX="nowhere-c++ -O2").said("tools", "problem")


def test_torch_and_entry_point_are_found_without_importing_torch() -> None:
    code = (
        "import sys\n"
        "from compiler_daemon.admin.doctor.checks import check_entry_point, check_torch\n"
        "print(check_torch().level, check_entry_point().level, 'torch' in sys.modules)"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert said.stdout == "ok ok False\n"


@pytest.mark.parametrize(
    ("version", "level"),
    [("2.10.9", "problem"), ("2.11.0", "ok"), ("2.15.1+cu130", "ok"), ("2.16.0", "problem"), ("odd", "problem")],
)
def test_a_torch_that_the_client_does_not_know_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, version: str, level: str
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)

    assert doctor.check_torch().level == level


def test_a_python_without_its_global_lock_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: int(name == "Py_GIL_DISABLED"))

    finding = doctor.check_torch()

    assert finding.level == "problem"
    assert "free-threaded" in finding.text


def test_the_versions_are_those_of_the_clients_table() -> None:
    assert (doctor.OLDEST_TORCH, doctor.NEWEST_TORCH) == (versions.OLDEST, versions.NEWEST)


@pytest.mark.parametrize(
    ("environ", "level"),
    [
        ({}, "note"),
        ({"TORCH_COMPILE_CLIENT": "0"}, "note"),
        ({"TORCH_COMPILE_CLIENT": "1"}, "ok"),
        ({"TORCH_COMPILE_CLIENT": "auto"}, "ok"),
        ({"TORCH_COMPILE_CLIENT": "perhaps"}, "problem"),
        ({"TORCH_COMPILE_CLIENT": "1", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}, "problem"),
        ({"TORCH_COMPILE_CLIENT": "1", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}, "problem"),
    ],
)
def test_variables_that_switch_the_client_off_are_said(environ: Mapping[str, str], level: str) -> None:
    assert level in {finding.level for finding in doctor.check_environment(environ)}


def test_an_address_that_is_none_is_wrong_use(prepared: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "compiler_daemon", "doctor", "--dir", str(prepared), "--address", "nonsense"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert ended.returncode == 2
    assert "write unix:PATH or HOST:PORT" in ended.stderr


def test_what_the_daemon_answers_wrongly_is_said_in_its_words() -> None:
    def ask() -> tuple[str, DaemonState]:
        raise DaemonError("the daemon has another token")

    finding, state = doctor.check_answers(ask)

    assert (finding.level, finding.text, state) == ("problem", "the daemon has another token", None)
