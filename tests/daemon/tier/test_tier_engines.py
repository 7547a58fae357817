"""What a tier may rely on, tested on each engine: a directory, a real Redis and a real S3 server."""

from __future__ import annotations

import asyncio

import pytest

from compiler_daemon.errors import TooLargeError
from compiler_daemon.tier.engines import Engine

pytestmark = pytest.mark.asyncio

NAME = "v1/lab/environment/key/0"
LIMIT = 2**20


async def names(engine: Engine, prefix: str) -> dict[str, int]:
    return {each.name: each.size async for each in engine.names(prefix)}


async def test_created_object_is_read_back_byte_for_byte(engine: Engine) -> None:
    data = bytes(range(256)) * 1000

    created = await engine.create(NAME, data)

    assert created
    assert await engine.get(NAME, LIMIT) == data


async def test_missing_object_is_none(engine: Engine) -> None:
    assert await engine.get(NAME, LIMIT) is None


async def test_name_is_created_once_and_keeps_what_it_got_first(engine: Engine) -> None:
    await engine.create(NAME, b"first")

    again = await engine.create(NAME, b"second")

    assert not again
    assert await engine.get(NAME, LIMIT) == b"first"


async def test_of_sixteen_that_create_a_name_at_once_one_wins(engine: Engine) -> None:
    results = await asyncio.gather(*(engine.create(NAME, f"{number}".encode()) for number in range(16)))

    assert results.count(True) == 1
    assert await engine.get(NAME, LIMIT) == f"{results.index(True)}".encode()


async def test_object_at_its_limit_is_read_and_one_beyond_it_is_not(engine: Engine) -> None:
    await engine.create(NAME, b"x" * 1000)

    assert await engine.get(NAME, 1000) == b"x" * 1000
    with pytest.raises(TooLargeError, match="999"):
        await engine.get(NAME, 999)


async def test_empty_object_is_no_miss(engine: Engine) -> None:
    await engine.create(NAME, b"")

    assert await engine.get(NAME, LIMIT) == b""


async def test_object_beyond_what_the_engine_takes_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(engine), "largest", 10)

    with pytest.raises(TooLargeError):
        await engine.create(NAME, b"x" * 11)

    assert await engine.get(NAME, LIMIT) is None


async def test_replaced_object_is_the_new_one(engine: Engine) -> None:
    await engine.replace(NAME, b"first")
    await engine.replace(NAME, b"second")

    assert await engine.get(NAME, LIMIT) == b"second"


async def test_deleted_object_is_a_miss_and_its_name_is_free(engine: Engine) -> None:
    await engine.create(NAME, b"first")

    await engine.delete(NAME)
    await engine.delete(NAME)

    assert await engine.get(NAME, LIMIT) is None
    assert await engine.create(NAME, b"second")


async def test_names_below_a_prefix_are_told_with_their_sizes_and_ages(engine: Engine) -> None:
    for number in range(3):
        await engine.create(f"v1/lab/environment/key-{number}/0", b"x" * number)
    await engine.create("v1/laboratory/environment/key/0", b"other")

    found = [each async for each in engine.names("v1/lab/")]

    assert {each.name: each.size for each in found} == {f"v1/lab/environment/key-{n}/0": n for n in range(3)}
    assert all(each.age_s < 60 for each in found)


async def test_prefix_with_nothing_below_it_has_no_names(engine: Engine) -> None:
    assert await names(engine, "v1/lab/") == {}


async def test_touched_object_stays_as_it_is(engine: Engine) -> None:
    await engine.create(NAME, b"data")

    await engine.touch(NAME)
    await engine.touch("v1/lab/environment/none/0")

    assert await engine.get(NAME, LIMIT) == b"data"
    assert await engine.get("v1/lab/environment/none/0", LIMIT) is None


async def test_name_that_leads_out_of_the_tier_is_refused(engine: Engine) -> None:
    for name in ("../x", "/x", "a//b", "a/./b", ".hidden", "a\\b", "a*", "a#1", "a\n", "", "x" * 600):
        with pytest.raises(ValueError, match="cannot be a name"):
            await engine.create(name, b"data")


async def test_check_finds_that_creating_is_exclusive_and_leaves_nothing(engine: Engine) -> None:
    found = await engine.check()

    assert {each.check: each.level for each in found if each.check != "tier room"} == {
        "tier": "ok",
        "tier reads": "ok",
        "tier writes": "ok",
        "tier creates": "ok",
    }
    assert await names(engine, "doctor/") == {}


async def test_cancelled_call_leaves_the_engine_usable(engine: Engine) -> None:
    await engine.create(NAME, b"x" * 100_000)

    for _ in range(20):
        call = asyncio.ensure_future(engine.get(NAME, LIMIT))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    assert await engine.get(NAME, LIMIT) == b"x" * 100_000
    assert await engine.get("v1/lab/environment/none/0", LIMIT) is None
