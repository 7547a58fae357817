"""An operator of a known library is compiled by the daemon, in the library's version, and in nobody else's.

The library is a package of that name in a virtual environment of the test's: small, and what it declares is real.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.e2e.conftest import Lab, Outcome
from tests.library_packages import write_transformers

pytestmark = pytest.mark.timeout(900)


def _environment(place: Path) -> tuple[str, Path]:
    """Make a virtual environment that has all of this one's packages, and room for one more; return its Python and
    where that goes.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True, timeout=120)
    source = Path(sysconfig.get_path("purelib"))
    packages = place / source.relative_to(sys.prefix)
    (packages / "all.pth").write_text(f"import site; site.addsitedir({str(source)!r})\n")
    return str(place / "bin" / "python"), packages


def _is_right(outcome: Outcome) -> bool:
    pairs = zip(outcome.result["compiled"], outcome.result["eager"], strict=True)
    return all(abs(a - b) < 1e-4 for ours, torchs in pairs for a, b in zip(ours, torchs, strict=True))


@pytest.mark.slow
def test_a_librarys_operator_is_compiled_by_the_daemon_and_not_served_once_the_library_is_another(
    lab: Lab, tmp_path: Path
) -> None:
    daemon = lab.daemon()
    python, packages = _environment(tmp_path / "environment")
    write_transformers(packages, factor=2.0)
    first = lab.run("library_operator.py", "31", daemon=daemon, python=python)
    second = lab.run("library_operator.py", "31", daemon=daemon, python=python)
    write_transformers(packages, factor=3.0)
    edited = lab.run("library_operator.py", "31", daemon=daemon, python=python, healthy=False)
    again = lab.run("library_operator.py", "31", daemon=daemon, python=python)
    write_transformers(packages, factor=2.0)
    back = lab.run("library_operator.py", "31", daemon=daemon, python=python)

    assert all(map(_is_right, (first, second, edited, again, back)))
    assert (first.report["compiled_by_daemon"], first.report["compiled_here"]) == (1, 0)
    assert (second.report["hits"], second.report["compiled_here"]) == (1, 0)
    assert first.result == second.result == back.result != edited.result == again.result
    assert (edited.report["hits"], edited.report["graphs"]) == (0, 1)
    assert (again.report["hits"], again.report["compiled_here"]) == (1, 0)
    assert (back.report["hits"], back.report["compiled_here"]) == (1, 0)


@pytest.mark.slow
def test_a_trace_of_a_librarys_operator_is_none_that_another_version_of_it_takes(lab: Lab, tmp_path: Path) -> None:
    daemon = lab.daemon()
    python, packages = _environment(tmp_path / "environment")
    skipping = {"TORCH_COMPILE_CLIENT_SKIP_TRACE": "1"}
    write_transformers(packages, factor=2.0)
    first = lab.run("library_operator.py", "43", daemon=daemon, python=python, **skipping)
    second = lab.run("library_operator.py", "43", daemon=daemon, python=python, **skipping)
    write_transformers(packages, factor=3.0)
    edited = lab.run("library_operator.py", "43", daemon=daemon, python=python, healthy=False, **skipping)

    assert all(map(_is_right, (first, second, edited)))
    assert first.result == second.result != edited.result
    assert (second.report["hits"], second.report["compiled_here"]) == (1, 0)
    assert set(first.report["traces"]["refused"]) == {"graph"}, first.report["traces"]


@pytest.mark.slow
def test_an_operator_that_the_program_has_changed_is_compiled_by_the_program(lab: Lab, tmp_path: Path) -> None:
    daemon = lab.daemon()
    python, packages = _environment(tmp_path / "environment")
    write_transformers(packages)
    plain = lab.run("library_operator.py", "37", daemon=daemon, python=python)
    changed = lab.run("library_operator.py", "37", "changed", daemon=daemon, python=python)
    again = lab.run("library_operator.py", "37", "changed", daemon=daemon, python=python)

    assert all(map(_is_right, (plain, changed, again)))
    assert plain.report["compiled_by_daemon"] == 1
    assert changed.report["refused"] == {"not_carried": 1}
    assert changed.report["hits"] == 0
    assert changed.report["compiled_here"] == changed.report["published"] == 1
    assert again.report["hits"] == 1
    assert "the program's own operator" in changed.err


@pytest.mark.slow
def test_a_library_that_only_the_trainer_finds_is_none_that_a_worker_imports(lab: Lab, tmp_path: Path) -> None:
    daemon = lab.daemon()
    write_transformers(tmp_path)
    outcome = lab.run("library_operator.py", "41", daemon=daemon, healthy=False, PYTHONPATH=str(tmp_path))

    assert _is_right(outcome)
    assert outcome.report["compiled_here"] == 1
    assert "cannot be imported by a worker" in outcome.err
