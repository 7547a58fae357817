from __future__ import annotations

import os
from pathlib import Path

import pytest

from compile_wire.digest import Digest, digest_of
from compile_wire.errors import DigestError, MalformedError
from compile_wire.limits import MAX_BLOB_BYTES
from compiler_daemon.store import BlobDamagedError, BlobMissingError, Store
from tests.store.store_samples import blob_path, change_one_byte, config, noise

DATA = noise(1, 100_000)
NAME = digest_of(DATA)
ABSENT = digest_of(b"never stored")


def incoming(root: Path) -> list[str]:
    return os.listdir(root / "incoming")


def test_blob_is_read_back_as_it_was_put(store: Store) -> None:
    assert store.put_blob(NAME, DATA)

    assert store.read_blob(NAME) == DATA
    assert b"".join(store.iter_blob(NAME, 4096)) == DATA
    assert store.has_blob(NAME)


def test_second_put_of_the_same_blob_is_not_new(store: Store) -> None:
    store.put_blob(NAME, DATA)

    assert not store.put_blob(NAME, DATA)


def test_empty_blob_is_a_blob(store: Store) -> None:
    assert store.put_blob(digest_of(b""), b"")

    assert store.read_blob(digest_of(b"")) == b""
    assert list(store.iter_blob(digest_of(b""), 10)) == []


def test_blob_survives_reopening(root: Path) -> None:
    with Store.open(config(root)) as first:
        first.put_blob(NAME, DATA)

    with Store.open(config(root)) as second:
        assert second.read_blob(NAME) == DATA


def test_bytes_that_do_not_match_their_digest_are_refused_and_leave_nothing(store: Store, root: Path) -> None:
    with pytest.raises(DigestError):
        store.put_blob(NAME, DATA + b"!")

    assert not store.has_blob(NAME)
    assert incoming(root) == []


def test_wrong_bytes_are_refused_for_a_stored_digest_too(store: Store) -> None:
    store.put_blob(NAME, DATA)

    with pytest.raises(DigestError):
        store.put_blob(NAME, DATA[:-1] + b"!")
    assert store.read_blob(NAME) == DATA


def test_missing_blobs_are_named_once_and_in_order(store: Store) -> None:
    store.put_blob(NAME, DATA)
    other = digest_of(b"other")

    assert store.missing_blobs([other, NAME, ABSENT, other]) == [other, ABSENT]


def test_reading_an_unknown_blob_is_a_miss(store: Store) -> None:
    with pytest.raises(BlobMissingError) as caught:
        store.read_blob(ABSENT)
    with pytest.raises(BlobMissingError):
        list(store.iter_blob(ABSENT, 10))

    assert not isinstance(caught.value, BlobDamagedError)
    assert store.usage().quarantined == 0


def test_written_chunks_become_visible_only_at_commit(store: Store) -> None:
    with store.blob_writer(NAME, len(DATA)) as writer:
        writer.write(DATA[:5000])
        writer.write(DATA[5000:])
        before = store.has_blob(NAME)
        new = writer.commit()

    assert (before, new) == (False, True)
    assert store.read_blob(NAME) == DATA


def test_leaving_a_writer_without_commit_removes_what_was_written(store: Store, root: Path) -> None:
    with store.blob_writer(NAME, len(DATA)) as writer:
        writer.write(DATA)

    assert not store.has_blob(NAME)
    assert incoming(root) == []
    assert store.usage().bytes == 0


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
def test_writer_refuses_another_size_than_announced(store: Store, root: Path, size: int) -> None:
    def write_all() -> None:
        with store.blob_writer(NAME, size) as writer:
            writer.write(DATA)
            writer.commit()

    with pytest.raises(DigestError):
        write_all()

    assert not store.has_blob(NAME)
    assert incoming(root) == []


def test_writer_refuses_other_bytes_of_the_announced_size(store: Store, root: Path) -> None:
    with store.blob_writer(NAME, len(DATA)) as writer:
        writer.write(DATA[:-1] + b"!")
        with pytest.raises(DigestError):
            writer.commit()

    assert not store.has_blob(NAME)
    assert incoming(root) == []


@pytest.mark.parametrize("size", [-1, MAX_BLOB_BYTES + 1])
def test_writer_refuses_sizes_out_of_bounds(store: Store, size: int) -> None:
    with pytest.raises(MalformedError):
        store.blob_writer(NAME, size)


def test_two_writers_of_one_blob_both_succeed(store: Store) -> None:
    with store.blob_writer(NAME, len(DATA)) as first, store.blob_writer(NAME, len(DATA)) as second:
        first.write(DATA)
        second.write(DATA)
        answers = [first.commit(), second.commit()]

    assert answers == [True, False]
    assert store.read_blob(NAME) == DATA
    assert store.usage().bytes == len(DATA)


@pytest.mark.parametrize("how", ["one byte", "cut short", "emptied"])
def test_damaged_blob_is_quarantined_and_then_a_plain_miss(store: Store, root: Path, how: str) -> None:
    store.put_blob(NAME, DATA)
    path = blob_path(root, NAME)
    if how == "one byte":
        change_one_byte(path)
    else:
        os.truncate(path, 500 if how == "cut short" else 0)
    wrong = path.read_bytes()

    with pytest.raises(BlobDamagedError):
        store.read_blob(NAME)

    assert [file.read_bytes() for file in (root / "quarantine").iterdir()] == [wrong]
    assert store.usage().quarantined == 1
    assert not store.has_blob(NAME)
    with pytest.raises(BlobMissingError) as caught:
        store.read_blob(NAME)
    assert not isinstance(caught.value, BlobDamagedError)


def test_damaged_blob_can_be_put_again(store: Store, root: Path) -> None:
    store.put_blob(NAME, DATA)
    change_one_byte(blob_path(root, NAME))
    with pytest.raises(BlobDamagedError):
        store.read_blob(NAME)

    assert store.put_blob(NAME, DATA)
    assert store.read_blob(NAME) == DATA


@pytest.mark.parametrize("chunk_bytes", [1000, 99_999, 100_000, 1_000_000])
def test_damaged_blob_never_streams_to_its_end(store: Store, root: Path, chunk_bytes: int) -> None:
    store.put_blob(NAME, DATA)
    change_one_byte(blob_path(root, NAME))
    received = []

    with pytest.raises(BlobDamagedError):
        received.extend(store.iter_blob(NAME, chunk_bytes))

    assert sum(map(len, received)) < len(DATA)
    assert store.usage().quarantined == 1


def test_stream_can_be_left_in_the_middle(store: Store) -> None:
    store.put_blob(NAME, DATA)

    chunks = store.iter_blob(NAME, 1000)

    assert next(chunks) == DATA[:1000]
    del chunks  # an open file would cause a warning, and warnings are errors here


def test_removed_file_is_a_miss_and_counts_no_quarantine(store: Store, root: Path) -> None:
    store.put_blob(NAME, DATA)
    blob_path(root, NAME).unlink()

    assert not store.has_blob(NAME)
    with pytest.raises(BlobMissingError):
        store.read_blob(NAME)

    assert (store.usage().blobs, store.usage().bytes, store.usage().quarantined) == (0, 0, 0)
    assert store.put_blob(NAME, DATA)


def test_quarantine_is_bounded(root: Path) -> None:
    with Store.open(config(root, max_quarantine_bytes=250_000)) as store:
        for seed in range(5):
            data = noise(seed, 100_000)
            store.put_blob(digest_of(data), data)
            change_one_byte(blob_path(root, digest_of(data)))
            with pytest.raises(BlobDamagedError):
                store.read_blob(digest_of(data))

        assert len(list((root / "quarantine").iterdir())) == 2
        assert store.usage().quarantined == 5


def test_files_and_folders_are_closed_to_others(store: Store, root: Path) -> None:
    store.put_blob(NAME, DATA)

    for path in [root, *root.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_stored_files_are_named_by_digests_alone(store: Store, root: Path) -> None:
    store.put_blob(NAME, DATA)
    store.put_graph(ABSENT, "../../key", b"graph", program="/../program")

    names = {path.name for path in root.rglob("*") if path.is_file() and path.parent != root}

    assert all(len(name) == 64 and set(name) <= set("0123456789abcdef") for name in names)
    assert Digest(NAME) in names
