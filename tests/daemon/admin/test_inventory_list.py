from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compile_wire.digest import digest_of
from compile_wire.kernel.environment import KIND, KIND_FIELD, TUNING_PREFIX
from compile_wire.manifest import manifest_digest
from tests.daemon.daemon_process import ENVIRONMENT, FIELDS, DaemonProcess, manifest_of
from tests.daemon.inventory_samples import as_json, cli, cli_process, done, graph_of, publish

Start = Callable[..., DaemonProcess]


@pytest.fixture
def filled(start_daemon: Start) -> DaemonProcess:
    """Three artifacts of two programs: the second has two hits, the third is the largest."""
    daemon = start_daemon()
    publish(daemon, "alpha", b"entry a", b"object", program="sweep", graph=graph_of())
    publish(daemon, "beta", b"entry b", program="sweep")
    publish(daemon, "gamma", b"entry c", b"x" * 5000, program="other")
    for _ in range(2):
        daemon.lookup("beta")
    return daemon


def drain(answers: Any) -> None:
    """Read a stream to its end after its first answer."""
    if hasattr(answers, "__next__"):
        list(answers)


def keys(directory: Path, *arguments: str) -> list[str]:
    return [row["key"] for row in as_json(directory, "ls", *arguments)["artifacts"]]


def test_ls_lists_the_newest_first_with_sums(filled: DaemonProcess):
    listed = as_json(filled.directory, "ls")
    assert [row["key"] for row in listed["artifacts"]] == ["gamma", "beta", "alpha"]
    assert listed["count"] == 3
    assert listed["bytes"] == sum(row["bytes"] for row in listed["artifacts"]) == 5007 + 7 + 13
    assert (listed["seconds"], listed["seconds_saved"]) == (4.5, 3.0)
    assert [row["hits"] for row in listed["artifacts"]] == [0, 2, 0]
    assert listed["artifacts"][0]["environment"] == ENVIRONMENT


def test_ls_filters_and_sorts(filled: DaemonProcess):
    assert keys(filled.directory, "--program", "sweep") == ["beta", "alpha"]
    assert keys(filled.directory, "--sort", "size") == ["gamma", "alpha", "beta"]
    assert keys(filled.directory, "--sort", "hits")[0] == "beta"
    assert keys(filled.directory, "--sort", "used")[0] == "beta"
    assert keys(filled.directory, "--origin", "worker") == []
    assert keys(filled.directory, "--environment", ENVIRONMENT[:8]) == ["gamma", "beta", "alpha"]
    assert keys(filled.directory, "--environment", "0" * 64) == []
    assert cli(filled.directory, "ls", "--sort", "luck").returncode == 2


def test_ls_prints_a_table_that_a_person_can_read(filled: DaemonProcess):
    lines = done(filled.directory, "ls").splitlines()
    assert lines[0].split() == ["id", "kind", "key", "program", "origin", "size", "cost", "hits", "used", "made", "pin"]
    assert re.match(r"[0-9a-f]{12}\s+graph\s+gamma\s+other\s+trainer\s+5\.0 kB\s+1\.50 s\s+0\s+never", lines[1])
    assert lines[-1] == "3 artifacts of 3 graphs, 5.0 kB; 4.50 s to compile, 3.00 s saved"


def test_ls_fits_into_eighty_columns(filled: DaemonProcess):
    ended = cli(filled.directory, "ls", columns=80)
    lines = ended.stdout.splitlines()
    assert lines[0].split() == ["id", "kind", "program", "size", "cost", "hits", "used", "pin"]
    assert max(map(len, lines)) <= 80
    assert len(lines) == 1 + 3 + 1  # no line of the table goes on in the next
    assert re.match(r"[0-9a-f]{12}\s+graph\s+other\s+5\.0 kB\s+1\.50 s\s+0\s+never", lines[1])


def test_ls_says_what_is_a_graph_a_kernel_and_a_tuning(filled: DaemonProcess):
    fields = {KIND_FIELD: KIND, "triton": "0.fake"}
    publish(filled, "delta", b"binary", fields=fields)
    publish(filled, f"{TUNING_PREFIX}epsilon", b"measured", fields=fields)
    publish(filled, f"{TUNING_PREFIX}zeta", b"an entry")  # a graph's key may begin like this, too
    kinds = {row["key"]: row["kind"] for row in as_json(filled.directory, "ls")["artifacts"]}
    assert kinds == {
        "alpha": "graph", "beta": "graph", "gamma": "graph", "timings-zeta": "graph", "delta": "kernel",
        "timings-epsilon": "tuning",
    }  # fmt: skip
    assert keys(filled.directory, "--kind", "kernel") == ["delta"]
    assert keys(filled.directory, "--kind", "tuning") == ["timings-epsilon"]
    assert len(keys(filled.directory, "--kind", "graph")) == 4
    assert cli(filled.directory, "ls", "--kind", "luck").returncode == 2
    assert done(filled.directory, "ls").splitlines()[-1].startswith("6 artifacts of 4 graphs, 1 kernel, 1 tuning, ")


def test_a_program_s_name_cannot_steer_the_terminal(start_daemon: Start):
    daemon = start_daemon()
    publish(daemon, "key", b"entry", program="\x1b[31m[bold]evil[/bold]\x07")
    said = done(daemon.directory, "ls")
    assert "\x1b" not in said
    assert "\x07" not in said
    assert "[bold]evil[/bold]" in said


def test_the_verbs_work_as_a_program_of_their_own(filled: DaemonProcess):
    ended = cli_process(filled.directory, "ls", "--json")
    assert ended.returncode == 0
    assert ended.stderr == ""
    assert json.loads(ended.stdout)["count"] == 3
    assert cli_process(filled.directory, "show", "nothing").returncode == 1
    assert cli_process(filled.directory, "rm", "alpha").returncode == 2
    assert cli_process(filled.directory, "show").returncode == 2


def test_no_verb_works_without_a_daemon_and_each_says_what_to_do(tmp_path: Path):
    for arguments in (["ls"], ["show", "a"], ["pin", "a"], ["rm", "a", "-y"], ["gc"], ["export", str(tmp_path / "f")]):
        ended = cli(tmp_path / "nowhere", *arguments)
        assert ended.returncode == 1, arguments
        assert "start one with `compiler-daemon serve`" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_show_tells_everything_of_one_key_without_counting_a_hit(filled: DaemonProcess):
    shown = as_json(filled.directory, "show", "alpha")
    (row,) = shown["artifacts"]
    assert (row["key"], row["bytes"], row["program"], row["hits"]) == ("alpha", 13, "sweep", 0)
    assert [(blob["role"], blob["size"], blob["sha256"]) for blob in row["blobs"]] == [
        ("entry", 7, digest_of(b"entry a")),
        ("object", 6, digest_of(b"object")),
    ]
    assert shown["environments"] == {ENVIRONMENT: FIELDS}
    (graph,) = shown["graphs"].values()
    assert "y = torch.matmul(l_x_, l_w_)" in graph["code"]
    assert graph["settings"] == {"inductor.max_autotune": "True"}
    assert as_json(filled.directory, "ls", "--sort", "hits")["artifacts"][0]["hits"] == 2
    assert filled.status().counters["lookups"] == 2


def test_show_prints_code_with_shapes_inputs_and_cost(filled: DaemonProcess):
    said = done(filled.directory, "show", "alpha")
    assert "l_x_: f32[s77, 4],  # x" in said
    assert "    z = y.relu()\n    return (z,)\n" in said
    assert re.search(r"cost +1\.50 s by a trainer", said)
    assert re.search(r"l_w_ +f32\[4, 2\] +\(4, 1\) +cpu +parameter, gradient +w", said)
    assert re.search(r"s77 +8 +2 to oo +x", said)
    assert re.search(r"torch +0\.fake", said)


def test_a_beginning_is_enough_where_it_means_one_thing(filled: DaemonProcess):
    listed = as_json(filled.directory, "ls")["artifacts"]
    for row in listed:
        assert as_json(filled.directory, "show", row["id"])["artifacts"][0]["key"] == row["key"]
        assert as_json(filled.directory, "show", row["key"][:3])["artifacts"][0]["digest"] == row["digest"]


def test_an_ambiguous_beginning_names_the_candidates(start_daemon: Start):
    daemon = start_daemon()
    for key in ("key-red", "key-green", "key-red-dark"):
        publish(daemon, key, b"entry " + key.encode())
    ended = cli(daemon.directory, "show", "key-")
    assert ended.returncode == 1
    assert "'key-' can mean key key-green, key key-red, key key-red-dark: give more of it" in ended.stderr
    assert as_json(daemon.directory, "show", "key-red")["artifacts"][0]["key"] == "key-red"
    ended = cli(daemon.directory, "show", "blue")
    assert ended.returncode == 1
    assert "nothing is called 'blue'" in ended.stderr


def test_a_key_of_several_artifacts_shows_all_of_them(start_daemon: Start):
    daemon = start_daemon()
    publish(daemon, "twice", b"one guard")
    publish(daemon, "twice", b"another guard")
    assert len(as_json(daemon.directory, "show", "twice")["artifacts"]) == 2


def test_a_graph_outlives_its_artifact_and_is_still_shown(filled: DaemonProcess):
    done(filled.directory, "rm", "alpha", "--yes")
    shown = as_json(filled.directory, "show", "alpha")
    assert shown["artifacts"] == []
    assert "relu" in done(filled.directory, "show", "alpha")
    assert as_json(filled.directory, "show", digest_of(graph_of())[:10])["requests"][0]["key"] == "alpha"


def test_a_graph_that_is_none_is_said_and_the_rest_is_shown(start_daemon: Start):
    daemon = start_daemon()
    publish(daemon, "odd", b"entry", graph=b"no graph at all")
    ended = cli(daemon.directory, "show", "odd", "--json")
    assert ended.returncode == 0
    assert "cannot be shown" in ended.stderr
    assert json.loads(ended.stdout)["artifacts"][0]["key"] == "odd"


def test_rm_removes_what_is_named_and_nothing_else(filled: DaemonProcess):
    assert as_json(filled.directory, "rm", "alpha", "bet", "--yes")["removed"] == 2
    assert keys(filled.directory) == ["gamma"]
    assert filled.lookup("alpha") == []
    assert filled.status().counters["artifacts_removed"] == 2


def test_rm_changes_nothing_where_one_name_means_nothing(filled: DaemonProcess):
    assert cli(filled.directory, "rm", "alpha", "nothing", "--yes").returncode == 1
    assert len(keys(filled.directory)) == 3


def test_rm_of_a_program_or_of_all(filled: DaemonProcess):
    assert as_json(filled.directory, "rm", "--program", "sweep", "-y")["removed"] == 2
    assert as_json(filled.directory, "rm", "--all", "-y")["removed"] == 1
    assert keys(filled.directory) == []


def test_rm_never_removes_unasked(filled: DaemonProcess):
    for arguments in (["rm", "alpha"], ["rm", "--all"], ["rm", "-y"], ["rm", "alpha", "--all", "-y"]):
        ended = cli(filled.directory, *arguments)
        assert ended.returncode == 2, arguments
    assert len(keys(filled.directory)) == 3


def test_rm_asks_a_person(filled: DaemonProcess):
    ended = cli(filled.directory, "rm", "alpha", terminal_says="n\n")
    assert ended.returncode == 1
    assert "Remove 1 artifact, 13 B?" in ended.stderr
    assert len(keys(filled.directory)) == 3
    assert cli(filled.directory, "rm", "alpha", terminal_says="y\n").returncode == 0
    assert keys(filled.directory) == ["gamma", "beta"]


@pytest.mark.slow
def test_what_is_pinned_survives_a_collection_that_removes_the_rest(start_daemon: Start):
    daemon = start_daemon(daemon={"store_max_bytes": 2**24})
    for key in ("kept", "gone"):
        publish(daemon, key, key.encode() * 1000)
    assert as_json(daemon.directory, "pin", "kept")["count"] == 1
    assert [row["key"] for row in as_json(daemon.directory, "ls", "--pinned")["artifacts"]] == ["kept"]
    would = as_json(daemon.directory, "gc", "--dry-run", "--max-gib", "0")
    # An artifact that was written a moment ago counts as in use, because a client may be about to read it.
    assert (would["dry_run"], would["artifacts"]) == (True, 0)
    deadline = time.monotonic() + 60
    while as_json(daemon.directory, "gc", "--dry-run", "--max-gib", "0")["artifacts"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert len(keys(daemon.directory)) == 2
    would = as_json(daemon.directory, "gc", "--dry-run", "--max-gib", "0")
    assert [row["key"] for row in would["listed"]] == ["gone"]
    did = as_json(daemon.directory, "gc", "--max-gib", "0")
    assert (did["artifacts"], did["bytes"], did["dry_run"]) == (1, would["bytes"], False)
    assert keys(daemon.directory) == ["kept"]
    assert as_json(daemon.directory, "unpin", "kept")["count"] == 1
    assert as_json(daemon.directory, "ls", "--pinned")["artifacts"] == []


def test_gc_takes_ages_as_people_write_them(filled: DaemonProcess):
    assert as_json(filled.directory, "gc", "--dry-run", "--older-than", "30d")["artifacts"] == 0
    for age in ("30", "d", "-1d", "0d", "1e9d", "soon"):
        ended = cli(filled.directory, "gc", f"--older-than={age}")
        assert ended.returncode == 2, age
        assert "is no duration" in ended.stderr
    unclear = cli(filled.directory, "gc", "--older-than", "1m")
    assert unclear.returncode == 2
    assert "minutes or months: write 1min" in unclear.stderr
    assert "would remove 0 artifacts" in done(filled.directory, "gc", "--dry-run")


def test_names_on_the_wire_are_bounded(filled: DaemonProcess):
    import grpc

    from compile_wire.v1 import inventory_pb2 as pb
    from compile_wire.v1 import inventory_pb2_grpc as pb_grpc

    stub = pb_grpc.InventoryServiceStub(filled.channel)
    too_much = [
        (stub.Describe, pb.DescribeRequest(name="k" * 257)),
        (stub.Describe, pb.DescribeRequest(name="")),
        (stub.ListArtifacts, pb.ListArtifactsRequest(program="p" * 1025)),
        (stub.ListArtifacts, pb.ListArtifactsRequest(environment_id="0" * 65)),
        (stub.RemoveArtifacts, pb.RemoveArtifactsRequest(digests=["0" * 64] * 4097)),
        (stub.RemoveArtifacts, pb.RemoveArtifactsRequest(digests=["../etc"])),
        (stub.FindMissing, pb.FindMissingRequest(digests=["0" * 63])),
        (stub.Collect, pb.CollectRequest(unused_s=float("nan"))),
        (stub.Collect, pb.CollectRequest(unused_s=-1.0)),
        (stub.ImportArtifact, pb.ImportArtifactRequest(manifest=b"no manifest", environment=FIELDS)),
        (stub.ImportArtifact, pb.ImportArtifactRequest(manifest=manifest_of("k", b"e"), environment={})),
    ]
    for call, request in too_much:
        with pytest.raises(grpc.RpcError) as caught:
            drain(call(request, **filled.options()))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, request


def test_every_method_asks_for_the_token(filled: DaemonProcess):
    import grpc

    from compile_wire.v1 import inventory_pb2 as pb
    from compile_wire.v1 import inventory_pb2_grpc as pb_grpc

    stub = pb_grpc.InventoryServiceStub(filled.channel)
    for method in pb.DESCRIPTOR.services_by_name["InventoryService"].methods:
        request = getattr(pb, method.input_type.name)()
        call = getattr(stub, method.name)
        with pytest.raises(grpc.RpcError) as caught:
            drain(call(iter([request]) if method.client_streaming else request, timeout=20))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, method.name


def test_an_artifact_whose_manifest_is_known_is_described_by_it(filled: DaemonProcess):
    digest = manifest_digest(manifest_of("beta", b"entry b"))
    assert as_json(filled.directory, "show", digest)["artifacts"][0]["key"] == "beta"
