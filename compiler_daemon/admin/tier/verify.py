"""What a reader with this directory's signers would say of each object of a tier: all is read, and nothing changed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from compile_wire.plain import plain
from compiler_daemon.admin.tier.contents import Progress, StoredObject
from compiler_daemon.errors import TooLargeError
from compiler_daemon.tier.address import object_name
from compiler_daemon.tier.engines import Engine
from compiler_daemon.tier.header import MAX_HEADER_BYTES, MAX_PACKED_BYTES, read_header
from compiler_daemon.tier.object_errors import MalformedObjectError, ObjectError, WrongKeyError
from compiler_daemon.tier.packed import Accept, unpack, unpack_facts
from compiler_daemon.tier.signers import SignerList


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a reader would say; `--json` prints it as it is."""

    name: str
    result: str
    """`ok`, or the reason why it is a miss, as in the counters `tier_rejected.REASON`."""
    text: str = ""
    key: str = ""
    signer: str = ""
    """Whom it is believed for."""
    size: int = 0


async def verdicts(
    engine: Engine, objects: Sequence[StoredObject], trusted: SignerList, accept: Accept, progress: Progress
) -> list[Verdict]:
    """Read and judge the objects, one after the other; raise `TierError`. One that went meanwhile is left out."""
    found = []
    for done, one in enumerate(objects, start=1):
        try:
            data = await engine.get(one.name, MAX_HEADER_BYTES + MAX_PACKED_BYTES)
        except TooLargeError as error:
            found.append(Verdict(name=plain(one.name), result="too_large", text=plain(str(error)), size=one.size))
        else:
            if data is not None:
                found.append(await asyncio.to_thread(verdict, data, one, trusted, accept))
        progress(done, len(objects))
    return found


def verdict(data: bytes, one: StoredObject, trusted: SignerList, accept: Accept) -> Verdict:
    """Judge an object that lies under this name."""
    name, size = plain(one.name), len(data)
    try:
        key, signer = _believed(data, one, trusted, accept)
    except ObjectError as error:
        return Verdict(name=name, result=error.reason, text=plain(str(error)), size=size)
    return Verdict(name=name, result="ok", key=key, signer=signer, size=size)


def _believed(data: bytes, one: StoredObject, trusted: SignerList, accept: Accept) -> tuple[str, str]:
    """Return key and signer of an object that a reader would use; raise `ObjectError`."""
    if one.kind == "facts":
        return "", unpack_facts(data, environment=one.environment, trusted=trusted).signer.name
    if one.kind is None:
        raise MalformedObjectError("no daemon looks for an object of this name")
    key = read_header(data).statement.key
    signer = unpack(data, key=key, environment=one.environment, trusted=trusted, accept=accept).signer.name
    if object_name(one.namespace, one.environment, key, one.slot) != one.name:
        raise WrongKeyError("it is the artifact of another key than the one it lies under")
    return key, signer
