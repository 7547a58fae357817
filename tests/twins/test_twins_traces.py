"""The page on skipped traces says what the rows say, and fails where nothing was compared or anything differs."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import REPOSITORY
from tests.twins.judging import Result

_TRAINER = {
    "test": "tests/e2e/one",
    "recorded": 1,
    "verified": 2,
    "differing": 0,
    "missed": 0,
    "refused": {},
    "said": [],
}
_PAIR = Result(
    name="one @ top", thing="one", kind="value", position="top", times="static", differences=[], lost=[], telling=True,
    raises=False, graphs=1, refused={}, seconds=1.0, traces={"skipped": 3, "refused: dynamic": 1},
)  # fmt: skip


@pytest.mark.parametrize(
    ("trainer", "pair", "code"),
    [
        ({}, {}, 0),
        ({"differing": 1, "said": ["a trace of f would have been served"]}, {}, 1),
        ({"verified": 0}, {}, 1),
        ({}, {"differences": ["B after A: loss 1.0, plainly 2.0"]}, 1),
        ({}, {"traces": {}}, 1),
    ],
)
def test_the_page_fails_where_something_differs_or_nothing_was_compared(
    tmp_path: Path, trainer: dict[str, Any], pair: dict[str, Any], code: int
) -> None:
    (tmp_path / "docs" / "trust").mkdir(parents=True)
    rows = {
        "e2e.jsonl": _TRAINER | trainer,
        "twins.jsonl": {"torch": "2", "commit": "c", "result": dataclasses.asdict(_PAIR) | pair},
    }
    for name, row in rows.items():
        (tmp_path / name).write_text(json.dumps(row) + "\n")

    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / "traces.py"), *rows],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    page = (tmp_path / "docs" / "trust" / "traces.md").read_text()
    assert done.returncode == code, done.stderr
    assert all(said in page for said in (*trainer.get("said", []), *pair.get("differences", [])))
    assert "dynamic 1" in page or "traces" in pair
