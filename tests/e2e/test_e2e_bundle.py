"""A bundle carries what one daemon compiled to another, which serves it without compiling anything again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compile_wire.graph.decode import decode_graph
from compiler_daemon.admin.bundle import read_graphs
from tests.e2e.conftest import Daemon, Lab, clean_environment


def verb(daemon: Daemon, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "compiler_daemon", *arguments, "--dir", str(daemon.directory)],
        capture_output=True,
        text=True,
        env=clean_environment(COLUMNS="200"),
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def verb_json(daemon: Daemon, *arguments: str) -> Any:
    return json.loads(verb(daemon, *arguments, "--json"))


@pytest.mark.slow
@pytest.mark.timeout(900)  # two daemons, two trainers, a compile, and an interpreter that imports torch
def test_a_bundle_of_one_daemon_saves_every_compile_at_another(lab: Lab, tmp_path: Path) -> None:
    one = lab.daemon("one")
    first = lab.run("perceptron.py", "21", daemon=one)
    assert first.report["compiled_by_daemon"] == 1
    file = tmp_path / "perceptron.bundle"
    assert verb_json(one, "export", str(file))["artifacts"] == 1
    graphs = tmp_path / "perceptron.graphs"
    assert verb_json(one, "export", str(graphs), "--graphs")["graphs"] == 1

    # No process has told the second daemon about its environment, so the daemon asks its own interpreter.
    two = lab.daemon("two")
    took = verb_json(two, "import", str(file), "--secret-file", str(one.directory / "secret"))
    assert took["preflight"]["fitting"] == took["imported"] == 1
    one.stop()
    second = lab.run("perceptron.py", "21", daemon=two)

    assert second.result == first.result
    assert (second.report["hits"], second.report["compiled_by_daemon"], second.report["compiled_here"]) == (1, 0, 0)

    requests = list(read_graphs(graphs))
    assert [request.key for request in requests] == [row["key"] for row in verb_json(two, "ls")["artifacts"]]
    for request in requests:
        assert decode_graph(request.data).modules[0].nodes
        assert request.fields["torch"]
    shown = verb(two, "show", requests[0].key)
    assert "torch.nn.functional.gelu" in shown or "torch._C._nn.gelu" in shown
    assert "f32[16, 8]" in shown
    assert graphs.stat().st_size * 5 < file.stat().st_size
