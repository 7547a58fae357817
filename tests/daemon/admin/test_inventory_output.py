"""Where `export` writes: only regular files are replaced, and `-` is stdout, or stdin."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from compiler_daemon.admin.bundle.reader import MAGIC
from compiler_daemon.admin.output import Output
from compiler_daemon.errors import OutputError
from tests.daemon.daemon_process import DaemonProcess
from tests.daemon.inventory_samples import as_json, cli, cli_process, graph_of, publish

Start = Callable[..., DaemonProcess]


@pytest.fixture
def filled(start_daemon: Start) -> DaemonProcess:
    daemon = start_daemon("one")
    publish(daemon, "alpha", b"entry a", b"shared", program="sweep", graph=graph_of())
    return daemon


def bytes_of(daemon: DaemonProcess, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "compiler_daemon", *arguments, "--dir", str(daemon.directory)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False)


def test_a_dash_is_stdout_and_stdin(
    filled: DaemonProcess, start_daemon: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = start_daemon("two")
    two.handshake()
    monkeypatch.chdir(tmp_path)

    written = bytes_of(filled, "export", "-")
    command = [sys.executable, "-m", "compiler_daemon", "import", "-", "--dir", str(two.directory), "--all"]
    command += ["--secret-file", str(filled.directory / "secret")]
    taken = subprocess.run(command, input=written.stdout, capture_output=True, timeout=60, check=False)

    assert written.returncode == 0
    assert written.stdout.startswith(MAGIC)
    assert b"1 artifact and 1 graph" in written.stderr
    assert taken.returncode == 0, taken.stderr
    assert [row["key"] for row in as_json(two.directory, "ls")["artifacts"]] == ["alpha"]
    assert not (tmp_path / "-").exists()


def test_graphs_go_through_a_pipe(filled: DaemonProcess, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "compiler_daemon", "replay", "-", "--dir", str(filled.directory), "--json"]

    written = bytes_of(filled, "export", "--graphs", "-")
    replayed = subprocess.run(command, input=written.stdout, capture_output=True, timeout=60, check=False)

    assert b'"key": "alpha"' in replayed.stdout, replayed.stderr


def test_a_fifo_is_written_into_and_stays_one(filled: DaemonProcess, tmp_path: Path) -> None:
    fifo = tmp_path / "f"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()

    ended = cli_process(filled.directory, "export", str(fifo))
    reader.join(30)

    assert ended.returncode == 0
    assert fifo.is_fifo()
    assert read[0].startswith(MAGIC)
    assert read[0].endswith(MAGIC)


def test_behind_a_link_the_file_is_replaced_and_the_link_stays(filled: DaemonProcess, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "b", tmp_path / "link"
    target.write_bytes(b"earlier")
    link.symlink_to(target)

    assert cli(filled.directory, "export", str(link)).returncode == 0

    assert link.is_symlink()
    assert target.read_bytes().startswith(MAGIC)
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["b"]


def test_a_link_that_leads_to_nothing_yet_gets_its_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "new")

    with Output(tmp_path / "link") as output:
        output.file.write(b"all")
        output.finish()

    assert (tmp_path / "new").read_bytes() == b"all"
    assert (tmp_path / "link").is_symlink()


def test_a_link_to_an_open_pipe_is_written_into_and_stays_one(tmp_path: Path) -> None:
    """As /dev/stdout is one."""
    read, write = os.pipe()
    link = tmp_path / "stdout"
    link.symlink_to(f"/proc/self/fd/{write}")

    with Output(link) as output:
        output.file.write(b"all")
        output.finish()
    os.close(write)
    with open(read, "rb") as end:
        assert end.read() == b"all"

    assert link.is_symlink()


@pytest.mark.parametrize("kind", ["directory", "socket"])
def test_what_is_no_place_for_bytes_is_refused_in_words(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "p"
    with socket.socket(socket.AF_UNIX) as listening:
        if kind == "directory":
            place.mkdir()
        else:
            listening.bind(str(place))

        with pytest.raises(OutputError, match=f"is a {kind}: name a file, or `-` for stdout"), Output(place):
            raise AssertionError("it was opened")

    assert place.exists()


def test_a_failure_writes_nothing_into_a_stream(tmp_path: Path) -> None:
    fifo = tmp_path / "f"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()

    with Output(fifo) as output:
        output.file.write(b"half")  # and never finished
    reader.join(30)

    assert read == [b""]


def test_json_and_the_file_cannot_both_go_to_stdout(filled: DaemonProcess) -> None:
    ended = cli(filled.directory, "export", "-", "--json")

    assert ended.returncode == 2
    assert "name a file, or leave --json out" in ended.stderr
