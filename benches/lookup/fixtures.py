"""The wire bench's artifacts, the same in daemon, redis and echo."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

from benches.harness.daemon import ServedDaemon
from benches.harness.output import say
from benches.harness.published import answers_of, echoing, publish
from benches.harness.redis_server import redis_served
from benches.harness.synthetic import Catalogue
from benches.lookup.callers import Held, Places, Target
from compile_wire.digest import digest_of
from compile_wire.limits import MAX_INLINE_BYTES

SIZES = {"10KB": 10_000, "250KB": 250_000, "4MB": 4_000_000, "64MB": 64_000_000}
"""Of all blobs of an artifact."""

_MOST_KEYS = 64
_MOST_BYTES = 32_000_000
"""Of all artifacts of one size, unless one is larger by itself."""

Shelf = dict[str, Held]
"""What is under each key."""


@contextlib.contextmanager
def shelved(
    folder: Path, daemon: ServedDaemon, sizes: Collection[str], targets: Collection[Target]
) -> Iterator[tuple[dict[str, Shelf], Places]]:
    """Fill the daemon and the other servers that are asked; what is there by size, and where."""
    shelves: dict[str, Shelf] = {}
    answers: dict[str, bytes] = {}
    blobs: dict[str, bytes] = {}
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(redis_served(folder)) if "redis" in targets else None
        for name in sizes:
            size = SIZES[name]
            keys = max(1, min(_MOST_KEYS, _MOST_BYTES // size))
            catalogue = Catalogue(name=f"wire-{name}", keys=keys, min_bytes=size, max_bytes=size, shared=0)
            publish(daemon, catalogue)
            shelves[name] = {}
            for number in range(keys):
                parts = [part.data for part in catalogue.compiled(number).parts]
                held = sum(map(len, parts))
                by_digest: dict[str, bytes] = {}
                if held > MAX_INLINE_BYTES:
                    by_digest = {digest_of(data): data for data in parts}
                shelves[name][catalogue.key(number)] = Held(held, tuple(by_digest))
                if "echo" in targets:
                    blobs |= by_digest
                if redis is not None:
                    _set(redis, catalogue.key(number), b"".join(parts))
            if "echo" in targets:
                answers |= answers_of(daemon, catalogue)
            say(f"{keys} artifacts of {name} are there")
        address = stack.enter_context(echoing(folder, answers, blobs))[0] if "echo" in targets else None
        yield shelves, Places(daemon=daemon.directory, redis=redis, echo=address)


def _set(path: Path, key: str, data: bytes) -> None:
    from redis import Redis  # for those who have it

    with Redis(unix_socket_path=str(path)) as redis:
        redis.set(key, data)
