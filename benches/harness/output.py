"""What a bench says: talk on stderr, its result as the last line on stdout. Imports nothing."""

from __future__ import annotations

import json
import sys
from typing import Any


def last_line(document: dict[str, Any]) -> None:
    """Print the bench's result as one line of JSON."""
    sys.stdout.flush()
    print(json.dumps(document), flush=True)


def say(text: str) -> None:
    """Write one line for people."""
    print(text, file=sys.stderr, flush=True)
