"""What people and programs may expect of every verb: how it fails, what it says, and how it takes signals."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

from compiler_daemon.cli import cli as application
from compiler_daemon.text.sentence import sentence
from tests.daemon.daemon_process import DEADLINE_S, INTERRUPTIBLE, DaemonProcess, wait_until
from tests.daemon.inventory_samples import Ended, cli, publish

Start = Callable[..., DaemonProcess]
COMMAND = [sys.executable, "-m", "compiler_daemon"]


# Signals


def test_a_terminal_that_closes_drains_the_daemon_however_often_it_says_so(start_daemon: Start, key: str) -> None:
    daemon = start_daemon()
    daemon.handshake()
    running = daemon.compile(key, b"ok 1")
    wait_until(lambda: next(running) and daemon.jobs(key), what="the compile begins")

    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: daemon.health() == "NOT_SERVING", what="the drain begins")
    daemon.process.send_signal(signal.SIGHUP)
    [*_, last] = running

    assert last.HasField("artifact")
    assert daemon.process.wait(DEADLINE_S) == 0


def test_a_daemon_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path / "d")
    command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *daemon.command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready ")

        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.terminate()

        assert process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("after_s", [0.1, 0.25, 0.4, 0.6])
def test_an_interrupted_start_leaves_no_traceback(tmp_path: Path, after_s: float) -> None:
    command = [*INTERRUPTIBLE, *COMMAND, "serve", "--no-prewarm", "--dir", str(tmp_path / "d")]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # Whatever it does then: each of its phases is a few tenths of a second.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(after_s)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=DEADLINE_S)

    # On a busy machine the first of them comes before Python reads the program, and what it says then is its own.
    begun = "compiler_daemon" in said
    assert not (begun and "Traceback" in said)
    assert process.returncode in (0, 130) or (not begun and process.returncode in (1, -signal.SIGINT))


# What a failure looks like


def test_grpcs_own_lines_do_not_reach_the_user(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [*COMMAND, "serve", "--insecure-loopback", "--address", address, "--dir", str(tmp_path / "d")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)

    assert ended.returncode == 1
    assert f"{address} cannot be bound (Address already in use): choose another --address" in ended.stderr
    assert not re.search(r"\.cc:|InitializeLog|E0000", ended.stderr)


def verbs(group: object = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every verb that has an answer as JSON."""
    group = group or typer.main.get_command(application)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from verbs(command, (*path, name))
        elif any("--json" in parameter.opts for parameter in command.params):
            yield (*path, name)


VERBS = sorted(verbs())
ARGUMENTS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("export",): ("file",),
    ("import",): ("file",),
    ("show",): ("nothing",),
    ("pin",): ("nothing",),
    ("unpin",): ("nothing",),
    ("rm",): ("nothing", "--yes"),
    ("replay",): ("--all",),
    ("warm",): ("--", "true"),
    ("keys", "client"): ("alice", "--out", "out"),
    ("keys", "revoke"): ("alice",),
    ("keys", "signer", "init"): ("alice",),
    ("keys", "trust"): ("line",),
    ("keys", "distrust"): ("alice",),
    ("tier", "gc"): ("--older-than", "30d"),
}


def is_plain_english(text: str) -> bool:
    """Whether nothing in it is for programmers only, or was left unfinished."""
    slips = (r"\bErrno\b", r"PosixPath", r"<[a-z_.]+ object", r"\bNone\b", r",\s*(?:[.:)]|$)", r"\(\)", r"Traceback")
    return not any(re.search(slip, line) for slip in slips for line in text.splitlines())


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_failure_of_each_verb_is_a_json_object_and_a_sentence(
    tmp_path: Path, verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    more = ARGUMENTS.get(verb, ())

    ended = cli(tmp_path / "nothing", *verb, "--json", *more)

    answer = json.loads(ended.stdout)
    assert isinstance(answer, dict)
    if ended.returncode and verb != ("doctor",):
        assert answer["error"]["exit_code"] == ended.returncode
        assert answer["error"]["message"] in ended.stderr
        assert answer["error"]["kind"].endswith("Error")
    assert is_plain_english(ended.stderr)


# To `warm`, whatever it does not know is the trainer's.
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != ("warm",)], ids=" ".join)
def test_wrong_use_of_each_verb_is_a_json_object(tmp_path: Path, verb: tuple[str, ...]) -> None:
    ended = cli(tmp_path / "nothing", *verb, "--no-such-option", "--json")

    assert ended.returncode == 2
    assert json.loads(ended.stdout)["error"]["kind"] == "UsageError"
    assert "no-such-option" in ended.stderr


def test_an_interrupted_verb_is_a_json_object(tmp_path: Path) -> None:
    command = [*INTERRUPTIBLE, *COMMAND, "status", "--wait", "--json", "--dir", str(tmp_path / "nothing")]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        wait_until(lambda: b"cygrpc" in maps.read_bytes(), what="the verb asks for a daemon")
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=DEADLINE_S)

    assert process.returncode == 130
    assert json.loads(out)["error"] == {"kind": "Interrupted", "message": "interrupted", "exit_code": 130}
    assert "Traceback" not in said


def test_json_of_a_trainers_own_is_none_of_ours(tmp_path: Path) -> None:
    ended = cli(tmp_path / "nothing", "warm", "--", "train", "--json")

    assert ended.returncode != 0
    assert ended.stdout == ""


# A name that nothing has


@pytest.fixture(scope="module")
def filled(shared_daemon: DaemonProcess) -> DaemonProcess:
    shared_daemon.handshake()
    publish(shared_daemon, "habit", b"entry", program="sweep")
    return shared_daemon


@pytest.mark.parametrize(
    "words",
    [
        ("show", "zzz"),
        ("pin", "zzz"),
        ("unpin", "zzz"),
        ("rm", "zzz", "--yes"),
        ("rm", "--program", "zzz", "--yes"),
        ("export", "FILE", "zzz"),
        ("export", "FILE", "--program", "zzz"),
        ("export", "--graphs", "FILE", "--program", "zzz"),
        ("replay", "--program", "zzz"),
        ("explain", "zzz"),
        ("explain", "--program", "zzz"),
    ],
    ids=" ".join,
)
def test_a_name_that_nothing_has_is_one_exit_code_for_every_verb(
    filled: DaemonProcess, tmp_path: Path, words: tuple[str, ...]
) -> None:
    ended = cli(filled.directory, *(str(tmp_path / "f") if word == "FILE" else word for word in words))

    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert is_plain_english(ended.stderr)
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("words", [("ls", "--program", "zzz"), ("gc",), ("stats",), ("status",)], ids=" ".join)
def test_a_list_of_nothing_is_done(filled: DaemonProcess, words: tuple[str, ...]) -> None:
    ended: Ended = cli(filled.directory, *words)

    assert ended.returncode == 0
    assert is_plain_english(ended.stdout + ended.stderr)


def test_an_error_of_the_system_that_nobody_has_put_into_words_is_said_without_its_number() -> None:
    error = FileNotFoundError(2, "No such file or directory", "/x")

    assert sentence(error) == "/x: No such file or directory"


def test_what_the_system_refuses_is_said_without_its_numbers(filled: DaemonProcess, tmp_path: Path) -> None:
    ended = cli(filled.directory, "import", str(tmp_path / "absent"))

    assert ended.returncode == 1
    assert "No such file" in ended.stderr
    assert is_plain_english(ended.stderr)
