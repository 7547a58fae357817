"""Bundles end to end, between real daemons and with the command line."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compile_wire.digest import digest_of
from compile_wire.environment import environment_id
from compile_wire.signature import verify_artifact
from compiler_daemon.admin.bundle import import_ as importing
from tests.daemon.daemon_process import ENVIRONMENT, FIELDS, DaemonProcess
from tests.daemon.inventory_samples import as_json, cli, done, graph_of, publish

Start = Callable[..., DaemonProcess]

CUDA = {**FIELDS, "toolkit": "cuda 13.0", "gpu": "NVIDIA H100 9.0 132"}
OLDER = {**FIELDS, "torch": "0.older"}


@pytest.fixture(autouse=True)
def no_torch_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide torch from this interpreter, so that only the daemon's environments decide which artifacts fit."""
    monkeypatch.setattr(importing, "own_environment", lambda *_: None)


@pytest.fixture
def pair(start_daemon: Start) -> tuple[DaemonProcess, DaemonProcess]:
    """A filled daemon, and an empty one that serves the same environment and has another secret."""
    one, two = start_daemon("one"), start_daemon("two")
    publish(one, "alpha", b"entry a", b"shared", program="sweep", graph=graph_of())
    publish(one, "beta", b"entry b", b"shared", program="sweep")
    two.handshake()
    return one, two


def secret_of(daemon: DaemonProcess) -> Path:
    return daemon.directory / "secret"


def exported(daemon: DaemonProcess, file: Path, *arguments: str) -> dict[str, Any]:
    return as_json(daemon.directory, "export", str(file), *arguments)


def keys(daemon: DaemonProcess) -> list[str]:
    return [row["key"] for row in as_json(daemon.directory, "ls")["artifacts"]]


def test_what_one_daemon_exports_another_serves(pair: tuple[DaemonProcess, DaemonProcess], tmp_path: Path):
    one, two = pair
    file = tmp_path / "sweep.bundle"
    said = exported(one, file)
    assert (said["artifacts"], said["graphs"], said["environments"], said["left_out"]) == (2, 1, 1, [])
    assert said["bytes"] == file.stat().st_size
    took = as_json(two.directory, "import", str(file), "--secret-file", str(secret_of(one)))
    assert took["preflight"] == {"entries": 2, "fitting": 2, "reasons": {}}
    assert (took["imported"], took["present"], took["passed_over"]) == (2, 0, 0)
    assert took["bytes"] == len(b"entry aentry bshared")
    (entry,) = two.lookup("alpha")
    assert {blob.data for blob in entry.blobs} == {b"entry a", b"shared"}
    # The second daemon signs anew, because its clients know only its own secret.
    (original,) = one.lookup("alpha")
    assert (entry.manifest, entry.signature != original.signature) == (original.manifest, True)
    secret = secret_of(two).read_bytes()
    verify_artifact(secret, entry.signature, key="alpha", environment=ENVIRONMENT, manifest=entry.manifest)
    assert "relu" in done(two.directory, "show", "alpha")
    assert as_json(two.directory, "ls", "--program", "sweep")["count"] == 2
    assert two.status().counters["artifacts_imported"] == 2


def test_importing_twice_changes_nothing(pair: tuple[DaemonProcess, DaemonProcess], tmp_path: Path):
    one, two = pair
    file = tmp_path / "b"
    exported(one, file)
    more = ("import", str(file), "--secret-file", str(secret_of(one)))
    as_json(two.directory, *more)
    two.lookup("alpha")
    done(two.directory, "pin", "alpha")
    before = as_json(two.directory, "ls")
    again = as_json(two.directory, *more)
    assert (again["imported"], again["present"], again["bytes"], again["new_bytes"]) == (0, 2, 0, 0)
    assert as_json(two.directory, "ls") == before


def test_a_daemon_reads_its_own_bundle_without_being_told_a_secret(start_daemon: Start, tmp_path: Path):
    daemon = start_daemon()
    publish(daemon, "alpha", b"entry a", program="sweep", graph=graph_of())
    exported(daemon, tmp_path / "b")
    done(daemon.directory, "rm", "--all", "-y")
    assert daemon.lookup("alpha") == []
    assert done(daemon.directory, "import", str(tmp_path / "b")).splitlines() == [
        "1 of 1 entry fits this machine",
        # The blob was still there, because nothing had collected it yet.
        "imported 1 artifact, 0 B",
    ]
    assert len(daemon.lookup("alpha")) == 1


def test_a_union_keeps_what_both_have(pair: tuple[DaemonProcess, DaemonProcess], tmp_path: Path):
    one, two = pair
    publish(two, "alpha", b"another entry of alpha", program="own", graph=graph_of(32))
    publish(two, "gamma", b"entry c", program="own")
    exported(one, tmp_path / "b")
    as_json(two.directory, "import", str(tmp_path / "b"), "--secret-file", str(secret_of(one)))
    assert sorted(keys(two)) == ["alpha", "alpha", "beta", "gamma"]
    # The key keeps the graph that was requested at this daemon.
    shown = as_json(two.directory, "show", "alpha")
    assert [request["graph"] for request in shown["requests"]] == [digest_of(graph_of(32))]


def test_only_what_is_named_is_exported(pair: tuple[DaemonProcess, DaemonProcess], tmp_path: Path):
    one, two = pair
    publish(one, "gamma", b"entry c", program="other")
    assert exported(one, tmp_path / "b", "alph", "gamma")["artifacts"] == 2
    assert exported(one, tmp_path / "b", "--program", "sweep")["artifacts"] == 2
    as_json(two.directory, "import", str(tmp_path / "b"), "--secret-file", str(secret_of(one)))
    assert sorted(keys(two)) == ["alpha", "beta"]
    assert cli(one.directory, "export", str(tmp_path / "c"), "alpha", "--program", "sweep").returncode == 2
    assert cli(one.directory, "export", str(tmp_path / "c"), "--program", "nobody").returncode == 1
    assert not (tmp_path / "c").exists()


def test_exporting_counts_nothing_as_used(pair: tuple[DaemonProcess, DaemonProcess], tmp_path: Path):
    one, _ = pair
    before = as_json(one.directory, "ls")
    exported(one, tmp_path / "b")
    assert as_json(one.directory, "ls") == before


def test_the_preflight_says_what_fits_and_why_the_rest_does_not(
    pair: tuple[DaemonProcess, DaemonProcess], tmp_path: Path
):
    one, two = pair
    for number in range(3):
        publish(one, f"gpu-{number}", b"entry of a GPU %d" % number, fields=CUDA)
    publish(one, "older", b"entry of an older torch", fields=OLDER)
    file = tmp_path / "b"
    exported(one, file)
    secret = ("--secret-file", str(secret_of(one)))
    said = done(two.directory, "import", str(file), "--dry-run", *secret).splitlines()
    assert said[0] == "2 of 6 entries fit this machine; 3 need CUDA; 1 was made with torch 0.older"
    assert keys(two) == []
    took = as_json(two.directory, "import", str(file), *secret)
    assert took["preflight"]["reasons"] == {"need CUDA": 3, "were made with torch 0.older": 1}
    assert (took["imported"], took["passed_over"]) == (2, 4)
    assert sorted(keys(two)) == ["alpha", "beta"]
    took = as_json(two.directory, "import", str(file), "--all", *secret)
    assert (took["imported"], took["present"], took["passed_over"]) == (4, 2, 0)
    # This daemon knows the environment from a bundle only, so the artifacts still do not fit; yet they can be exported.
    said = done(two.directory, "import", str(file), "--dry-run", *secret).splitlines()
    assert said[0].startswith("2 of 6 entries fit")
    assert exported(two, tmp_path / "c")["artifacts"] == 6
    two.handshake(CUDA)
    assert len(two.lookup("gpu-0", environment=environment_id(CUDA))) == 1
    assert "5 of 6" in done(two.directory, "import", str(file), "--dry-run", *secret)


def test_nothing_that_fits_is_a_failure_that_says_what_helps(start_daemon: Start, tmp_path: Path):
    one, two = start_daemon("one"), start_daemon("two")
    publish(one, "gpu", b"entry", fields=CUDA)
    two.handshake()
    exported(one, tmp_path / "b")
    ended = cli(two.directory, "import", str(tmp_path / "b"), "--secret-file", str(secret_of(one)))
    assert ended.returncode == 1
    assert "0 of 1 entry fits this machine; 1 needs CUDA" in ended.stdout
    assert "--all takes it all the same" in ended.stderr
    assert keys(two) == []


def test_a_bundle_of_a_stranger_is_refused_and_told_apart_by_its_fingerprint(
    pair: tuple[DaemonProcess, DaemonProcess], tmp_path: Path
):
    one, two = pair
    exported(one, tmp_path / "b")
    ended = cli(two.directory, "import", str(tmp_path / "b"), "--all")
    assert ended.returncode == 1
    assert "another secret" in ended.stderr
    assert "--secret-file" in ended.stderr
    assert keys(two) == []
    copy = tmp_path / "secret"
    shutil.copy(secret_of(one), copy)
    copy.chmod(0o644)
    ended = cli(two.directory, "import", str(tmp_path / "b"), "--secret-file", str(copy))
    assert ended.returncode == 1
    assert "chmod 600" in ended.stderr
    copy.write_bytes(b"short")
    copy.chmod(0o600)
    assert "5 bytes, not 32" in cli(two.directory, "import", str(tmp_path / "b"), "--secret-file", str(copy)).stderr
    assert cli(two.directory, "import", str(tmp_path / "b"), "--secret-file", str(tmp_path / "no")).returncode == 2
    assert keys(two) == []


def test_no_changed_byte_gets_anything_stored(pair: tuple[DaemonProcess, DaemonProcess], tmp_path: Path):
    one, two = pair
    file = tmp_path / "b"
    exported(one, file)
    sound = file.read_bytes()
    for place in (0, 9, 60, len(sound) // 2, len(sound) - 60, len(sound) - 20, len(sound) - 1):
        data = bytearray(sound)
        data[place] ^= 4
        file.write_bytes(data)
        ended = cli(two.directory, "import", str(file), "--all", "--secret-file", str(secret_of(one)))
        assert ended.returncode == 1, place
        assert "Traceback" not in ended.stderr
    for cut in (0, 7, 30, len(sound) - 1):
        file.write_bytes(sound[:cut])
        assert cli(two.directory, "import", str(file), "--secret-file", str(secret_of(one))).returncode == 1
    assert keys(two) == []
    assert two.status().blobs == 0


def test_the_files_of_the_two_kinds_are_told_apart(pair: tuple[DaemonProcess, DaemonProcess], tmp_path: Path):
    one, _ = pair
    exported(one, tmp_path / "g", "--graphs")
    ended = cli(one.directory, "import", str(tmp_path / "g"))
    assert ended.returncode == 1
    assert "is a file of graphs, not of artifacts: `compiler-daemon replay`" in ended.stderr
    assert "no file of `compiler-daemon export`" in cli(one.directory, "import", str(secret_of(one))).stderr


def test_an_import_never_evicts(start_daemon: Start, tmp_path: Path):
    one = start_daemon("one")
    two = start_daemon("two", daemon={"store_max_bytes": 30_000})
    publish(one, "large", b"x" * 20_000)
    publish(two, "mine", b"y" * 20_000)
    exported(one, tmp_path / "b")
    ended = cli(two.directory, "import", str(tmp_path / "b"), "--secret-file", str(secret_of(one)))
    assert ended.returncode == 1
    assert "nothing was imported" in ended.stderr
    assert keys(two) == ["mine"]
    # The daemon refuses it, too, if the command line has not checked.
    import grpc

    from compile_wire.v1 import inventory_pb2 as pb
    from compile_wire.v1 import inventory_pb2_grpc as pb_grpc

    stub = pb_grpc.InventoryServiceStub(two.channel)
    first = pb.ImportBlobRequest(sha256=digest_of(b"x" * 20_000), size=20_000, data=b"x" * 20_000)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ImportBlob(iter([first]), **two.options())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert keys(two) == ["mine"]


def test_what_is_damaged_is_left_out_and_said(pair: tuple[DaemonProcess, DaemonProcess], tmp_path: Path):
    one, two = pair
    digest = digest_of(b"entry a")
    path = one.directory / "store" / "blobs" / digest[:2] / digest
    path.write_bytes(b"entry x")
    os.utime(path, ns=(time.time_ns(), time.time_ns()))
    file = tmp_path / "b"
    ended = cli(one.directory, "export", str(file), "--json")
    assert ended.returncode == 1
    assert "left out: artifact" in ended.stderr
    assert json.loads(ended.stdout)["artifacts"] == 1
    as_json(two.directory, "import", str(file), "--secret-file", str(secret_of(one)))
    assert keys(two) == ["beta"]


def test_a_failed_export_leaves_the_earlier_file_alone(pair: tuple[DaemonProcess, DaemonProcess], tmp_path: Path):
    one, _ = pair
    file = tmp_path / "b"
    exported(one, file)
    before = file.read_bytes()
    ended = cli(one.directory, "export", str(tmp_path / "no" / "folder"))
    assert ended.returncode == 1
    assert "cannot be written" in ended.stderr
    for name in ("alpha", "beta"):
        (row,) = as_json(one.directory, "show", name)["artifacts"]
        entry = row["blobs"][0]["sha256"]
        (one.directory / "store" / "blobs" / entry[:2] / entry).write_bytes(b"entry !")
    assert cli(one.directory, "export", str(file)).returncode == 1
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.is_file() and path.name.startswith(".b")] == []


def test_a_draining_daemon_takes_no_import(start_daemon: Start, tmp_path: Path):
    daemon = start_daemon()
    publish(daemon, "alpha", b"entry a")
    exported(daemon, tmp_path / "b")
    stream = daemon.compile("slow", b"ok 8")
    next(stream)
    daemon.process.terminate()
    while not daemon.status().draining:
        time.sleep(0.05)
    ended = cli(daemon.directory, "import", str(tmp_path / "b"))
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
