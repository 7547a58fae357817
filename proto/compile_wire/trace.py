"""What a trace is, for people: a line in its manifest. A trace is what dynamo made of a function."""

from __future__ import annotations

import json
from collections.abc import Sequence

_MAX_NAME = 200
_MAX_GRAPHS = 16


def about_trace(function: str, graphs: Sequence[str]) -> str:
    """Return the line for a manifest: the function, and the keys of its graphs."""
    return json.dumps({"trace": function[:_MAX_NAME], "graphs": list(graphs[:_MAX_GRAPHS])})


def read_about_trace(line: str) -> tuple[str, list[str]]:
    """Return the function and the keys of its graphs; empty ones where the line is another."""
    try:
        values = json.loads(line)
    except ValueError:
        return "", []
    if not isinstance(values, dict):
        return "", []
    graphs = values.get("graphs")
    return str(values.get("trace", "")), [str(key) for key in graphs] if isinstance(graphs, list) else []
