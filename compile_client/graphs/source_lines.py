"""Where in the user's program a node of a graph comes from: file, line and text of the innermost frame, no path."""

from __future__ import annotations

import os
import re
from typing import Any

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in ([^\n]+)\n\s*([^\n]*)')
_NODE = re.compile(r"\bnode '?([A-Za-z_][A-Za-z0-9_]*)'?")
_MAX_TEXT = 100


def origin_of(node: Any) -> str:
    """Return `train.py:12 in forward: y = own(x)`; empty where torch has not noted it."""
    trace = node.meta.get("stack_trace")
    frames = _FRAME.findall(trace) if isinstance(trace, str) else []
    if not frames:
        return ""
    path, line, function, text = frames[-1]
    return f"{os.path.basename(path)}:{line} in {function}: {text.strip()[:_MAX_TEXT]}"


def origin_of_named(gm: Any, message: str) -> str:
    """Return the origin of the node that a message names; empty where it names none of this graph."""
    match = _NODE.search(message)
    if match is None:
        return ""
    return next((origin_of(node) for node in gm.graph.nodes if node.name == match[1]), "")
