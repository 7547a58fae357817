"""After `compiler-daemon warm`, a sweep compiles nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import TRAINERS, Daemon, Lab, clean_environment

WIDTHS, ACTIVATIONS = (5, 6, 7), ("gelu", "silu")


def warm(lab: Lab, daemon: Daemon, *arguments: str, code: int = 0) -> tuple[dict[str, Any], str]:
    """Run `warm` with `--json`; return its document and what it wrote to standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "compiler_daemon", "warm", "--json", "--dir", str(daemon.directory), *arguments],
        capture_output=True,
        text=True,
        env=clean_environment(TMPDIR=str(lab.temporary)),
        timeout=800,
        check=False,
    )
    assert done.returncode == code, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)  # twelve trainers, and six compiles
def test_after_warm_six_cells_in_fresh_processes_with_empty_caches_compile_nothing(
    one_lab: Lab, daemon: Daemon, tmp_path: Path
) -> None:
    manifest = tmp_path / "sweep.toml"
    command = [sys.executable, str(TRAINERS / "swept.py"), "{width}", "{activation}"]
    manifest.write_text(
        f"""
        [sweep]
        command = {json.dumps(command)}
        [matrix]
        width = {list(WIDTHS)}
        activation = {json.dumps(ACTIVATIONS)}
        """
    )

    document, _ = warm(one_lab, daemon, "--manifest", str(manifest))
    compiled = daemon.counters()["compiles_started"]
    for width in WIDTHS:
        pair = [
            one_lab.start("swept.py", str(width), activation, daemon=daemon, bare=True) for activation in ACTIVATIONS
        ]
        for outcome in [trainer.wait() for trainer in pair]:
            assert outcome.code == 0, outcome.err
            assert outcome.report["hits"] == outcome.report["graphs"] == 1
            assert outcome.report["compiled_here"] == outcome.report["compiled_by_daemon"] == 0
            assert outcome.report["cpp_builds"] == 0

    assert document["failed"] == 0
    assert len(document["cells"]) == document["graphs"] == 6
    # The daemon is shared, so another test may have had one of the graphs compiled.
    assert document["compiled"] + document["already_there"] == 6
    assert daemon.counters()["compiles_started"] == compiled
    again, talk = warm(one_lab, daemon, "--resume", "--manifest", str(manifest))
    assert {cell["status"] for cell in again["cells"]} == {"skipped"}
    assert talk.count("done before") == 6


def test_a_cell_that_fails_is_listed_and_the_others_go_on(one_lab: Lab, daemon: Daemon) -> None:
    command = [sys.executable, str(TRAINERS / "swept.py"), "{width}", "gelu"]

    document, talk = warm(one_lab, daemon, "--matrix", "width=none,5", "--jobs", "1", "--", *command, code=1)

    failed, done = document["cells"]
    assert (failed["status"], done["status"]) == ("failed", "done")
    assert "invalid literal for int()" in failed["failure"]
    assert "invalid literal for int()" in Path(failed["log"]).read_text()
    assert "failed: width=none" in talk
    assert done["graphs"] == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_graph_that_no_worker_can_compile_is_compiled_by_a_trainer_and_published(lab: Lab) -> None:
    daemon = lab.daemon("short", "--job-seconds", "1")

    document, talk = warm(lab, daemon, "--", sys.executable, str(TRAINERS / "swept.py"), "8", "gelu")
    after = lab.run("swept.py", "8", "gelu", daemon=daemon)

    (cell,) = document["cells"]
    assert cell["published"] == 1
    assert "limit: " in cell["refused"][0]["why"]
    assert "refused: " in talk
    assert after.report["hits"] == after.report["graphs"] == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cell_that_passes_dynamos_limit_is_warned_of_with_what_to_do(
    one_lab: Lab, daemon: Daemon, tmp_path: Path
) -> None:
    trainer = tmp_path / "many_sizes.py"
    trainer.write_text(
        """
import torch
torch._dynamo.config.recompile_limit = 2
halved = torch.compile(lambda x: x.sin() / 2, dynamic=False)
for size in (21, 22, 23):
    halved(torch.ones(size))
"""
    )

    document, talk = warm(one_lab, daemon, "--", sys.executable, str(trainer))

    (warning,) = document["warnings"]
    assert "dynamo passed its recompile_limit of 2" in warning
    assert "torch._dynamo.config.recompile_limit = 4" in warning
    assert f"warning: {warning}" in talk
    assert document["graphs"] == 2


ENDLESS = """
import torch
step = torch.compile(lambda x: x * 3 + 1)
other = torch.compile(lambda x: x * 5 - 2)
with open("seen", "w") as seen:
    for number in range(10**6):
        step(torch.ones(8)) if number < 6 else other(torch.ones(9))
        seen.write("x")
        seen.flush()
print("never here")
"""


def test_an_endless_trainer_ends_some_steps_after_its_last_new_graph(
    one_lab: Lab, daemon: Daemon, tmp_path: Path
) -> None:
    manifest = tmp_path / "sweep.toml"
    (tmp_path / "endless.py").write_text(ENDLESS)
    command = json.dumps([sys.executable, "endless.py"])
    manifest.write_text(f'[sweep]\ncommand = {command}\ndirectory = "."\n')

    document, talk = warm(one_lab, daemon, "--steps", "7", "--no-aside", "--manifest", str(manifest))

    assert (document["failed"], document["graphs"]) == (0, 2)
    assert (tmp_path / "seen").read_text() == "x" * (6 + 7)
    log = Path(document["cells"][0]["log"]).read_text()
    assert "no new graph in 7 steps: this compile-only program ends" in log
    assert "never here" not in log
    assert "each ends 7 steps after its last new graph" in talk
