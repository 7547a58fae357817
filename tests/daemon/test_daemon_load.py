"""Short runs of `make soak`, `make load` and `make fuzz`; they assert everything except times."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benches.harness.synthetic import ENVIRONMENT, Catalogue
from compile_client.testing import Artifact
from compile_wire.environment import environment_id
from compile_wire.manifest import decode_manifest, manifest_digest

REPOSITORY = Path(__file__).parents[2]
LIMIT_S = 280.0


def run(*command: str, tmp_path: Path) -> dict[str, Any]:
    """Run a bench or tool, require success, and return the JSON document at the end of its output."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path is short enough for a socket's name."""
    return tmp_path_factory.mktemp("s")


@pytest.mark.slow
def test_clients_of_a_daemon_that_is_killed_again_and_again_get_no_wrong_byte_and_no_error(short: Path) -> None:
    document = run(
        *("-m", "benches.soak", "--minutes", "0.33", "--clients", "4", "--trainers", "0", "--kill-every", "8"),
        *("--store-mib", "12", "--keys", "150", "--rounds", "4"),
        tmp_path=short,
    )

    assert document["complaints"] == []
    assert document["kills"] == 2
    assert document["counts"]["hits"] > 0
    assert document["audit"]["artifacts_read"] > 0
    assert document["most_on_disk_mib"] <= 12


def test_many_connections_are_answered_without_an_error_and_every_answer_verifies(short: Path) -> None:
    document = run(
        *("-m", "benches.load", "--connections", "8", "--processes", "2", "--calls", "20", "--rounds", "1"),
        *("--keys", "8", "--seconds", "120"),
        tmp_path=short,
    )

    assert document["errors"] == []
    assert document["targets"]["daemon"]["calls"] == 8 * 20
    assert document["hits_counted"] == 8 + 8 * 20 + 8


def test_every_rpc_answers_garbage_politely_and_goes_on(short: Path) -> None:
    document = run("tools/fuzz_rpc.py", "--cases", "50", tmp_path=short)

    assert document["complaints"] == []
    assert {"Health.Watch", "CompileService.CompileGraph", "AdminService.Shutdown"} <= document["methods"].keys()
    assert {method["over_the_socket"] for method in document["methods"].values()} == {50}


def test_handlers_answer_garbage_in_the_same_way_without_the_transport(short: Path) -> None:
    methods = ["CompileService.LookupArtifact", "CompileService.WriteBlob", "Health.Watch"]

    document = run("tools/fuzz_rpc.py", "--cases", "150", "--wire", "50", *methods, tmp_path=short)

    assert document["complaints"] == []
    assert {method["inside"] for method in document["methods"].values()} == {100}


def test_a_single_wrong_byte_in_a_served_artifact_is_noticed() -> None:
    catalogue = Catalogue(name="t", keys=20)
    data, blobs = catalogue.compiled(5).packed(environment_id(ENVIRONMENT))
    artifact = Artifact(decode_manifest(data), manifest_digest(data), blobs)
    digest = artifact.manifest.blobs[2].sha256
    flipped = {**blobs, digest: bytes([blobs[digest][0] ^ 1]) + blobs[digest][1:]}

    assert catalogue.complaint(5, artifact) == ""
    assert "wrong bytes" in catalogue.complaint(5, dataclasses.replace(artifact, blobs=flipped))
    assert "instead of" in catalogue.complaint(6, artifact)
