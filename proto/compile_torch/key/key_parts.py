"""The daemon's key: torch's own, and a digest of what a compile reads that torch's key does not have.

The parts are gathered where torch computes its key, in the trainer as in the worker, and what comes out is the key
that torch itself goes on with: its local cache then has the same answer as the daemon. A part that is as torch starts
up adds nothing, so that most graphs keep torch's own key.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from compile_torch.dtensors import parts_held
from compile_torch.key.compile_reads import settings_changed, variables_set
from compile_torch.key.modes import active_modes
from compile_torch.key.sizes import known_of_symbols
from compile_torch.key.state import autocast_off, read_state
from compile_torch.key.switches import changed_switches
from compile_torch.versions import TorchVersion
from compile_wire.graph.spec import Value
from compile_wire.packing import pack

PARTS = (
    "older_torch",
    "sharing",
    "symbols",
    "switches",
    "autocast",
    "variables",
    "settings",
    "user_code",
    "libraries",
    "ranks",
)
"""What the key is made of beside torch's own, by name."""

LEFT_OUT: set[str] = {name for name in os.environ.get("COMPILE_DAEMON_TEST_WEAKEN", "").split(",") if name}
"""Parts that are not looked at. For tests alone: they leave one out, to show that something wrong is served then."""


def full_key(torch_key: str, parts: Mapping[str, Value]) -> str:
    """Return the key under which the daemon, and torch's local cache, file a graph.

    It has the form of torch's keys. The whole of it depends on the parts: keys that differed only behind torch's own
    could not be told apart, or named, by how they begin.
    """
    said = [["l", name, parts[name]] for name in PARTS if name not in LEFT_OUT and parts.get(name)]
    if not said:
        return torch_key
    digest = hashlib.sha256(torch_key.encode() + b"\0" + pack(said)).digest()
    return "a" + base64.b32encode(digest)[:51].decode().lower()


def gathered_parts(
    version: TorchVersion,
    args: Sequence[Any],
    *,
    user_code: str = "",
    libraries: Sequence[Value] = (),
    ranks: Sequence[Value] = (),
) -> dict[str, Value]:
    """Return the parts for a graph with these (fake) inputs, as this process is now; an empty one adds nothing.

    `user_code` is a digest of the user's code that runs while the graph is compiled; no worker meets any. `libraries`
    are those whose operators the graph names, as `compile_torch.library_operators.libraries_in` says them. `ranks` says
    which rank the process is, where that may be compiled into the graph; a worker takes the part of the trainer's.
    """
    state = read_state()
    older = [] if version.key_complete else ["l", state["autocast"], state["default_dtype"], state["threads"]]
    return {
        "older_torch": older,
        "sharing": _sharing(args),
        "symbols": known_of_symbols(args),
        "switches": changed_switches() + active_modes(),
        "autocast": autocast_off(),
        "variables": variables_set(),
        "settings": settings_changed(),
        "user_code": user_code,
        "libraries": list(libraries),
        "ranks": [*ranks, *parts_held(args)] if ranks else [],
    }


def digests_of(parts: Mapping[str, Value]) -> dict[str, str]:
    """Return a digest of each part, for telling why two keys differ."""
    return {f"our {name}": hashlib.sha256(pack(parts.get(name) or [])).hexdigest()[:16] for name in PARTS}


def _sharing(args: Sequence[Any]) -> list[Value]:
    """Return, for each input that shares memory with an earlier one, its position and that one's; else nothing.

    No version of torch has this in its key, although it compiles another graph where such an input is written to.
    """
    import torch

    first: dict[int, int] = {}
    shared: list[Value] = []
    for position, value in enumerate(args):
        if isinstance(value, torch.Tensor) and value.layout is torch.strided:
            owner = first.setdefault(value.untyped_storage()._cdata, position)
            if owner != position:
                shared.append(["l", position, owner])
    return shared
