"""The programs of docs/lab.md are run as they stand, and are as short as it says."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "lab.md").read_text(encoding="utf-8")
PROGRAMS = dict(zip(("data", "backbone", "metric"), re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL), strict=True))


def played(name):
    names = {"__name__": name}
    exec(compile(PROGRAMS[name], f"docs/lab.md, {name}", "exec"), names)
    return names


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_a_program_of_the_page_is_under_forty_lines(name):
    assert PROGRAMS[name].count("\n") < 40


def test_ones_own_data_are_learned_and_drawn():
    found = played("data")

    assert sum(found["losses"][-4:]) < sum(found["losses"][:4])
    assert found["images"].shape == (4, 3, 16, 16)


def test_ones_own_backbone_is_trained_by_the_labs_trainer():
    found = played("backbone")

    assert sum(found["losses"][-4:]) < sum(found["losses"][:4])
    assert found["trainer"].fingerprint()["backbone"] == "two convolutions of 16 channels"


def test_ones_own_metric_stands_in_the_panel_beside_the_others():
    found = played("metric")

    score = found["scores"]["w1_contrast"]
    assert len(found["scores"]) == len(found["METRICS"]) + 1
    assert score.z > 5
    assert "blur" in score.equivalent


def test_the_page_is_linked_from_where_people_begin():
    for name in ("README.md", "CONTRIBUTING.md"):
        assert "(docs/lab.md)" in (Path(__file__).parents[2] / name).read_text(encoding="utf-8"), name
