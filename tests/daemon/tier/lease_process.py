"""A node in a process of its own, for tests: it takes leases on a tier and says what becomes of them.

`race ADDRESS JOURNAL KEY...` ends once every key was compiled by some node; `hold ADDRESS KEY` takes a lease and keeps
it.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Sequence

from compiler_daemon.tier.address import compile_sha, object_name, read_tier
from compiler_daemon.tier.engines import Engine, EngineTimeouts, open_engine
from compiler_daemon.tier.leases import Held, LeaseConfig, Leases, Waiting

TTL_S = 3.0
CONFIG = LeaseConfig(ttl_s=TTL_S, beat_s=0.8)
WORK_S = 0.3
LIMIT = 1000


async def race(engine: Engine, leases: Leases, journal: str, keys: Sequence[str]) -> None:
    for key in random.sample(keys, len(keys)):
        name, sha = object_name("lab", "env", key, 0), compile_sha("lab", "env", key)
        while await engine.get(name, LIMIT) is None:
            match await leases.acquire(sha, WORK_S):
                case Held() as held:
                    if await engine.get(name, LIMIT) is None:  # it may have come before the lease was free
                        await asyncio.sleep(WORK_S)
                        with open(journal, "a") as file:  # noqa: ASYNC230
                            file.write(f"{key} {os.getpid()}\n")
                        await engine.create(name, b"artifact")
                    await held.release(compiled=True)
                case Waiting(look_again_s=wait_s):
                    await asyncio.sleep(wait_s)
                case other:
                    raise AssertionError(other)
        leases.left(sha)


async def hold(leases: Leases, key: str) -> None:
    held = await leases.acquire(compile_sha("lab", "env", key), 60.0)
    assert isinstance(held, Held), held
    print("held", flush=True)
    while not held.lost:  # noqa: ASYNC110 - as a daemon does, which looks at it between two steps
        await asyncio.sleep(0.05)
    print("lost", flush=True)
    await held.release()
    print("released", flush=True)


async def main(verb: str, address: str, *rest: str) -> None:
    engine = open_engine(read_tier(address), os.environ, EngineTimeouts(call_s=20.0))
    leases = Leases(engine, CONFIG)
    try:
        if verb == "race":
            await race(engine, leases, rest[0], rest[1:])
        else:
            await hold(leases, rest[0])
    finally:
        await leases.close()
        await engine.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
