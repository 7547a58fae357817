"""The environment: everything outside the graph that decides whether an artifact can run in a process.

A flat map of text to text, gathered by the client from its own process and by each worker from its own. Two processes
with the same map may share artifacts. What the fields are is listed in docs/cache-key.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from compile_wire.digest import Digest, digest_of
from compile_wire.errors import MalformedError
from compile_wire.limits import MAX_ENVIRONMENT_FIELDS, MAX_ENVIRONMENT_TEXT
from compile_wire.packing import pack


def check_environment(fields: Mapping[str, str]) -> None:
    """Raise `MalformedError` where there are too many fields, or one is too long or empty-named."""
    if not fields:
        raise MalformedError("the environment is empty")
    if len(fields) > MAX_ENVIRONMENT_FIELDS:
        raise MalformedError(f"{len(fields)} environment fields, more than {MAX_ENVIRONMENT_FIELDS}")
    for name, value in fields.items():
        if not name or len(name) > MAX_ENVIRONMENT_TEXT or len(value) > MAX_ENVIRONMENT_TEXT:
            raise MalformedError(f"environment field {name[:40]!r} is empty-named or too long")


def environment_id(fields: Mapping[str, str]) -> Digest:
    """Return the digest of the fields in the order of their names."""
    return digest_of(pack([[name, fields[name]] for name in sorted(fields)]))


def differing_fields(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Return one sentence for each field in which the two differ, as `name: ours, theirs`."""
    return [
        f"{name}: {ours.get(name, '(absent)')}, {theirs.get(name, '(absent)')}"
        for name in sorted(set(ours) | set(theirs))
        if ours.get(name) != theirs.get(name)
    ]
