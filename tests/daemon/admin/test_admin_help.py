"""Every verb, however deep, says what it takes with `-h` as with `--help`."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from compiler_daemon.cli import cli


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
