"""What is recorded of one compile of one function, as one value, and as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compile_wire.errors import MalformedError
from compile_wire.limits import MAX_TRACE_BYTES
from compile_wire.packing import pack, unpack

if TYPE_CHECKING:
    from compile_client.traces.guards import Recorded

_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What dynamo made of a function, for one set of guards."""

    function: str
    """For people."""
    bytecode: bytes
    objects: list[list[str]]
    """[module, qualified name, name] of live objects among the bytecode's constants; see `objects`."""
    installed: list[list[str]]
    """[what stands for it, kind, detail] of each global of dynamo's: `graph` with the daemon's key, `builtins`, `scope`
    with the class whose constructor has it, `resume` with where it goes on."""
    imports: list[list[str]]
    """[alias, module]."""
    guards: Recorded
    identities: list[list[str]]
    """[source, name] of what guards know by identity."""
    tree: list[str]
    """torch's tree of guards, in lines."""
    tensors: list[list[Any]]
    """[number of the source, what must be so]; see `facts`."""
    inlined: list[list[str]]
    """[module, qualified name, digest] of code that no name stands for."""
    sizes: list[list[Any]]
    """What dynamo remembers of the sizes that it met: [source, number or None, sizes or None, strides or None]."""

    @property
    def graphs(self) -> list[str]:
        """Return the keys of its graphs."""
        return [detail for _, kind, detail in self.installed if kind == "graph"]


def encode_trace(trace: Trace) -> bytes:
    """Return the bytes of a trace; raise `MalformedError` where it is larger than what is taken back."""
    guards = trace.guards
    data = pack(
        {
            "v": _VERSION,
            "function": trace.function,
            "bytecode": trace.bytecode,
            "objects": trace.objects,
            "installed": trace.installed,
            "imports": trace.imports,
            "guards": [guards.rows, guards.guards, guards.ordered, guards.sizes],
            "identities": trace.identities,
            "tree": trace.tree,
            "tensors": trace.tensors,
            "inlined": trace.inlined,
            "sizes": trace.sizes,
        }
    )
    if len(data) > MAX_TRACE_BYTES:
        raise MalformedError(f"a trace has {len(data)} bytes, more than {MAX_TRACE_BYTES}")
    return data


def decode_trace(data: bytes) -> Trace:
    """Return the trace in `data`; raise `MalformedError` where it is none."""
    from compile_client.traces.guards import Recorded

    fields = unpack(data, max_bytes=MAX_TRACE_BYTES, what="trace")
    if not isinstance(fields, dict) or fields.pop("v", None) != _VERSION:
        raise MalformedError("not a trace of a form known here")
    try:
        rows, guards, ordered, sizes = fields.pop("guards")
        return Trace(guards=Recorded(rows=rows, guards=guards, ordered=ordered, sizes=sizes), **fields)
    except (TypeError, ValueError, KeyError) as error:
        raise MalformedError("a trace lacks a part") from error
