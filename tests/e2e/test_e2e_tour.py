from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from tests.e2e.conftest import REPOSITORY, clean_environment


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_verb_answers_as_the_tour_in_the_docs_says() -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / "tour.py"), "--check"],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=880,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("hatchling", "hatch_fancy_pypi_readme")),
    reason="nothing is here that builds: `pip install hatchling hatch-fancy-pypi-readme`",
)
def test_the_first_ten_minutes_are_as_the_docs_say_from_the_wheel_to_an_explanation() -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / "first_minutes.py"), "--check"],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=580,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
