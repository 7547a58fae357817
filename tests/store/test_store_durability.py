"""The order in which things reach the disk. No test can cut the power, but it can watch the order of the calls."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from compile_wire.digest import digest_of
from compiler_daemon.store import Store
from tests.store.store_samples import ENVIRONMENT, PROGRAM, SIGNATURE, noise, put, sample

Event = tuple[str, str]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch, root: Path) -> list[Event]:
    """Record every fsync and rename as it happens; the calls themselves are made, too."""
    seen: list[Event] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(handle: int) -> None:
        fsync(handle)
        path = Path(f"/proc/self/fd/{handle}").readlink().relative_to(root)
        seen.append(("fsync", path.parts[0] if path.parts[0] == "incoming" else str(path)))

    def watched_replace(source: str | Path, target: str | Path) -> None:
        replace(source, target)
        seen.append(("rename", str(Path(target).relative_to(root))))

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    return seen


def way_of(kind: str, name: str, *, new_folder: bool) -> list[Event]:
    folder = f"{kind}/{name[:2]}"
    return [
        ("fsync", "incoming"),
        *([("fsync", kind)] if new_folder else []),
        ("rename", f"{folder}/{name}"),
        ("fsync", folder),
    ]


def test_blob_is_synced_then_renamed_then_its_folder_synced(store: Store, events: list[Event]) -> None:
    data = noise(1)
    store.put_blob(digest_of(data), data)

    assert events == way_of("blobs", digest_of(data), new_folder=True)


def test_record_of_an_artifact_goes_the_same_way_after_its_blobs(store: Store, events: list[Event]) -> None:
    item = sample(1)
    put(store, item)

    assert events[-4:] == way_of("artifacts", item.digest, new_folder=True)
    assert {target for what, target in events[:-4] if what == "rename"} == {
        f"blobs/{digest[:2]}/{digest}" for digest in item.blob_digests
    }


def test_graph_reaches_the_disk_before_the_request_that_names_it(store: Store, events: list[Event]) -> None:
    graph = store.put_graph(ENVIRONMENT, "key", b"graph", program=PROGRAM)

    assert events[:4] == way_of("graphs", graph, new_folder=True)
    assert [what for what, _ in events[4:]] == ["fsync", "fsync", "rename", "fsync"]
    assert events[-1][1].startswith("requests/")


def test_known_folder_is_not_synced_again_and_known_data_not_at_all(store: Store, events: list[Event]) -> None:
    item = sample(1)
    put(store, item)
    store.set_pinned(item.digest, True)
    assert events[-3:] == way_of("artifacts", item.digest, new_folder=False)
    events.clear()

    put(store, item)

    assert events == []


def test_lookups_and_reads_write_nothing_to_the_disk(store: Store, events: list[Event]) -> None:
    item = sample(1)
    put(store, item)
    events.clear()

    for _ in range(100):
        (artifact,) = store.find(ENVIRONMENT, "key", limit=1)
        for blob in artifact.blobs:
            store.read_blob(blob)

    assert events == []
    assert artifact.signature == SIGNATURE


def test_removal_that_returned_is_on_the_disk(store: Store, events: list[Event]) -> None:
    item = sample(1)
    put(store, item)
    events.clear()

    store.remove(item.digest)

    assert events == [("fsync", f"artifacts/{item.digest[:2]}")]
