from __future__ import annotations

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
