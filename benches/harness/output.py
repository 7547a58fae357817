"""What a bench says: lines for people on stderr, its result as the last line on stdout. Imports nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any


def last_line(document: Mapping[str, Any]) -> None:
    """Print the bench's result as one line of JSON."""
    sys.stdout.flush()
    print(json.dumps(document), flush=True)


def say(text: str) -> None:
    """Write one line for people."""
    print(text, file=sys.stderr, flush=True)


def complain(text: object) -> None:
    """Write one line about what is wrong, in red where people read it on a terminal."""
    say(f"\033[31m{text}\033[0m" if sys.stderr.isatty() else str(text))
