"""A second opinion on S3: what each engine of a tier must do, against moto, which checks its keys."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benches.harness.moto_server import MotoServer, moto_program, moto_served
from compiler_daemon.errors import TierDeniedError, TierMissingError
from compiler_daemon.tier.address import read_tier
from compiler_daemon.tier.engines import Engine, EngineTimeouts, open_engine
from tests.daemon.tier import test_tier_engines as of_engines
from tests.daemon.tier.engine_samples import Place

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.slow,
    pytest.mark.skipif(moto_program() is None, reason="moto is not installed: `pip install 'moto[server]'`"),
]

_numbers = itertools.count()


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with tempfile.TemporaryDirectory(prefix="moto-") as folder, moto_served(Path(folder), "tier") as server:
        yield server


@pytest.fixture
def place(moto: MotoServer) -> Place:
    """What `engine` opens here: a prefix of its own in moto's bucket."""
    return Place(read_tier(f"s3://tier/test-{next(_numbers)}"), moto.variables())


async def test_name_is_created_once_also_by_sixteen_at_once(engine: Engine) -> None:
    await of_engines.test_name_is_created_once_and_keeps_what_it_got_first(engine)
    await engine.delete(of_engines.NAME)
    await of_engines.test_of_sixteen_that_create_a_name_at_once_one_wins(engine)


async def test_objects_are_read_back_replaced_and_deleted(engine: Engine) -> None:
    await of_engines.test_created_object_is_read_back_byte_for_byte(engine)
    await engine.delete(of_engines.NAME)
    await of_engines.test_deleted_object_is_a_miss_and_its_name_is_free(engine)
    await of_engines.test_replaced_object_is_the_new_one(engine)


async def test_names_below_a_prefix_are_told_with_their_sizes_and_ages(engine: Engine) -> None:
    await of_engines.test_prefix_with_nothing_below_it_has_no_names(engine)
    await of_engines.test_names_below_a_prefix_are_told_with_their_sizes_and_ages(engine)


async def test_object_beyond_a_limit_is_not_read(engine: Engine) -> None:
    await of_engines.test_object_at_its_limit_is_read_and_one_beyond_it_is_not(engine)


async def test_check_finds_that_creating_is_exclusive(engine: Engine) -> None:
    await of_engines.test_check_finds_that_creating_is_exclusive_and_leaves_nothing(engine)


async def test_wrong_keys_are_denied_and_a_missing_bucket_is_no_miss(moto: MotoServer) -> None:
    wrong = {**moto.variables(), "AWS_SECRET_ACCESS_KEY": "not-the-secret"}
    engine = open_engine(read_tier("s3://tier/wrong"), wrong, EngineTimeouts())
    with pytest.raises(TierDeniedError) as denied:
        await engine.get(of_engines.NAME, of_engines.LIMIT)
    with pytest.raises(TierDeniedError):
        await engine.create(of_engines.NAME, b"data")
    await engine.close()

    missing = open_engine(read_tier("s3://nothing-here/prefix"), moto.variables(), EngineTimeouts())
    with pytest.raises(TierMissingError, match="no bucket nothing-here"):
        await missing.get(of_engines.NAME, of_engines.LIMIT)
    await missing.close()

    assert "not-the-secret" not in str(denied.value)
