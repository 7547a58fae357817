"""A trainer that has only a directory made by `compiler-daemon keys client` receives its graphs over TLS."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.conftest import Lab, clean_environment


def keys(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "compiler_daemon", "keys", *arguments],
        env=clean_environment(),
        check=True,
        capture_output=True,
        timeout=60,
    )


@pytest.mark.slow
def test_a_trainer_elsewhere_is_compiled_for_and_served_over_tls(lab: Lab) -> None:
    directory = lab.folder / "daemon"
    keys("init", "--dir", str(directory))
    daemon = lab.daemon("daemon", "--address", "127.0.0.1:0")
    for name, role in (("ada", ()), ("rita", ("--read-only",))):
        out = str(lab.folder / name)
        keys("client", name, *role, "--dir", str(directory), "--out", out, "--address", daemon.address)

    first = lab.run("perceptron.py", "5", daemon=lab.folder / "ada")
    second = lab.run("perceptron.py", "5", daemon=lab.folder / "rita")

    assert first.result == second.result
    assert first.report["compiled_by_daemon"] == first.report["graphs"] == 1
    assert second.report["hits"] == second.report["graphs"] == 1
    for outcome in (first, second):
        assert outcome.report["cpp_builds"] == outcome.report["compiled_here"] == 0
        assert outcome.report["fallbacks"] == outcome.report["refused"] == {}
    assert (directory / "token").read_text() not in daemon.log() + first.err + second.err
