"""Every verb, however deep, says what it takes with `-h` as with `--help`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from compiler_daemon.cli import cli
from compiler_daemon.cli.day import DAY


def verbs(command: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inner = getattr(command, "commands", {})
    return [path, *(found for name, below in inner.items() for found in verbs(below, (*path, name)))]


EVERY = verbs(typer.main.get_command(cli))


def test_the_verbs_are_found() -> None:
    assert {("serve",), ("keys", "signer", "init"), ("tier", "ls")} <= set(EVERY)


@pytest.mark.parametrize("verb", EVERY, ids=" ".join)
def test_a_verb_explains_itself_with_either_spelling(verb: tuple[str, ...]) -> None:
    short, long = (CliRunner().invoke(cli, [*verb, option]) for option in ("-h", "--help"))

    assert (short.exit_code, long.exit_code) == (0, 0)
    assert "Usage:" in short.output
    assert short.output == long.output


def test_the_verbs_are_listed_in_the_order_of_a_day_each_in_one_line_of_eighty_columns() -> None:
    listed = CliRunner().invoke(cli, ["--help"], env={"COLUMNS": "80"}).output.partition("Commands:\n")[2].splitlines()

    assert [line.split()[0] for line in listed] == list(DAY)
    assert [line.split(maxsplit=1)[1] for line in listed] == list(DAY.values())
    assert all(len(line) <= 80 for line in listed)


@pytest.mark.parametrize("verb", EVERY, ids=" ".join)
def test_help_shows_what_holds_without_an_option_and_fits_into_eighty_columns(verb: tuple[str, ...]) -> None:
    output = CliRunner().invoke(cli, [*verb, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).output

    assert max(map(len, output.splitlines())) <= 80
    assert re.findall(r"<(?:str|path|int|float|list\[)[^>]*>|Usage:.*[{\[]\[|Usage:.*{|\.\.\.\]\.\.\.", output) == []
    if "--workers" in output:
        assert "[half of the cores]" in output


def test_every_verb_that_the_table_of_habits_names_is_one_with_the_options_that_it_names() -> None:
    table = (Path(__file__).parents[3] / "docs" / "habits.md").read_text().splitlines()
    ours = [line.split(" | ")[2] for line in table if line.startswith("| ") and line.count(" | ") == 2]
    spans = [span.removeprefix("compiler-daemon ") for cell in ours for span in re.findall("`([^`]+)`", cell)]
    named = [span.split() for span in spans if span.split()[0] in DAY]

    assert len(named) > 30
    for words in named:
        output = CliRunner().invoke(cli, [words[0], "--help"]).output
        assert [word for word in words if word.startswith("-") and word not in ("--", "-") and word not in output] == []
