"""The environment: everything outside the graph that decides whether an artifact can run in a process.

A flat map of text to text, gathered by the client from its own process and by each worker from its own. Two processes
with the same map may share artifacts. What the fields are is listed in docs/cache-key.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from compile_wire.digest import Digest, digest_of
from compile_wire.errors import MalformedError
from compile_wire.kernel.environment import KIND_FIELD
from compile_wire.limits import MAX_ENVIRONMENT_BYTES, MAX_ENVIRONMENT_TEXT
from compile_wire.packing import pack
from compile_wire.plain import is_plain

FIELD_NAMES = frozenset(
    {
        *("python", "torch", "torch_key", "triton", "system", "libc", "cpu_capability", "cpu_flags", "compiler"),
        *("toolkit", "driver", "gpu"),
        KIND_FIELD,
    }
)
"""All that there are: `compile_torch.environment` and `compile_torch.triton.environment` gather them."""


def check_environment(fields: Mapping[str, str]) -> None:
    """Raise `MalformedError` where a field is unknown or too long, or all of them together are."""
    if not fields:
        raise MalformedError("the environment is empty")
    if unknown := fields.keys() - FIELD_NAMES:
        raise MalformedError(f"environment fields {sorted(unknown)[:4]!r:.200} are unknown: they are another version's")
    for name, value in fields.items():
        if len(value) > MAX_ENVIRONMENT_TEXT:
            raise MalformedError(f"environment field {name} has {len(value)} characters, more than allowed")
        if not is_plain(value):
            raise MalformedError(f"environment field {name} holds characters that cannot be shown")
    if (size := environment_bytes(fields)) > MAX_ENVIRONMENT_BYTES:
        raise MalformedError(f"the environment has {size} bytes, more than {MAX_ENVIRONMENT_BYTES}")


def environment_bytes(fields: Mapping[str, str]) -> int:
    """Return how long all names and values are together, in UTF-8."""
    return sum(len(name.encode()) + len(value.encode("utf-8", "surrogatepass")) for name, value in fields.items())


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
