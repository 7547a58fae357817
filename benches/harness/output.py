"""What a bench says: lines for people on stderr, its result as the last line on stdout; and where its files go.

Imports nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def last_line(document: Mapping[str, Any]) -> None:
    """Print the bench's result as one line of JSON."""
    sys.stdout.flush()
    print(json.dumps(document), flush=True)


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document to a file, or to stdout where it is called `-`. Links are followed, and FIFOs written into."""
    text = json.dumps(document, indent=1) + "\n"
    if path == Path("-"):
        sys.stdout.write(text)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def folder(text: str) -> Path:
    """Return the path of a folder, for `argparse`; `-`, which is stdout elsewhere, cannot be one."""
    if text == "-":
        raise argparse.ArgumentTypeError("this writes several files: name a folder")
    return Path(text)


def say(text: str) -> None:
    """Write one line for people."""
    print(text, file=sys.stderr, flush=True)


def complain(text: object) -> None:
    """Write one line about what is wrong, in red where people read it on a terminal."""
    say(f"\033[31m{text}\033[0m" if sys.stderr.isatty() else str(text))
