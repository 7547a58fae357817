"""What is known about an environment, in a file in a worker's own folder: then it need not run the probes.

The daemon leaves there what its store knows, before it starts the worker. The file costs and saves time only; where it
cannot be used, a worker asks the machine itself.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from compile_wire.digest import Digest
from compile_wire.errors import WireError
from compile_wire.facts import Facts, decode_facts, encode_facts
from compile_wire.packing import pack, unpack

_NAME = "facts"
_MAX_BYTES = 128 * 1024


def read_known(place: Path, environment: Digest) -> Facts | None:
    """Return the facts that lie in `place`; None where there are none, or another environment's."""
    try:
        with open(place / _NAME, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
        match unpack(data, max_bytes=_MAX_BYTES, what="known facts"):
            case [str(name), bytes(facts)] if name == environment:
                return decode_facts(facts)
    except (OSError, WireError):
        pass
    return None


def write_known(place: Path, environment: Digest, facts: Facts) -> None:
    """Leave facts in `place`, whole or not at all. Raises `OSError`."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(prefix=f"{_NAME}-", dir=place)
    try:
        with open(number, "wb") as file:
            file.write(pack([environment, encode_facts(facts)]))
        os.replace(name, place / _NAME)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
