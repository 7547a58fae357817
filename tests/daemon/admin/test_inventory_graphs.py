from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from compile_wire.digest import digest_of
from compile_wire.graph.decode import decode_graph
from compiler_daemon.admin.bundle import read_graphs
from compiler_daemon.errors import BundleError
from tests.daemon.daemon_process import ENVIRONMENT, FIELDS, DaemonProcess
from tests.daemon.inventory_samples import as_json, cli, graph_of, publish

Start = Callable[..., DaemonProcess]


def test_graphs_are_exported_with_environment_key_and_program_and_read_again(start_daemon: Start, tmp_path: Path):
    daemon = start_daemon()
    publish(daemon, "one", b"entry one", program="sweep", graph=graph_of(4))
    publish(daemon, "two", b"entry two", program="sweep", graph=graph_of(8))
    publish(daemon, "three", b"entry three", program="other", graph=graph_of(16))
    file = tmp_path / "sweep.graphs"
    said = as_json(daemon.directory, "export", "--graphs", str(file))
    assert (said["graphs"], said["artifacts"], said["environments"]) == (3, 0, 1)
    requests = {request.key: request for request in read_graphs(file)}
    assert {key: request.program for key, request in requests.items()} == {
        "one": "sweep", "two": "sweep", "three": "other",
    }  # fmt: skip
    assert requests["two"].data == graph_of(8)
    assert requests["two"].digest == digest_of(graph_of(8))
    assert (requests["two"].environment, requests["two"].fields) == (ENVIRONMENT, FIELDS)
    assert decode_graph(requests["two"].data).torch == "2.13.0"
    assert file.stat().st_size == said["bytes"] < 10_000


def test_a_program_or_keys_narrow_what_graphs_are_exported(start_daemon: Start, tmp_path: Path):
    daemon = start_daemon()
    for key, program in (("one", "sweep"), ("two", "sweep"), ("three", "other")):
        publish(daemon, key, b"entry of " + key.encode(), program=program, graph=graph_of(len(key)))
    file = tmp_path / "g"
    as_json(daemon.directory, "export", "--graphs", "--program", "sweep", str(file))
    assert {request.key for request in read_graphs(file)} == {"one", "two"}
    as_json(daemon.directory, "export", "--graphs", str(file), "thr", "one")
    assert {request.key for request in read_graphs(file)} == {"one", "three"}
    ended = cli(daemon.directory, "export", "--graphs", str(tmp_path / "none"), "--program", "nobody")
    assert ended.returncode == 1
    assert "no graph is kept" in ended.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("place", [0, 20, -1, -30, -60])
def test_a_file_of_graphs_with_a_changed_byte_is_refused(start_daemon: Start, tmp_path: Path, place: int):
    daemon = start_daemon()
    publish(daemon, "one", b"entry one", graph=graph_of())
    file = tmp_path / "g"
    as_json(daemon.directory, "export", "--graphs", str(file))
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError):
        list(read_graphs(file))
