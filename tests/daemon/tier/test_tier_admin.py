"""`compiler-daemon tier status`, `ls`, `verify`, `gc` and `rm` on real directories, a real Redis and a real bucket."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from compile_wire.digest import Digest, digest_of
from compiler_daemon.admin.keys import signers
from compiler_daemon.admin.tier.cleaning import Cleaned, Rules, clean, plan
from compiler_daemon.admin.tier.contents import OpenTier, StoredObject, contents
from compiler_daemon.admin.tier.listing import rows
from compiler_daemon.admin.tier.verify import verdicts
from compiler_daemon.admin.tier.view import rows_table, verdicts_table
from compiler_daemon.errors import AmbiguousNameError, NothingNamedError, TierMissingError, UsageError
from compiler_daemon.tier.address import SLOTS, cleaning_sha, facts_name, lease_name, list_name, object_name, read_tier
from compiler_daemon.tier.engines import Engine, open_engine
from compiler_daemon.tier.header import MAX_HEADER_BYTES
from compiler_daemon.tier.lease_records import LeaseRecord
from compiler_daemon.tier.leases import Held, LeaseConfig, Leases
from compiler_daemon.tier.packed import pack_facts
from tests.daemon.tier.engine_samples import Place
from tests.daemon.tier.sharing import Said, StartDaemon, signing, start_sharing
from tests.daemon.tier.tier_samples import CI, ENVIRONMENT, FACTS, HOST, LAB, STRANGER, TRUSTED, artifact, packed

DAY = 86400.0
OTHER = digest_of(b"another environment")
QUICK = LeaseConfig(ttl_s=0.6, beat_s=0.2, first_wait_s=0.05, longest_wait_s=0.1)


def silent(done: int, total: int) -> None:
    """Take progress and show it to nobody."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tier").mkdir()
    return tmp_path / "tier"


def put(root: Path, name: str, data: bytes, *, age_s: float = 0.0) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    at = time.time() - age_s
    os.utime(path, (at, at))
    return path


def put_artifact(
    root: Path, key: str, slot: int = 0, *, age_s: float = 0.0, environment: Digest = ENVIRONMENT, signer: Any = LAB
) -> Path:
    data = packed(artifact([f"{key} {slot}".encode()], key=key, environment=environment), signer)
    return put(root, object_name("main", environment, key, slot), data, age_s=age_s)


def put_facts(root: Path, environment: Digest = ENVIRONMENT, *, age_s: float = 0.0) -> Path:
    return put(root, facts_name(environment), pack_facts(FACTS, environment, signer=LAB, host=HOST), age_s=age_s)


def tier_verb(verb: str, root: Path, *arguments: str) -> Said:
    return Said("tier", verb, "--tier", f"file://{root}", *arguments)


def names(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


# ls


async def filled(engine: Engine) -> list[str]:
    stored = {
        object_name("main", ENVIRONMENT, "key-a", 0): packed(artifact(key="key-a")),
        object_name("main", ENVIRONMENT, "key-a", 1): packed(artifact([b"large" * 20000], key="key-a"), CI),
        object_name("main", ENVIRONMENT, "key-b", 0): b"junk",
        facts_name(ENVIRONMENT): pack_facts(FACTS, ENVIRONMENT, signer=LAB, host=HOST),
    }
    for name, data in stored.items():
        assert await engine.create(name, data)
    return sorted(stored)


@pytest.mark.asyncio
async def test_of_each_engine_all_objects_are_listed_with_what_their_headers_say(engine: Engine) -> None:
    stored = await filled(engine)

    listed = {row.name: row for row in await rows(engine, await contents(engine), silent)}

    assert sorted(listed) == stored
    second = listed[object_name("main", ENVIRONMENT, "key-a", 1)]
    assert (second.key, second.slot, second.environment) == ("key-a", 1, ENVIRONMENT)
    assert (second.signer, second.origin, second.host) == ("ci-1", "worker", HOST)
    assert listed[facts_name(ENVIRONMENT)].kind == "facts"
    assert "no object of a tier" in listed[object_name("main", ENVIRONMENT, "key-b", 0)].unreadable


@pytest.mark.asyncio
async def test_of_each_engine_a_beginning_is_read_and_no_more(engine: Engine) -> None:
    await engine.create("v1/name", b"0123456789")

    assert await engine.begin("v1/name", 4) == b"0123"
    assert await engine.begin("v1/name", 100) == b"0123456789"
    assert await engine.begin("v1/another", 4) is None


class CountingEngine:
    """An engine that notes how much of each object is requested."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.asked: list[int] = []

    async def begin(self, name: str, most: int) -> bytes | None:
        self.asked.append(most)
        return self._data[:most]


@pytest.mark.asyncio
async def test_of_a_large_object_only_the_header_is_read() -> None:
    data = packed(artifact([os.urandom(200_000)]))
    engine: Any = CountingEngine(data)
    name = object_name("main", ENVIRONMENT, "k" * 53, 0)
    one = StoredObject(name=name, kind="artifact", environment=ENVIRONMENT, size=len(data), age_s=0.0)

    (row,) = await rows(engine, [one], silent)

    assert (row.signer, engine.asked) == ("lab-1", [MAX_HEADER_BYTES])


def test_ls_prints_the_oldest_first_and_the_sums(root: Path) -> None:
    put_artifact(root, "key-young")
    put_artifact(root, "key-old", age_s=3 * DAY)
    put_facts(root)

    said, told = tier_verb("ls", root), tier_verb("ls", root, "--json").json["tiers"][0]

    assert said.out.index("key-old") < said.out.index("key-young")
    assert "2 artifacts of 2 keys in 1 environment" in said.words
    assert [one["key"] for one in told["objects"]][:1] == ["key-old"]
    assert (told["summary"]["artifacts"], told["summary"]["facts"]) == (2, 1)


def test_ls_of_one_environment_leaves_the_others_out(root: Path) -> None:
    put_artifact(root, "key-a")
    put_artifact(root, "key-b", environment=OTHER)

    told = tier_verb("ls", root, "--json", "--environment", OTHER[:10]).json["tiers"][0]

    assert [one["key"] for one in told["objects"]] == ["key-b"]


def test_a_tier_must_be_named_and_may_be_by_the_environment(root: Path) -> None:
    put_artifact(root, "key-a")

    with pytest.raises(UsageError, match="COMPILER_DAEMON_TIER"):
        Said("tier", "ls")

    assert "key-a" in Said("tier", "ls", COMPILER_DAEMON_TIER=f"file://{root}").out


def test_a_tier_that_is_not_there_is_an_error_and_not_empty(root: Path) -> None:
    for verb in ("ls", "verify"):
        with pytest.raises(TierMissingError, match="there is no directory"):
            tier_verb(verb, root / "gone")


def rendered(table: Table) -> list[str]:
    out = io.StringIO()
    Console(width=80, file=out).print(table)
    return out.getvalue().splitlines()


@pytest.mark.asyncio
async def test_tables_keep_to_80_columns_and_show_no_control_character(root: Path) -> None:
    key = "a-long-key-" * 8
    put_artifact(root, key, signer=STRANGER)
    put(root, f"v1/main/{ENVIRONMENT}/{'x' * 64}/0", b"\x1b[2J")
    engine = open_engine(read_tier(f"file://{root}"))
    objects = await contents(engine)

    lines = rendered(rows_table(await rows(engine, objects, silent)))
    lines += rendered(verdicts_table(await verdicts(engine, objects, TRUSTED, "any", silent)))
    await engine.close()

    assert max(map(len, lines)) <= 80
    assert all(line.isprintable() for line in lines)
    assert any(STRANGER.signer.name in line for line in lines)


# verify


def test_verify_says_of_each_object_what_a_reader_would_and_fails_where_one_is_bad(root: Path, tmp_path: Path) -> None:
    directory = tmp_path / "d"
    signers.trust(directory, LAB.signer.line)
    good = put_artifact(root, "key-good")
    facts = put_facts(root)
    damaged = put_artifact(root, "key-damaged")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    cut = put_artifact(root, "key-cut")
    cut.write_bytes(cut.read_bytes()[:-1])
    strange = put_artifact(root, "key-strange", signer=STRANGER)
    moved = put(root, object_name("main", ENVIRONMENT, "key-moved", 0), good.read_bytes())
    elsewhere = put(root, object_name("main", OTHER, "key-good", 0), good.read_bytes())
    junk = put(root, "v1/main/what", b"junk")

    told = tier_verb("verify", root, "--json", "--dir", str(directory))
    said = tier_verb("verify", root, "--dir", str(directory))

    results = {root / one["name"]: one["result"] for one in told.json["tiers"][0]["objects"]}
    assert results == {
        good: "ok",
        facts: "ok",
        damaged: "malformed",
        cut: "malformed",
        strange: "unknown_signer",
        moved: "wrong_key",
        elsewhere: "wrong_key",
        junk: "malformed",
    }
    assert (told.code, told.json["bad"], said.code) == (1, 6, 1)
    assert f"compiler-daemon keys trust {STRANGER.signer.line}" in said.words
    assert "8 objects: 2 ok, 3 malformed, 1 unknown signer, 2 wrong key" in said.words


def test_verify_of_a_good_tier_succeeds_and_of_a_trainers_artifact_fails_where_workers_are_asked_for(
    root: Path, tmp_path: Path
) -> None:
    signers.trust(tmp_path / "d", LAB.signer.line)
    made = packed(artifact(key="key-a", origin="trainer"))
    put(root, object_name("main", ENVIRONMENT, "key-a", 0), made)

    assert tier_verb("verify", root, "--dir", str(tmp_path / "d")).code == 0
    workers_only = tier_verb("verify", root, "--json", "--tier-accept", "worker", "--dir", str(tmp_path / "d"))

    assert workers_only.code == 1
    assert workers_only.json["tiers"][0]["objects"][0]["result"] == "origin_refused"


# gc


def stored(key: str, slot: int = 0, *, age_s: float, size: int = 10, environment: Digest = ENVIRONMENT) -> StoredObject:
    return StoredObject(
        name=object_name("main", environment, key, slot),
        kind="artifact",
        namespace="main",
        environment=environment,
        sha=hashlib.sha256(key.encode()).hexdigest(),
        slot=slot,
        size=size,
        age_s=age_s,
    )


def test_what_nobody_has_used_goes_the_oldest_first_and_of_a_key_the_highest_slot_first() -> None:
    old, older = stored("old", age_s=40), [stored("older", slot, age_s=50 + slot) for slot in range(3)]

    going = plan([old, *older, stored("young", age_s=5)], Rules(older_than_s=30))

    assert [one.name for one in going.objects] == [one.name for one in (*reversed(older), old)]
    assert (going.expired, going.left_bytes) == (4, 10)


def test_a_key_of_which_one_artifact_was_used_lately_stays_whole() -> None:
    objects = [stored("key", 0, age_s=100), stored("key", 1, age_s=1)]

    assert plan(objects, Rules(older_than_s=30)).objects == ()


def test_for_room_the_oldest_go_until_what_is_left_fits() -> None:
    objects = [stored(f"key-{number}", age_s=number) for number in range(6)]

    going = plan(objects, Rules(max_bytes=25))

    assert [one.age_s for one in going.objects] == [5, 4, 3, 2]
    assert (going.expired, going.left_bytes) == (0, 20)


def test_facts_stay_as_long_as_an_artifact_of_their_environment_does() -> None:
    facts = [
        StoredObject(name=facts_name(one), kind="facts", environment=one, size=1, age_s=100)
        for one in (ENVIRONMENT, OTHER)
    ]
    objects = [stored("used", age_s=1), stored("old", age_s=90, environment=OTHER), *facts]

    going = plan(objects, Rules(older_than_s=30))

    assert [one.name for one in going.objects] == [stored("old", age_s=0, environment=OTHER).name, facts_name(OTHER)]


def test_a_dry_run_says_what_would_go_and_removes_nothing(root: Path) -> None:
    put_artifact(root, "key-old", age_s=40 * DAY)
    put_artifact(root, "key-young")
    before = names(root)

    said = tier_verb("gc", root, "--older-than", "30d", "--dry-run")

    assert "would remove 1 object (1 for their age)" in said.words
    assert names(root) == before


def test_gc_removes_what_is_old_with_the_leases_of_nobody_and_releases_its_own(root: Path) -> None:
    put_artifact(root, "key-old", age_s=40 * DAY)
    young = put_artifact(root, "key-young")
    sha = "0" * 64
    put(root, lease_name(sha, 0), b"{}", age_s=2 * DAY)
    live = put(root, lease_name("1" * 64, 0), b"{}")
    listed = put(root, list_name(ENVIRONMENT, "train.py"), b"[]", age_s=90 * DAY)
    put(root, list_name(OTHER, "train.py"), b"[]", age_s=90 * DAY)

    told = tier_verb("gc", root, "--older-than", "30d", "--json").json["tiers"][0]

    assert {root / name for name in names(root)} == {young, live, listed}
    assert (told["removed"], told["expired"], told["remnants"], told["cleaned_by"]) == (1, 1, 2, "")


def test_gc_wants_to_know_what_may_go(root: Path) -> None:
    with pytest.raises(UsageError, match="--older-than 30d, --max-size"):
        tier_verb("gc", root)


def open_tier(root: Path) -> OpenTier:
    address = read_tier(f"file://{root}")
    return OpenTier(address, open_engine(address))


async def cleaned(tier: OpenTier, waiting: Callable[[str], None] = lambda host: None) -> Cleaned:
    return await clean(tier, Rules(older_than_s=DAY), dry_run=False, progress=silent, on_waiting=waiting, leases=QUICK)


@pytest.mark.asyncio
async def test_while_another_node_cleans_nothing_is_done_and_the_node_is_named(root: Path) -> None:
    put_artifact(root, "key-old", age_s=2 * DAY)
    before, told = names(root), []
    there = open_tier(root)
    held = await Leases(there.engine, QUICK).acquire(cleaning_sha())
    assert isinstance(held, Held)

    done = await cleaned(open_tier(root), told.append)
    still_held = not held.lost
    await held.release()

    assert (done.cleaned_by, done.removed) == (socket.gethostname(), 0)
    assert told == [socket.gethostname()]
    assert still_held
    assert names(root) >= before
    assert (await cleaned(open_tier(root))).removed == 1


@pytest.mark.asyncio
async def test_the_lease_of_a_node_that_died_while_it_cleaned_is_taken_over(root: Path) -> None:
    put_artifact(root, "key-old", age_s=2 * DAY)
    record = LeaseRecord(token="t", host="node-dead", since=time.time(), expected_s=0.0)
    put(root, lease_name(cleaning_sha(), 0), record.write())

    done = await cleaned(open_tier(root))

    assert (done.removed, done.cleaned_by) == (1, "")


def test_of_a_redis_it_is_said_that_it_removes_by_itself(redis_server: Any) -> None:
    said = Said("tier", "gc", "--older-than", "30d", "--tier", f"unix://{redis_server.path}")

    assert "a Redis removes by itself" in said.words


@pytest.mark.asyncio
async def test_a_bucket_is_cleaned_by_the_time_of_writing(s3_server: Any) -> None:
    place = Place(read_tier("s3://tier/cleaning"), s3_server.variables())
    engine = open_engine(place.address, place.environ)
    await engine.create(object_name("main", ENVIRONMENT, "key-a", 0), packed(artifact(key="key-a")))
    tier = OpenTier(place.address, engine)

    kept = await clean(tier, Rules(older_than_s=DAY), dry_run=False, progress=silent, on_waiting=print)
    gone = await clean(tier, Rules(max_bytes=0), dry_run=False, progress=silent, on_waiting=print)

    assert (kept.removed, gone.removed) == (0, 1)
    assert await contents(engine) == []


# rm


def test_rm_removes_all_artifacts_of_a_key_in_every_environment_and_no_other(root: Path) -> None:
    for slot in range(2):
        put_artifact(root, "key-going", slot)
    put_artifact(root, "key-going", environment=OTHER)
    staying = put_artifact(root, "key-staying")

    told = tier_verb("rm", root, "--json", "--yes", "key-going").json["tiers"][0]

    assert len(told["removed"]) == 3
    assert {root / name for name in names(root)} == {staying}


@pytest.mark.parametrize("name", ["key-go", hashlib.sha256(b"key-going").hexdigest()[:12]])
def test_rm_takes_a_beginning_of_a_key_or_of_its_name_in_the_tier(root: Path, name: str) -> None:
    put_artifact(root, "key-going")
    staying = put_artifact(root, "key-staying")

    assert tier_verb("rm", root, "--yes", name).code == 0

    assert {root / one for one in names(root)} == {staying}


def test_rm_removes_nothing_where_a_name_means_nothing_or_several_keys_or_nobody_can_be_asked(root: Path) -> None:
    put_artifact(root, "key-1")
    put_artifact(root, "key-2")
    before = names(root)
    wrong: Mapping[tuple[str, ...], type[Exception]] = {
        ("--yes", "key-1", "key-3"): NothingNamedError,
        ("--yes", "key-"): AmbiguousNameError,
        ("--yes", ""): AmbiguousNameError,
        ("key-1",): UsageError,
    }

    for arguments, error in wrong.items():
        with pytest.raises(error):
            tier_verb("rm", root, *arguments)

    assert names(root) == before


# status


def test_status_says_how_much_is_there_and_how_a_running_daemon_fares(
    start_daemon: StartDaemon, root: Path, tmp_path: Path
) -> None:
    signing(tmp_path / "d")
    daemon = start_sharing(start_daemon, f"file://{root}")
    put_artifact(root, "key-a")

    said = tier_verb("status", root, "--dir", str(daemon.directory))
    told = tier_verb("status", root, "--dir", str(daemon.directory), "--json").json

    assert "1 artifact of 1 key" in said.words
    assert "a lookup waits" in said.words
    assert told["tiers"][0]["contents"]["artifacts"] == 1
    assert told["daemon"][0]["address"] == f"file://{root}"


def test_status_without_a_daemon_and_of_a_tier_that_is_not_there_says_both(root: Path, tmp_path: Path) -> None:
    said = tier_verb("status", root / "gone", "--dir", str(tmp_path / "d"))

    assert said.code == 1
    assert "there is no directory" in said.words
    assert "no daemon runs" in said.err


def test_every_slot_is_one_that_a_daemon_looks_into(root: Path) -> None:
    inside, outside = put_artifact(root, "key-a", SLOTS - 1), None
    outside = put(root, inside.relative_to(root).with_name(str(SLOTS)).as_posix(), inside.read_bytes())

    told = tier_verb("ls", root, "--json").json["tiers"][0]["objects"]

    assert {one["kind"] for one in told if root / one["name"] == inside} == {"artifact"}
    assert {one["kind"] for one in told if root / one["name"] == outside} == {""}
