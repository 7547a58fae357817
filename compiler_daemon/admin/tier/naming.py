"""Which keys of a tier an operator means: by torch's key, by its SHA-256 in the tier, or by the beginning of either."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from compiler_daemon.admin.tier.contents import Progress, StoredObject, by_key
from compiler_daemon.admin.tier.listing import rows
from compiler_daemon.errors import AmbiguousNameError
from compiler_daemon.tier.engines import Engine

_SHORTEST = 4


async def named_objects(
    engine: Engine, objects: Sequence[StoredObject], names: Sequence[str], progress: Progress
) -> Mapping[str, list[StoredObject]]:
    """Return all objects that each name means, in the order in which they are to go; none is an empty list.

    A key means its artifacts of all environments. Raises `AmbiguousNameError` where a name means several keys, or is
    so short that it would sooner or later.
    """
    for name in names:
        if len(name) < _SHORTEST:
            raise AmbiguousNameError(
                f"{name!r} could be the beginning of many keys: write at least {_SHORTEST} letters"
            )
    keys = by_key(objects)
    shas = {sha for _, _, sha in keys}
    said: dict[str, str] = {}
    if not all(hashlib.sha256(name.encode()).hexdigest() in shas or name in shas for name in names):
        # Only the objects themselves say what a hash is of.
        first = [slots[-1] for slots in keys.values()]
        by_name = {one.name: one.sha for one in first}
        said = {by_name[row.name]: row.key for row in await rows(engine, first, progress) if row.key}
    found = {}
    for name in names:
        meant = _meant(name, shas, said)
        if len(meant) > 1:
            raise AmbiguousNameError(f"{name!r} is the beginning of {len(meant)} keys in the tier: write more of it")
        found[name] = [one for slots in keys.values() for one in slots if one.sha in meant]
    return found


def _meant(name: str, shas: set[str], said: Mapping[str, str]) -> set[str]:
    exact = {name, hashlib.sha256(name.encode()).hexdigest()} & shas
    return exact or {sha for sha in shas if sha.startswith(name) or said.get(sha, "").startswith(name)}
