"""The long suite's own parts: what it writes, and that each part it takes out of the product is still there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import REPOSITORY
from tests.fleet_suite import document
from tests.fleet_suite.row import BROKE_OFF, Finding, Row, unplayed
from tests.fleet_suite.scenarios import SCENARIOS
from tests.fleet_suite.weaknesses import WEAKNESSES, Edit, edited

SENTENCES = {"one": "The first.", "two": "The second."}


def row(scenario: str, name: str, *, passed: bool | None = True) -> Row:
    return Row(name=name, promise="it holds", found="it does", passed=passed, scenario=scenario)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "fleet.md"
    monkeypatch.setattr(document, "PAGE", path)
    return path


@pytest.mark.parametrize("name", WEAKNESSES)
def test_each_part_that_is_taken_out_is_there_once(name: str) -> None:
    weakness = WEAKNESSES[name]

    assert weakness.scenario in SCENARIOS
    for edit in weakness.edits:
        path = REPOSITORY / "compiler_daemon" / edit.file
        compile(edited(path.read_text(), edit), path, "exec")


def test_a_part_that_is_not_there_any_more_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 times"):
        edited("some text", Edit("file.py", "another", "none"))


def test_every_scenario_has_a_weakness() -> None:
    assert {weakness.scenario for weakness in WEAKNESSES.values()} == set(SCENARIOS)


def test_rows_that_were_not_played_again_stay(page: Path) -> None:
    document.write([row("two", "a"), row("one", "b", passed=False)], [], command="it", scenarios=SENTENCES)
    document.write([row("one", "b")], [], command="it", scenarios=SENTENCES)

    rows = json.loads(page.with_suffix(".json").read_text())["rows"]
    assert [(each["scenario"], each["name"], each["passed"]) for each in rows] == [
        ("one", "b", True),
        ("two", "a", True),
    ]
    assert "**2 of 2 rows passed**" in page.read_text()


def test_that_a_scenario_broke_off_is_forgotten_once_it_is_played(page: Path) -> None:
    document.write([row("one", BROKE_OFF, passed=False)], [], command="it", scenarios=SENTENCES)
    document.write([row("one", "a")], [], command="it", scenarios=SENTENCES)

    assert [each["name"] for each in json.loads(page.with_suffix(".json").read_text())["rows"]] == ["a"]


def test_rows_of_a_scenario_that_is_gone_go(page: Path) -> None:
    document.write([row("two", "a")], [], command="it", scenarios=SENTENCES)
    document.write([row("one", "b")], [], command="it", scenarios={"one": "The first."})

    assert [each["scenario"] for each in json.loads(page.with_suffix(".json").read_text())["rows"]] == ["one"]


def test_what_was_not_played_is_neither_passed_nor_failed(page: Path) -> None:
    not_played = unplayed("a", "it holds", "it is not installed")
    not_played.scenario = "one"

    document.write([not_played], [], command="it", scenarios=SENTENCES)

    assert "**0 of 0 rows passed**" in page.read_text().replace("\n", " ")
    assert "it is not installed" in page.read_text()


def test_a_finding_says_of_a_failure_what_does_not_hold() -> None:
    finding = Finding()
    finding.note("noted")
    finding.check(True, "right")
    assert (finding.passed, finding.text) == (True, "noted; right")

    finding.check(0, "0 of 1")
    assert (finding.passed, finding.text) == (False, "WRONG: 0 of 1")
