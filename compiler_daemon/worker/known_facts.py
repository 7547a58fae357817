"""What is known about an environment, in a file that the workers of one place share: the first runs the probes.

The daemon leaves there what its store knows, before it starts a worker. Workers that start together take turns: the
first asks the machine, the others read what it found. The file costs and saves time only; where it cannot be used, a
worker asks the machine itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from compile_wire.digest import Digest
from compile_wire.errors import WireError
from compile_wire.facts import Facts, decode_facts, encode_facts
from compile_wire.packing import pack, unpack

_NAME = "facts"
_MAX_BYTES = 128 * 1024
_TURN_S = 60.0
_POLL_S = 0.02


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


@contextlib.contextmanager
def turn(place: Path) -> Iterator[None]:
    """Wait until no other worker asks the machine; go on all the same after a minute, or without a place to wait in."""
    with contextlib.ExitStack() as scope:
        with contextlib.suppress(OSError):
            lock = scope.enter_context(open(place / f"{_NAME}.lock", "wb"))
            deadline = time.monotonic() + _TURN_S
            while not _taken(lock.fileno()) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        yield


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
