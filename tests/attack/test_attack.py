"""A short run of the attacks, and proof that the harness finds an attack where one gets through."""

from __future__ import annotations

import builtins
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.attack.canary import CODE, MARK, Canary

REPOSITORY = Path(__file__).parents[2]


def attack(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.attack", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def test_no_attack_of_a_slice_gets_through() -> None:
    code, summary = attack("--cases", "1500", "--seed", "7", "--compiles", "0", "--trace", "50")

    assert summary["first_successes"] == []
    assert code == 0
    assert summary["cases"] == 1500
    assert summary["reached"]["graph: run"] > 10, "attacks that are all refused at the door show little"


def test_with_the_operators_as_they_were_attacks_do_get_through() -> None:
    code, summary = attack("--cases", "400", "--seed", "7", "--compiles", "0", "--old-operators")

    assert code == 1
    assert summary["kinds"]["text"] > 0


HEARD = """
import builtins, os, socket, subprocess, sys
from pathlib import Path
from tests.attack.canary import CODE, MARK, Canary

canary = Canary(Path(sys.argv[1]))
canary.install()
found = []
for act in (
    lambda: canary.file.read_text(),
    lambda: subprocess.run(["true"]),
    lambda: os.system("true"),
    lambda: socket.create_connection(("127.0.0.1", canary.port)).close(),
    lambda: compile("x = " + CODE, "x", "exec"),
    lambda: exec(CODE),
    lambda: (canary.folder / MARK).touch(),
    lambda: None,
):
    canary.listening = True
    act()
    canary.listening = False
    found.append(canary.caught())
    (canary.folder / MARK).unlink(missing_ok=True)
print(found)
"""


def test_the_canary_hears_every_kind_of_success_and_nothing_else(tmp_path: Path) -> None:
    """The test uses a process of its own, because Python never removes an audit hook."""
    done = subprocess.run(
        [sys.executable, "-c", HEARD, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )

    *heard, nothing = eval(done.stdout)
    kinds = ["file", "process", "process", "network", "source", "code", "file"]
    assert [any(each.startswith(kind) for each in found) for kind, found in zip(kinds, heard, strict=True)] == [
        True
    ] * 7
    assert nothing == []


def test_a_port_that_is_reached_is_heard_without_the_hook(tmp_path: Path) -> None:
    canary = Canary(tmp_path)
    try:
        assert canary.caught() == []
        socket.create_connection(("127.0.0.1", canary.port)).close()
        setattr(builtins, MARK, 1)
        (tmp_path / MARK).touch()

        assert len(canary.caught()) == 3
    finally:
        canary.close()
    assert not hasattr(builtins, MARK)
    assert MARK in CODE


@pytest.mark.parametrize("number", range(3))
def test_the_same_seed_and_number_make_the_same_attack(number: int) -> None:
    import torch  # noqa: F401 - the registry is asked

    from tests.attack.cases import Generator

    base = {"modules": [[[], ["d"], [], True, [["output", "o", "o", ["t"]]], [], []]], "state": {"grad": True}}
    first, second = (Generator(3, [base], ["a", "b"]).case(number) for _ in range(2))

    assert first == second
    assert base["state"] == {"grad": True}
