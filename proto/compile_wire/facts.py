"""Facts about an environment that one process has established and others may take over.

Today: the verdicts of torch's probes of the CPU's instruction sets. torch builds and loads a test library in a child
process for each, once a process; the answer depends only on what the environment already names (CPU flags, compiler,
torch), so one worker asks the machine and every client is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from compile_wire.errors import MalformedError
from compile_wire.packing import pack, unpack

_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Holds what is known about an environment."""

    vec_isa: Mapping[str, bool] = field(default_factory=dict)
    """Probe (instruction set, compiler flags and probed code, as one text) to verdict."""


def encode_facts(facts: Facts) -> bytes:
    """Return the canonical bytes."""
    return pack({"vec_isa": {name: facts.vec_isa[name] for name in sorted(facts.vec_isa)}})


def decode_facts(data: bytes) -> Facts:
    """Return the facts in `data`; raise `MalformedError` where it is anything else."""
    fields = unpack(data, max_bytes=_MAX_BYTES, what="facts", max_lists=2)
    if not isinstance(fields, dict) or set(fields) != {"vec_isa"}:
        raise MalformedError("facts are a map with vec_isa")
    vec_isa = fields["vec_isa"]
    if not isinstance(vec_isa, dict) or not all(isinstance(verdict, bool) for verdict in vec_isa.values()):
        raise MalformedError("vec_isa is a map of text to yes or no")
    return Facts(vec_isa=vec_isa)
