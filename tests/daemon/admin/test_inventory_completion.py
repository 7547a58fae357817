"""What a shell offers while somebody types; the tests call the program itself, as shells do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.daemon_process import DaemonProcess
from tests.daemon.inventory_samples import as_json, cli_process, publish

Start = Callable[..., DaemonProcess]


def bash(directory: Path, *words: str) -> list[str]:
    line = " ".join(["compiler-daemon", *words])
    ended = cli_process(
        directory, _COMPILER_DAEMON_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words))
    )
    assert ended.stderr == ""
    return ended.stdout.split()


def test_keys_and_programs_are_completed_in_every_shell(start_daemon: Start):
    daemon = start_daemon()
    publish(daemon, "alpha", b"entry a", program="sweep")
    publish(daemon, "beta", b"entry b", program="other")
    ids = [row["digest"][:12] for row in as_json(daemon.directory, "ls")["artifacts"]]
    assert sorted(bash(daemon.directory, "show", "")) == sorted(ids)
    assert bash(daemon.directory, "rm", ids[0][:6]) == [ids[0]]
    assert bash(daemon.directory, "pin", "alp") == ["alpha"]
    assert bash(daemon.directory, "ls", "--program", "sw") == ["sweep"]
    assert "show" in bash(daemon.directory, "sho")
    for shell in ("zsh", "fish"):
        ended = cli_process(
            daemon.directory,
            _COMPILER_DAEMON_COMPLETE=f"complete_{shell}",
            _TYPER_COMPLETE_ARGS="compiler-daemon show ",
            _TYPER_COMPLETE_FISH_ACTION="get-args",
        )
        assert all(one in ended.stdout for one in ids), shell
        assert ended.stderr == ""


def test_completion_is_silent_and_quick_without_a_daemon(start_daemon: Start, tmp_path: Path):
    assert bash(tmp_path / "nowhere", "show", "") == []
    daemon = start_daemon()
    publish(daemon, "alpha", b"entry a")
    daemon.process.send_signal(19)  # SIGSTOP: it accepts connections and answers nothing
    try:
        started = time.monotonic()
        assert bash(daemon.directory, "show", "") == []
        assert time.monotonic() - started < 30
    finally:
        daemon.process.send_signal(18)


@pytest.mark.parametrize(
    ("shell", "sign"), [("bash", "complete -o"), ("zsh", "#compdef compiler-daemon"), ("fish", "complete --command")]
)
def test_each_shell_is_given_its_script(tmp_path: Path, shell: str, sign: str):
    ended = cli_process(tmp_path, _COMPILER_DAEMON_COMPLETE=f"source_{shell}")
    assert ended.returncode == 0
    assert sign in ended.stdout
    assert "_COMPILER_DAEMON_COMPLETE" in ended.stdout


def test_the_options_that_install_completion_are_there(tmp_path: Path):
    said = cli_process(tmp_path, "--help").stdout
    assert "--install-completion" in said
    assert "--show-completion" in said
