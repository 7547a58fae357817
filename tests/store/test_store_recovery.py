from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from compile_wire.digest import digest_of
from compiler_daemon.store import BlobMissingError, Store, StoreDamagedError
from tests.store.store_samples import (
    ENVIRONMENT,
    PROGRAM,
    assert_whole,
    blob_path,
    change_one_byte,
    config,
    found,
    noise,
    put,
    sample,
)

INDEX = "index.sqlite3"
FIELDS = {"python": "3.11", "torch": "2.13"}


def fill(store: Store, count: int = 6) -> None:
    for seed in range(count):
        put(store, sample(seed))
    for seed in range(3):
        store.put_graph(ENVIRONMENT, f"key {seed}", b"graph %d" % (seed % 2), program=PROGRAM)
    store.put_facts(store.put_environment(FIELDS), b"facts")
    store.set_pinned(sample(1).digest, True)


def assert_filled(store: Store, count: int = 6) -> None:
    for seed in range(count):
        assert_whole(store, sample(seed))
    assert found(store) == [sample(seed).digest for seed in reversed(range(count))]
    assert {row.digest for row in store.artifacts() if row.pinned} == {sample(1).digest}
    assert {row.program for row in store.artifacts()} == {PROGRAM}
    assert [(row.key, store.get_graph(row.graph)) for row in store.graphs()] == [
        ("key 2", b"graph 0"),
        ("key 1", b"graph 1"),
        ("key 0", b"graph 0"),
    ]
    (environment,) = store.environments()
    assert store.environments()[environment] == FIELDS
    assert store.get_facts(environment) == b"facts"


def overwrite(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(30_000))


def overwrite_middle(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        for page in range(1, size // 4096):
            file.seek(page * 4096)
            file.write(b"\xa5" * 2000)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 100)


def cut_to_header(path: Path) -> None:
    os.truncate(path, 50)


def another_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=999")
    connection.close()


def another_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE somebody (elses TEXT)")
    connection.close()


def table_lost(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE artifact_blobs")
    connection.close()


def table_overwritten(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'artifact_blobs'").fetchone()
    connection.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)


DAMAGES = [
    overwrite,
    overwrite_middle,
    table_overwritten,
    cut,
    cut_to_header,
    another_version,
    another_database,
    table_lost,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_index_is_set_aside_and_rebuilt_from_the_files(root: Path, damage: Callable[[Path], None]) -> None:
    with Store.open(config(root)) as store:
        fill(store)
    damage(root / INDEX)
    damaged = (root / INDEX).read_bytes()

    with Store.open(config(root)) as store:
        assert_filled(store)
        assert store.scan_report.index_set_aside == f"{INDEX}.damaged-1"
        assert store.scan_report.adopted_artifacts == 6
        assert put(store, sample(100))
    assert (root / f"{INDEX}.damaged-1").read_bytes() == damaged

    with Store.open(config(root)) as store:
        assert_whole(store, sample(100))
        assert store.scan_report.index_set_aside == ""


@pytest.mark.parametrize("file", [f"{INDEX}-wal", f"{INDEX}-shm"])
@pytest.mark.parametrize("whole", [True, False], ids=["all garbage", "garbage at the end"])
def test_garbage_in_the_write_ahead_log_loses_nothing(root: Path, file: str, whole: bool) -> None:
    # The files are copied while the store is open, because closing it would empty the log.
    copy = root.with_name("copy")
    with Store.open(config(root)) as store:
        fill(store)
        os.system(f"cp -a {root} {copy}")
    path = copy / file
    assert path.stat().st_size > 10_000
    with path.open("r+b") as log:
        log.seek(0 if whole else path.stat().st_size // 2)
        log.write(random.Random(1).randbytes(path.stat().st_size))

    with Store.open(config(copy)) as store:
        assert_filled(store)


def test_index_damaged_while_it_is_open_is_said_in_words_and_rebuilt_by_the_next_start(root: Path) -> None:
    with Store.open(config(root)) as store:
        fill(store)
    with Store.open(config(root)) as store:
        overwrite(root / INDEX)

        with pytest.raises(StoreDamagedError, match="restart the daemon"):
            put(store, sample(100))
        assert store.read_blob(sample(1).blob_digests[0]) == sample(1).blobs[0]

    with Store.open(config(root)) as store:
        assert_filled(store)


def test_missing_index_is_made_again(root: Path) -> None:
    with Store.open(config(root)) as store:
        fill(store)
    (root / INDEX).unlink()

    with Store.open(config(root)) as store:
        assert_filled(store)


def test_only_the_newest_damaged_indexes_are_kept(root: Path) -> None:
    for _ in range(6):
        Store.open(config(root)).close()
        overwrite(root / INDEX)
    Store.open(config(root)).close()

    assert {path.name for path in root.glob("*damaged*")} == {f"{INDEX}.damaged-{n}" for n in (4, 5, 6)}


def test_rebuilt_index_knows_compile_times_from_the_manifests(root: Path) -> None:
    with Store.open(config(root)) as store:
        put(store, sample(1))
    (root / INDEX).unlink()

    with Store.open(config(root)) as store:
        assert store.expected_seconds(ENVIRONMENT, "key") == 1.5


def test_start_removes_temporary_files(root: Path) -> None:
    with Store.open(config(root)) as store:
        put(store, sample(1))
    (root / "incoming" / "1234-0").write_bytes(b"half a blob")

    with Store.open(config(root)) as store:
        assert store.scan_report.temporary_files == 1
        assert os.listdir(root / "incoming") == []
        assert_whole(store, sample(1))


def test_start_drops_rows_whose_files_are_missing(root: Path) -> None:
    with Store.open(config(root)) as store:
        fill(store)
    blob_path(root, sample(0).blob_digests[0]).unlink()
    (root / "artifacts" / sample(2).digest[:2] / sample(2).digest).unlink()

    with Store.open(config(root)) as store:
        assert found(store) == [sample(seed).digest for seed in (5, 4, 3, 1)]
        assert (store.scan_report.lost_blobs, store.scan_report.lost_artifacts) == (1, 2)
        assert put(store, sample(0))

    with Store.open(config(root)) as store:
        assert_whole(store, sample(0))


def test_start_quarantines_blobs_of_another_size(root: Path) -> None:
    with Store.open(config(root)) as store:
        fill(store)
    os.truncate(blob_path(root, sample(0).blob_digests[0]), 10)

    with Store.open(config(root)) as store:
        assert sample(0).digest not in found(store)
        assert store.usage().quarantined == 1
        assert len(os.listdir(root / "quarantine")) == 1


def test_record_without_its_blobs_is_not_adopted(root: Path) -> None:
    with Store.open(config(root)) as store:
        fill(store)
    (root / INDEX).unlink()
    blob_path(root, sample(3).blob_digests[1]).unlink()

    with Store.open(config(root)) as store:
        assert [row.digest for row in store.artifacts()] == [sample(seed).digest for seed in (5, 4, 2, 1, 0)]
        assert not (root / "artifacts" / sample(3).digest[:2] / sample(3).digest).exists()


@pytest.mark.parametrize("kind", ["artifacts", "requests", "graphs", "environments", "facts"])
@pytest.mark.parametrize("where", ["middle", "end"])
def test_one_changed_byte_in_any_file_beside_the_blobs_is_never_taken_for_true(
    root: Path, kind: str, where: str
) -> None:
    with Store.open(config(root)) as store:
        fill(store)
        honest = [
            store.find(ENVIRONMENT, "key", limit=9),
            store.environments(),
            store.get_facts(next(iter(store.environments()))),
        ]
    files = [path for path in (root / kind).rglob("*") if path.is_file()]
    for path in files:
        if where == "middle":
            change_one_byte(path)
        else:
            path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    (root / INDEX).unlink()

    with Store.open(config(root)) as store:
        if kind == "artifacts":
            assert found(store) == []
            assert store.usage().quarantined == 6
        else:
            assert store.find(ENVIRONMENT, "key", limit=9) == honest[0]
        assert store.environments() == ({} if kind == "environments" else honest[1])
        if kind == "facts":
            assert store.get_facts(next(iter(store.environments()))) == b""
        for row in store.graphs():
            if kind == "graphs":
                with pytest.raises(BlobMissingError):
                    store.get_graph(row.graph)
            else:
                assert digest_of(store.get_graph(row.graph)) == row.graph
        assert (store.graphs() == []) == (kind in ("requests", "graphs"))


def test_blob_whose_put_was_cut_off_before_the_index_is_adopted(root: Path) -> None:
    data = noise(1)
    Store.open(config(root)).close()
    path = blob_path(root, digest_of(data))
    path.parent.mkdir(mode=0o700)
    path.write_bytes(data)
    (root / "blobs" / "README").write_text("not ours")

    with Store.open(config(root)) as store:
        assert store.scan_report.adopted_blobs == 1
        assert store.read_blob(digest_of(data)) == data
        assert store.usage().bytes == len(data)
