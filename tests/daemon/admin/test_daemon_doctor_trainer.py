"""What `doctor` says of variables, and how it judges what a trainer left behind. The trainer itself: tests/e2e."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from compiler_daemon.admin.doctor.trainer_check import _judged
from compiler_daemon.admin.doctor.variables import VARIABLES, check_variables
from tests.daemon.daemon_process import DaemonProcess
from tests.daemon.inventory_samples import cli_process

SETTINGS = Path(__file__).parents[3] / "docs" / "settings.md"


def problems(environ: Mapping[str, str]) -> str:
    return "\n".join(finding.text for finding in check_variables(environ) if finding.level == "problem")


def test_every_variable_of_the_documents_is_known_and_no_other() -> None:
    named: set[str] = set()
    for line in SETTINGS.read_text().split("## Counters")[0].splitlines():
        first, *more = re.findall(r"`([A-Z_]+)`", line.split(" | ")[0]) or [""]
        stem = first.rpartition("_")[0]  # `A_CA`, `_KEY` stands for `A_CA`, `A_KEY`
        named |= {first, *(stem + name for name in more)} - {""}

    assert {name for name in named if not name.startswith("OTEL")} == VARIABLES


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"TORCH_COMPILE_CLIENT_TIMEOUT": "soon"}, "TIMEOUT is a positive number of seconds"),
        ({"TORCH_COMPILE_CLIENT_VERIFY": "2"}, "VERIFY is a share from 0 to 1"),
        ({"TORCH_COMPILE_CLIENT_LOG": "loud"}, "LOG is one of"),
        ({"TORCH_COMPILE_CLIENT_READONLY": "maybe"}, "READONLY is 1 or 0"),
        ({"TORCH_COMPILE_CLIENT_TIMOUT": "5"}, "is TORCH_COMPILE_CLIENT_TIMEOUT meant?"),
        ({"COMPILER_DAEMON_QUIET": "1"}, "COMPILER_DAEMON_QUIET means nothing"),
        ({"COMPILER_DAEMON_SANDBOX": "on"}, "it is auto, off or required"),
        ({"COMPILER_DAEMON_TIER": "ftp://x"}, "`serve` would not start"),
        ({"COMPILER_DAEMON_FARM": "nonsense"}, "`serve` would not start"),
    ],
)
def test_a_value_or_a_name_that_is_none_is_a_problem(environ: dict[str, str], text: str) -> None:
    assert text in problems({"HOME": "/root"} | environ)


def test_variables_that_can_be_read_are_one_line() -> None:
    environ = {
        "HOME": "/root",
        "TORCH_COMPILE_CLIENT": "1",
        "TORCH_COMPILE_CLIENT_TIMEOUT": "30",
        "COMPILER_DAEMON_TIER": "file:///srv/tier",
        "UNRELATED": "x",
    }

    assert [finding.level for finding in check_variables(environ)] == ["ok"]


def doctor(daemon: DaemonProcess, **environ: str) -> tuple[int, str]:
    """Ask as an operator does; return the exit code and the problems that are said, a line each."""
    ended = cli_process(daemon.directory, "doctor", "--no-trainer", TORCH_COMPILE_CLIENT="1", **environ)
    return ended.returncode, "\n".join(line for line in ended.stdout.splitlines() if line.startswith("problem"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TORCH_COMPILE_CLIENT_TIMEOUT", "soon"),
        ("TORCH_COMPILE_CLIENT_TIMOUT", "5"),
        ("COMPILER_DAEMON_SANDBOX", "on"),
        ("COMPILER_DAEMON_FARM", "nonsense"),
    ],
)
def test_with_a_daemon_that_is_well_a_variable_is_the_one_problem(daemon: DaemonProcess, name: str, value: str) -> None:
    assert doctor(daemon) == (0, "")

    code, problems = doctor(daemon, **{name: value})

    assert code == 1
    assert problems.startswith("problem variables: ")
    assert len(problems.splitlines()) == 1


def test_a_token_that_is_gone_is_a_problem_although_a_daemon_serves(start_daemon: Callable[..., DaemonProcess]) -> None:
    daemon = start_daemon()
    (daemon.directory / "token").unlink()

    code, problems = doctor(daemon)

    assert code == 1
    assert f"problem token: {daemon.directory}/token does not exist: the next start makes it" in problems
    assert f"problem answers: process {daemon.process.pid} serves" in problems
    assert "`compiler-daemon stop`, then start it again" in problems


SAID = "compile daemon: the artifact's signature is not the daemon's; torch compiles.\nother\n"


@pytest.mark.parametrize(
    ("code", "said", "counters", "level", "text"),
    [
        (0, "", {"graphs": 1, "hits": 1}, "ok", "came from the daemon's store"),
        (0, "", {"graphs": 1, "compiled_by_daemon": 1}, "ok", "compiled by the daemon"),
        (0, SAID, {"graphs": 1, "compiled_here": 1}, "problem", "itself: the artifact's signature is not the daemon's"),
        (0, "", {"graphs": 1, "fallbacks": {"absent": 1}}, "problem", "itself: absent"),
        (0, "", {"graphs": 1}, "problem", "nothing says why"),
        (0, "", {}, "problem", "torch did not start the client"),
        (1, "Traceback\nImportError: no torch\n", {}, "problem", "failed: ImportError: no torch"),
        (-9, "", {}, "problem", "exit code -9"),
    ],
)
def test_what_a_trainer_left_behind_is_judged(
    code: int, said: str, counters: dict[str, Any], level: str, text: str
) -> None:
    finding = _judged(code, said, counters, 3.0)

    assert finding.level == level
    assert text in finding.text
