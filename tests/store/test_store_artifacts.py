from __future__ import annotations

import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from compile_wire.digest import digest_of
from compile_wire.errors import MalformedError
from compile_wire.manifest import BlobRef, Manifest, encode_manifest
from compiler_daemon.store import BlobDamagedError, BlobMissingError, Store
from tests.store.store_samples import (
    ENVIRONMENT,
    PROGRAM,
    SIGNATURE,
    assert_whole,
    blob_path,
    change_one_byte,
    config,
    found,
    noise,
    put,
    sample,
    sample_of,
)


def test_artifact_is_found_by_environment_and_key(store: Store) -> None:
    item = sample(1)

    assert put(store, item)

    assert_whole(store, item)
    assert found(store, key="another") == []
    assert found(store, environment=digest_of(b"another")) == []


def test_putting_the_same_artifact_again_is_not_new(store: Store) -> None:
    put(store, sample(1))

    assert not put(store, sample(1))
    assert len(store.artifacts()) == 1


def test_artifact_without_all_blobs_is_refused_naming_those_missing(store: Store) -> None:
    item = sample(1, blobs=3)
    store.put_blob(item.blob_digests[1], item.blobs[1])

    with pytest.raises(BlobMissingError) as caught:
        store.put_artifact(item.manifest, SIGNATURE, program=PROGRAM)

    assert caught.value.digests == (item.blob_digests[0], item.blob_digests[2])
    assert found(store) == []


def test_manifest_that_lies_about_a_size_is_refused(store: Store) -> None:
    data = noise(1)
    store.put_blob(digest_of(data), data)
    ref = BlobRef(role="entry", name="", sha256=digest_of(data), size=len(data) + 1)
    lie = Manifest(
        key="key", environment=ENVIRONMENT, guards="", graph="", compile_s=1.0, origin="worker", blobs=(ref,)
    )

    with pytest.raises(MalformedError):
        store.put_artifact(encode_manifest(lie), SIGNATURE, program=PROGRAM)

    assert found(store) == []


@pytest.mark.parametrize("manifest", [b"", b"not a manifest", b"\x80"])
def test_bytes_that_are_no_manifest_are_refused(store: Store, manifest: bytes) -> None:
    with pytest.raises(MalformedError):
        store.put_artifact(manifest, SIGNATURE, program=PROGRAM)


def test_overlong_signature_and_program_are_refused(store: Store) -> None:
    with pytest.raises(MalformedError):
        put(store, sample(1), signature=b"s" * 5000)
    with pytest.raises(MalformedError):
        store.put_artifact(sample(1).manifest, SIGNATURE, program="p" * 5000)


def test_several_artifacts_of_a_key_come_newest_first_within_the_limit(store: Store) -> None:
    items = [sample(seed) for seed in range(5)]
    for item in items:
        put(store, item)

    newest_first = [item.digest for item in reversed(items)]

    assert found(store) == newest_first
    assert found(store, limit=2) == newest_first[:2]
    assert found(store, limit=0) == []


def test_excluded_artifacts_do_not_count_against_the_limit(store: Store) -> None:
    items = [sample(seed) for seed in range(3)]
    for item in items:
        put(store, item)

    answer = store.find(ENVIRONMENT, "key", exclude={items[2].digest}, limit=1)

    assert [artifact.digest for artifact in answer] == [items[1].digest]


def test_two_names_for_the_same_bytes_are_one_blob(store: Store) -> None:
    same = noise(1)
    item = sample_of([noise(2), same, same])

    put(store, item)

    assert_whole(store, item)
    assert store.usage().blobs == 2


def test_artifact_with_a_damaged_blob_is_a_miss_once_the_damage_is_seen(store: Store, root: Path) -> None:
    item, other = sample(1), sample(2)
    put(store, item)
    put(store, other)
    change_one_byte(blob_path(root, item.blob_digests[1]))

    with pytest.raises(BlobDamagedError):
        store.read_blob(item.blob_digests[1])

    assert found(store) == [other.digest]
    assert [row.digest for row in store.artifacts()] == [other.digest]


@pytest.mark.parametrize("how", ["gone", "cut short"])
def test_artifact_with_a_missing_or_short_file_is_never_returned(store: Store, root: Path, how: str) -> None:
    item, other = sample(1), sample(2)
    put(store, item)
    put(store, other)
    path = blob_path(root, item.blob_digests[0])
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(item.blobs[0][:-1])

    assert found(store) == [other.digest]
    assert store.usage().quarantined == (how == "cut short")
    assert put(store, item)
    assert_whole(store, item)


def test_all_artifacts_that_share_a_damaged_blob_are_misses(store: Store, root: Path) -> None:
    shared = noise(1)
    first, second = sample_of([noise(2), shared]), sample_of([noise(3), shared])
    put(store, first)
    put(store, second)
    change_one_byte(blob_path(root, digest_of(shared)))

    with pytest.raises(BlobDamagedError):
        list(store.iter_blob(digest_of(shared), 100))

    assert found(store) == []
    assert store.read_blob(first.blob_digests[0]) == first.blobs[0]


def test_changed_manifest_in_the_index_is_a_miss_and_then_read_from_the_record_again(store: Store, root: Path) -> None:
    item = sample(1)
    put(store, item)
    with sqlite3.connect(root / "index.sqlite3") as other:
        other.execute("UPDATE artifacts SET manifest = ?", (sample(2).manifest,))
    other.close()

    assert found(store) == []
    assert_whole(store, item)


def test_changed_size_in_the_index_is_a_miss_and_then_put_right(store: Store, root: Path) -> None:
    item = sample(1)
    put(store, item)
    with sqlite3.connect(root / "index.sqlite3") as other:
        other.execute("UPDATE blobs SET bytes = 7")
    other.close()

    assert found(store) == []
    assert_whole(store, item)
    assert store.usage().quarantined == 0


def test_lookups_stamp_the_last_use_and_hits_are_counted_apart(root: Path) -> None:
    item = sample(1)
    with Store.open(config(root)) as store:
        put(store, item)
        (before,) = store.artifacts()
        for _ in range(3):
            found(store)
            store.note_hit(item.digest)
        (after,) = store.artifacts()
        found(store)

    with Store.open(config(root)) as store:
        (reopened,) = store.artifacts()

    assert (before.hits, after.hits, reopened.hits) == (0, 3, 3)
    assert before.used < after.used < reopened.used
    assert before.created == reopened.created


def test_listing_says_what_an_artifact_is(store: Store) -> None:
    item = sample(1, key="some key")
    put(store, item)

    (row,) = store.artifacts(environment=ENVIRONMENT)

    assert (row.digest, row.environment, row.key) == (item.digest, ENVIRONMENT, "some key")
    assert (row.bytes, row.compile_s, row.origin, row.program) == (2000, 1.5, "worker", PROGRAM)
    assert (row.hits, row.pinned) == (0, False)
    assert store.artifacts(environment=digest_of(b"another")) == []


def test_removed_artifact_is_gone_after_a_restart_too(root: Path) -> None:
    item = sample(1)
    with Store.open(config(root)) as store:
        put(store, item)

        assert store.remove(item.digest)
        assert not store.remove(item.digest)
        assert found(store) == []

    with Store.open(config(root)) as store:
        assert found(store) == []


def test_new_signature_replaces_the_old_one_and_keeps_the_pin(root: Path) -> None:
    item = sample(1)
    with Store.open(config(root)) as store:
        put(store, item, signature=b"old")
        store.set_pinned(item.digest, True)

        assert not put(store, item, signature=SIGNATURE)

    shutil.copy(root / "index.sqlite3", root / "spare")
    (root / "index.sqlite3").unlink()
    with Store.open(config(root)) as store:
        assert_whole(store, item)
        assert store.artifacts()[0].pinned


def test_pinning_what_is_not_stored_is_an_error(store: Store) -> None:
    with pytest.raises(BlobMissingError):
        store.set_pinned(digest_of(b"nothing"), True)


def test_many_threads_may_use_a_store_at_once(store: Store) -> None:
    shared = noise(1)
    items = [sample_of([noise(100 + number), shared], key=f"key {number % 3}") for number in range(24)]
    trouble: list[BaseException] = []

    def work(mine: int) -> None:
        try:
            for number in range(mine, len(items), 4):
                put(store, items[number])
                put(store, items[(number + 1) % len(items)])
                assert_whole(store, items[number], key=f"key {number % 3}")
                store.collect()
        except BaseException as error:  # noqa: BLE001  # handed to the test's own thread
            trouble.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not trouble
    assert store.usage().artifacts == len(items)
    assert store.usage().blobs == len(items) + 1
