"""Where benches write: files, and what has the place of one, which is written into and never replaced."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benches.harness.output import folder, write_document

DOCUMENT = {"bench": "one", "seconds": 1.5}
BENCH = (
    "from pathlib import Path; from benches.harness.output import write_document as w; w(Path('-'), {'bench': 'one'})"
)


def test_a_document_goes_into_a_pipe_of_that_name_and_the_pipe_stays(tmp_path: Path) -> None:
    place, read = tmp_path / "pipe", list[str]()
    os.mkfifo(place)
    reader = threading.Thread(target=lambda: read.append(place.read_text()), daemon=True)
    reader.start()

    write_document(place, DOCUMENT)
    reader.join(30)

    assert place.is_fifo()
    assert json.loads(read[0]) == DOCUMENT


def test_behind_a_link_the_file_is_written_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")

    write_document(tmp_path / "link", DOCUMENT)

    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "file").read_text()) == DOCUMENT


def test_a_dash_is_stdout_and_makes_no_file_of_that_name(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", BENCH], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == {"bench": "one"}
    assert list(tmp_path.iterdir()) == []


def test_a_dash_is_no_folder() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="name a folder"):
        folder("-")
