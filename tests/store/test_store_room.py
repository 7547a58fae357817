from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from compile_wire.digest import digest_of
from compiler_daemon.store import Store, StoreConfig, StoreError, StoreFullError
from tests.store.store_samples import ENVIRONMENT, assert_whole, blob_path, config, found, noise, put, sample, sample_of


def test_full_store_evicts_the_least_recently_used(root: Path) -> None:
    items = [sample(seed, key=f"key {seed}", size=5000) for seed in range(4)]
    with Store.open(config(root, max_bytes=45_000, low_water=1.0)) as store:
        for item in items:
            put(store, item)
        for seed in (0, 3, 1):
            found(store, key=f"key {seed}")

        put(store, sample(9, key="key 9", size=5000))

        assert [seed for seed in (0, 1, 2, 3, 9) if found(store, key=f"key {seed}")] == [0, 1, 3, 9]


def test_hard_limit_is_never_passed_on_disk(root: Path) -> None:
    limit = 60_000
    with Store.open(config(root, max_bytes=limit)) as store:
        for seed in range(30):
            put(store, sample(seed, size=5000))
            files = [path for kind in ("blobs", "artifacts") for path in (root / kind).rglob("*") if path.is_file()]
            on_disk = sum(path.stat().st_size for path in files)
            assert on_disk == store.usage().bytes <= limit

        assert 2 <= len(found(store)) <= 5


def test_put_larger_than_the_store_is_refused_and_evicts_nothing(root: Path) -> None:
    with Store.open(config(root, max_bytes=20_000)) as store:
        put(store, sample(1))
        huge = noise(5, 20_001)

        with pytest.raises(StoreFullError):
            store.put_blob(digest_of(huge), huge)

        assert_whole(store, sample(1))
        assert os.listdir(root / "incoming") == []


def test_put_that_eviction_cannot_make_room_for_leaves_everything_as_it_was(root: Path) -> None:
    with Store.open(config(root, max_bytes=30_000)) as store:
        put(store, sample(1, size=5000))
        put(store, sample(2, size=5000))
        store.set_pinned(sample(1, size=5000).digest, True)
        before = store.usage()
        blob = noise(7, 25_000)

        with pytest.raises(StoreFullError, match="raise the store's limit"):
            store.put_blob(digest_of(blob), blob)

        assert store.usage() == before
        assert_whole(store, sample(1, size=5000))
        assert_whole(store, sample(2, size=5000))
        assert os.listdir(root / "incoming") == []


def test_stored_blob_can_be_put_again_into_a_full_store(root: Path) -> None:
    with Store.open(config(root, max_bytes=10_000)) as store:
        data = noise(1, 9_900)
        store.put_blob(digest_of(data), data)

        assert not store.put_blob(digest_of(data), data)


def test_room_is_taken_when_a_writer_begins(root: Path) -> None:
    first, second = noise(1, 6000), noise(2, 6000)
    with Store.open(config(root, max_bytes=10_000)) as store:
        with store.blob_writer(digest_of(first), 6000), pytest.raises(StoreFullError):
            store.put_blob(digest_of(second), second)

        assert store.put_blob(digest_of(second), second)


def test_user_pins_keep_artifacts_from_eviction_also_after_a_restart(root: Path) -> None:
    limits = config(root, max_bytes=45_000)
    with Store.open(limits) as store:
        put(store, sample(1, size=5000))
        store.set_pinned(sample(1, size=5000).digest, True)
    (root / "index.sqlite3").write_bytes(b"garbage, so that the pin has to come from the record")

    with Store.open(limits) as store:
        for seed in range(2, 12):
            put(store, sample(seed, size=5000))
        assert_whole(store, sample(1, size=5000))

        store.set_pinned(sample(1, size=5000).digest, False)
        store.find(ENVIRONMENT, "key", exclude={sample(1, size=5000).digest}, limit=99)
        for seed in range(12, 22):
            put(store, sample(seed, size=5000))
        assert sample(1, size=5000).digest not in found(store)


def test_blobs_that_a_client_reads_are_not_evicted_meanwhile(root: Path) -> None:
    item = sample(1, size=5000)
    with Store.open(config(root, max_bytes=45_000)) as store:
        put(store, item)
        with store.pin([item.blob_digests[1]]):
            with store.pin([item.blob_digests[1]]):
                pass
            for seed in range(2, 12):
                put(store, sample(seed, size=5000))
            assert store.read_blob(item.blob_digests[1]) == item.blobs[1]

        for seed in range(12, 22):
            put(store, sample(seed, size=5000))
        assert not store.has_blob(item.blob_digests[1])


def test_live_readers_never_lose_what_they_have_found(root: Path) -> None:
    done = threading.Event()
    trouble: list[BaseException] = []
    reads = 0

    def read() -> None:
        nonlocal reads
        while not done.is_set():
            try:
                for artifact in store.find(ENVIRONMENT, "key", limit=4):
                    with store.pin(artifact.blobs):
                        for blob in artifact.blobs:
                            store.read_blob(blob)
                            reads += 1
                time.sleep(0.001)
            except StoreError as error:  # the test's own thread raises it
                trouble.append(error)

    with Store.open(config(root, max_bytes=200_000, low_water=0.5, grace_s=0.2)) as store:
        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        evicted = full = 0
        for seed in range(60):
            try:
                put(store, sample(seed, size=5000))
            except StoreFullError:
                full += 1
                time.sleep(0.05)
            evicted = seed + 1 - full - store.usage().artifacts
        done.set()
        for reader in readers:
            reader.join()

    assert not trouble
    assert evicted > 20
    assert reads > 20


def test_entry_read_a_moment_ago_is_not_evicted(root: Path) -> None:
    with Store.open(config(root, max_bytes=25_000, grace_s=0.3)) as store:
        put(store, sample(1, size=5000))
        put(store, sample(2, size=5000))
        blob = noise(9, 10_000)

        with pytest.raises(StoreFullError):
            store.put_blob(digest_of(blob), blob)
        time.sleep(0.4)
        store.read_blob(sample(1, size=5000).blob_digests[0])
        store.put_blob(digest_of(blob), blob)

        assert found(store) == [sample(1, size=5000).digest]


def test_shared_blob_stays_until_its_last_artifact_goes(root: Path) -> None:
    shared = noise(1, 5000)
    first, second = sample_of([noise(2), shared]), sample_of([noise(3), shared])
    with Store.open(config(root, max_age_s=3600.0, orphan_grace_s=0.0)) as store:
        put(store, first)
        put(store, second)

        store.remove(first.digest)
        report = store.collect()

        assert (report.artifacts, report.blobs, report.orphans) == (0, 1, 1)
        assert_whole(store, second)

        store.remove(second.digest)
        store.collect()
        assert store.usage().bytes == 0
        assert not blob_path(root, digest_of(shared)).exists()


def test_eviction_of_one_artifact_leaves_the_blobs_that_another_has(root: Path) -> None:
    shared = noise(1, 5000)
    first = sample_of([noise(2), shared], key="old")
    second, third = sample_of([noise(3), shared], key="used"), sample_of([noise(4), shared], key="used")
    with Store.open(config(root, max_age_s=0.4)) as store:
        for item in (first, second, third):
            put(store, item)
        time.sleep(0.5)
        found(store, key="used")

        report = store.collect()

        assert (report.artifacts, report.blobs) == (1, 1)
        assert_whole(store, second, key="used")

        time.sleep(0.5)
        report = store.collect()
        assert (report.artifacts, report.blobs) == (2, 3)
        assert store.usage().bytes == 0


def test_collect_removes_what_nobody_has_used_for_long(root: Path) -> None:
    with Store.open(config(root, max_age_s=0.5)) as store:
        put(store, sample(1, key="old"))
        put(store, sample(2, key="used"))
        time.sleep(0.6)
        found(store, key="used")

        report = store.collect()

        assert (report.artifacts, report.expired, report.blobs) == (1, 1, 2)
        assert (found(store, key="old"), len(found(store, key="used"))) == ([], 1)


def test_collect_goes_down_to_the_low_water_mark_and_no_further(root: Path) -> None:
    with Store.open(config(root, max_bytes=100_000, low_water=0.5)) as store:
        for seed in range(9):
            put(store, sample(seed, size=5000))

        report = store.collect()

        used = store.usage().bytes
        assert report.bytes > 0
        assert 50_000 - 11_000 < used <= 50_000
        assert store.collect().artifacts == 0


def test_dry_run_foretells_the_collection_and_removes_nothing(root: Path) -> None:
    with Store.open(config(root, max_bytes=100_000, low_water=0.5)) as store:
        for seed in range(9):
            put(store, sample(seed, size=5000))
        before = store.usage()

        foretold = store.collect(dry_run=True)

        assert store.usage() == before
        done = store.collect()
        assert foretold.dry_run
        assert not done.dry_run
        assert (foretold.artifacts, foretold.blobs, foretold.bytes) == (done.artifacts, done.blobs, done.bytes)
        assert before.bytes - store.usage().bytes == done.bytes


def test_orphans_go_only_after_the_uploader_had_its_time(root: Path) -> None:
    data = noise(1)
    with Store.open(config(root, orphan_grace_s=0.4)) as store:
        store.put_blob(digest_of(data), data)
        assert store.collect().orphans == 0
        time.sleep(0.3)
        assert store.missing_blobs([digest_of(data)]) == []  # an uploader asks this, and relies on the answer
        time.sleep(0.2)
        assert store.collect().orphans == 0
        time.sleep(0.3)

        assert store.collect().orphans == 1
        assert not store.has_blob(digest_of(data))


def test_orphans_that_a_killed_daemon_left_do_not_fill_the_store(root: Path) -> None:
    left, asked_for, new = noise(1, 4000), noise(2, 4000), noise(3, 4000)
    with Store.open(config(root, max_bytes=10_000)) as store:
        store.put_blob(digest_of(left), left)
        store.put_blob(digest_of(asked_for), asked_for)

    with Store.open(config(root, max_bytes=10_000)) as store:
        assert store.collect().orphans == 0
        assert store.has_blob(digest_of(asked_for))
        store.put_blob(digest_of(new), new)

        assert store.missing_blobs(map(digest_of, (left, asked_for, new))) == [digest_of(left)]


def test_clock_set_back_does_not_keep_entries_for_ever(root: Path) -> None:
    data = noise(1)
    with Store.open(config(root, orphan_grace_s=0.1)) as store:
        store.put_blob(digest_of(data), data)
    future = time.time() + 1e6
    os.utime(blob_path(root, digest_of(data)), (future, future))
    (root / "index.sqlite3").unlink()

    with Store.open(config(root, orphan_grace_s=0.1)) as store:
        time.sleep(0.2)

        assert store.collect().orphans == 1


def test_clock_set_back_while_the_store_is_open_is_put_right_by_a_collection(root: Path) -> None:
    data = noise(1)
    with Store.open(config(root, orphan_grace_s=0.1)) as store:
        store.put_blob(digest_of(data), data)
        with sqlite3.connect(root / "index.sqlite3") as other:
            other.execute("UPDATE blobs SET created = created + 1e6")
        other.close()

        store.collect()
        time.sleep(0.2)

        assert store.collect().orphans == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_bytes": 0},
        {"grace_s": -1.0},
        {"low_water": 0.0},
        {"low_water": 1.5},
        {"max_age_s": 0.0},
        {"grace_s": float("nan")},
    ],
)
def test_senseless_limits_are_refused(tmp_path: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StoreConfig(root=tmp_path, **wrong)  # type: ignore[arg-type]  # each case is one field
