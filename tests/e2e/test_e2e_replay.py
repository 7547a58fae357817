"""After `replay` trainers compile nothing, although all artifacts were removed and only the graphs were kept."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compile_wire.digest import digest_of
from compile_wire.environment import environment_id
from compile_wire.graph.decode import decode_graph
from compile_wire.graph.spec import encode_graph
from compiler_daemon.admin.bundle import BundleWriter, Request, read_graphs
from compiler_daemon.admin.connection import OperatorClient
from compiler_daemon.admin.inventory.calls import InventoryClient
from compiler_daemon.config import DaemonLocation
from tests.e2e.conftest import Daemon, Lab, clean_environment


def verb(daemon: Daemon, name: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "compiler_daemon", name, "--dir", str(daemon.directory), "--json", *arguments],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(900)  # seven processes that import torch
def test_graphs_replayed_after_all_artifacts_have_gone_serve_the_sweep_again(lab: Lab, tmp_path: Path) -> None:
    daemon = lab.daemon("replaying")
    file = tmp_path / "sweep.graphs"
    alone = lab.run("swept.py", "9", "gelu", daemon=daemon)
    lab.run("guarded.py", "12", daemon=daemon)  # this graph has a symbolic size and a guard
    verb(daemon, "export", "--graphs", str(file))
    client = InventoryClient(OperatorClient.of(DaemonLocation(directory=daemon.directory, address=None)))
    assert client.remove([row.digest for row in client.artifacts()]) == 2

    done = verb(daemon, "replay", str(file))
    trainers = [
        lab.start("swept.py", "9", "gelu", daemon=daemon, bare=True),
        lab.start("guarded.py", "12", daemon=daemon, bare=True),
    ]
    outcomes = [trainer.wait() for trainer in trainers]

    assert (done["graphs"], done["compiled"], done["serves"]) == (2, 2, {"same": 2})
    for outcome in outcomes:
        assert outcome.code == 0, outcome.err
        assert outcome.report["hits"] == outcome.report["graphs"] == 1
        assert outcome.report["compiled_here"] == outcome.report["compiled_by_daemon"] == 0
        assert outcome.report["cpp_builds"] == 0
    assert outcomes[0].result == alone.result
    assert verb(daemon, "replay", "--served")["served"] == 2
    _check_a_graph_of_another_torch(daemon, file, tmp_path / "older.graphs")


def _check_a_graph_of_another_torch(daemon: Daemon, file: Path, older: Path) -> None:
    """Replay graphs that an older torch captured with settings of its own; they must get this torch's keys."""
    graphs = list(read_graphs(file))
    with BundleWriter(older, kind="graphs", made_by="test", secret=None) as writer:
        for one in graphs:
            spec = decode_graph(one.data)
            state = {name: value for name, value in spec.state.items() if name != "sdp"} | {"gone_since": True}
            inductor = {**spec.inductor, "gone_since.setting": 3}
            data = encode_graph(dataclasses.replace(spec, torch="2.12.0+cpu", state=state, inductor=inductor))
            fields = {**one.fields, "torch": "2.12.0+cpu", "torch_key": "another"}
            writer.add_environment(fields)
            writer.add_item(digest_of(data), [data])
            writer.add_request(
                Request(environment=environment_id(fields), key="an-old-key", graph=digest_of(data), program="old.py")
            )
        writer.finish()

    done = verb(daemon, "replay", str(older))

    assert done["serves"] == {"torch": 2}
    assert {(outcome["status"], outcome["new_key"]) for outcome in done["outcomes"]} == {
        ("there", one.key) for one in graphs
    }
