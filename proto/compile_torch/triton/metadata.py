"""Triton's JSON beside a kernel, with and without what is true in one process only: its hash, and paths."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from compile_torch.triton.options import LIBRARIES
from compile_wire.errors import MalformedError

_HASH = "hash"


def portable_metadata(metadata: Mapping[str, Any]) -> bytes:
    """Return the JSON that holds everywhere; raise `MalformedError` where something else in it is a path."""
    values = {**metadata}
    for name in (_HASH, LIBRARIES):
        if name in values:
            values[name] = ""
    for name, value in values.items():
        if isinstance(value, str) and os.path.isabs(value):
            raise MalformedError(f"the kernel's metadata has a path in {name}")
    return json.dumps(values, default=vars).encode()


def local_metadata(data: bytes, *, key: str, libraries: Sequence[tuple[str, str]] | None) -> bytes:
    """Return the JSON as Triton would have written it here; raise `MalformedError` where `data` is no such thing."""
    values = read_metadata(data)
    values[_HASH] = key
    if LIBRARIES in values:
        values[LIBRARIES] = [list(library) for library in libraries or ()]
    return json.dumps(values).encode()


def read_metadata(data: bytes) -> dict[str, Any]:
    """Return the values; raise `MalformedError` where `data` is not Triton's metadata of a kernel."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedError("a kernel's metadata is no JSON") from error
    if not isinstance(values, dict) or not isinstance(values.get("target"), dict) or "name" not in values:
        raise MalformedError("a kernel's metadata names no target and no kernel")
    return values
