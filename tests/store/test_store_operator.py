"""The store as an operator uses it: one artifact at a time, and a collection with limits of its own."""

from __future__ import annotations

from pathlib import Path

from compile_wire.digest import digest_of
from compiler_daemon.store import Store
from tests.store.store_samples import ENVIRONMENT, PROGRAM, config, found, put, sample


def test_an_artifact_is_had_by_its_digest_and_not_stamped_as_used(root: Path) -> None:
    with Store.open(config(root)) as store:
        put(store, sample(1))
        stored = store.artifact(sample(1).digest)
        assert stored is not None
        assert (stored.manifest, sorted(stored.blobs)) == (sample(1).manifest, sorted(sample(1).blob_digests))
        assert [row.hits for row in store.artifacts()] == [0]
        assert store.artifact(digest_of(b"nothing")) is None


def test_an_artifact_that_lacks_a_blob_is_none(root: Path) -> None:
    with Store.open(config(root)) as store:
        put(store, sample(1))
        (root / "blobs" / sample(1).blob_digests[0][:2] / sample(1).blob_digests[0]).unlink()
        assert store.artifact(sample(1).digest) is None
        assert found(store) == []


def test_lists_are_narrowed_by_digest_environment_and_key(root: Path) -> None:
    other = digest_of(b"another environment")
    with Store.open(config(root)) as store:
        for seed in (1, 2):
            put(store, sample(seed, key=f"key {seed}"))
        assert [row.key for row in store.artifacts(digest=sample(2, key="key 2").digest)] == ["key 2"]
        assert store.artifacts(digest=sample(2, key="key 2").digest, environment=other) == []
        for environment, key in ((ENVIRONMENT, "a"), (ENVIRONMENT, "b"), (other, "a")):
            store.put_graph(environment, key, f"{environment} {key}".encode(), program=PROGRAM)
        assert len(store.graphs(key="a")) == 2
        assert [(one.environment, one.key) for one in store.graphs(environment=other, key="a")] == [(other, "a")]
        assert store.graphs(environment=other, key="b") == []


def test_a_collection_goes_down_to_the_size_it_is_told(root: Path) -> None:
    with Store.open(config(root, max_bytes=100_000)) as store:
        for seed in range(4):
            put(store, sample(seed, key=f"key {seed}", size=5000))
        for seed in (1, 0):
            found(store, key=f"key {seed}")
        would = store.collect(dry_run=True, max_bytes=25_000)
        assert would.gone == (sample(2, key="key 2", size=5000).digest, sample(3, key="key 3", size=5000).digest)
        assert store.usage().artifacts == 4
        did = store.collect(max_bytes=25_000)
        assert (did.gone, did.bytes, did.dry_run) == (would.gone, would.bytes, False)
        assert store.usage().bytes <= 25_000
        assert len(store.collect(max_bytes=0).gone) == 2
        assert store.usage().bytes == 0


def test_a_collection_removes_what_is_older_than_it_is_told(root: Path) -> None:
    with Store.open(config(root)) as store:
        put(store, sample(1))
        assert store.collect(max_age_s=3600).artifacts == 0
        did = store.collect(max_age_s=1e-9)
        assert (did.artifacts, did.expired, did.gone) == (1, 1, (sample(1).digest,))
