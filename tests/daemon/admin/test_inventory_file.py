"""The format of bundles: what is refused whoever signed it, and what reading and writing costs."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compile_wire.digest import Digest, digest_of
from compile_wire.manifest import manifest_digest
from compile_wire.packing import pack, unpack
from compile_wire.signature import sign_bundle
from compiler_daemon.admin.bundle import Bundle, BundleWriter, Packed, Request, read_graphs
from compiler_daemon.admin.bundle.import_ import Importer
from compiler_daemon.errors import BundleError
from tests.daemon.daemon_process import ENVIRONMENT, FIELDS, manifest_of

SECRET = b"s" * 32
OTHER = b"t" * 32
MANIFEST = manifest_of("key", b"entry", b"object")
GRAPH = b"a graph"


def written(path: Path, *, secret: bytes = SECRET) -> Path:
    with BundleWriter(path, kind="artifacts", made_by="test", secret=secret) as writer:
        writer.add_environment(FIELDS)
        for data in (b"entry", b"object", MANIFEST, GRAPH):
            writer.add_item(digest_of(data), [data[:2], data[2:]])
        writer.add_artifact(Packed(manifest=manifest_digest(MANIFEST), environment=ENVIRONMENT, program="p"))
        writer.add_request(Request(environment=ENVIRONMENT, key="key", graph=digest_of(GRAPH), program="p"))
        writer.finish()
    return path


def read(path: Path) -> None:
    with Bundle.open(path, kind="artifacts") as bundle:
        # The importer checks this much before it speaks to the daemon.
        Importer(None, bundle, secret=SECRET)  # type: ignore[arg-type]  # nothing may be asked yet


def forged(path: Path, change: Callable[[dict[str, Any]], object], *, secret: bytes = SECRET) -> Path:
    """Return a bundle whose index was changed and then signed again by somebody who knows the secret."""
    data = written(path).read_bytes()
    length = int.from_bytes(data[-16:-8], "big")
    begin = len(data) - 49 - length
    index = unpack(data[begin : begin + length], max_bytes=10**6, what="index")
    change(index)
    raw = pack(index)
    path.write_bytes(data[:begin] + raw + sign_bundle(secret, index=raw) + len(raw).to_bytes(8, "big") + data[-8:])
    return path


def test_what_was_written_is_read(tmp_path: Path):
    path = written(tmp_path / "b")
    read(path)
    with Bundle.open(path, kind="artifacts") as bundle:
        assert bundle.index.environments == {ENVIRONMENT: FIELDS}
        assert [bundle.read(one.manifest, max_bytes=10**6) for one in bundle.index.artifacts] == [MANIFEST]
        assert [one.graph for one in bundle.index.requests] == [digest_of(GRAPH)]
    assert [left.name for left in tmp_path.iterdir()] == ["b"]


def test_every_changed_byte_is_noticed(tmp_path: Path):
    sound = written(tmp_path / "b").read_bytes()
    path = tmp_path / "changed"
    for place in range(len(sound)):
        data = bytearray(sound)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        with pytest.raises(BundleError):
            read(path)


def test_every_cut_and_every_addition_is_noticed(tmp_path: Path):
    sound = written(tmp_path / "b").read_bytes()
    path = tmp_path / "cut"
    for data in [*(sound[:end] for end in range(len(sound))), sound + b"\0", sound + sound, b"\0" + sound]:
        path.write_bytes(data)
        with pytest.raises(BundleError):
            read(path)


def test_noise_is_never_a_bundle(tmp_path: Path):
    sound = written(tmp_path / "b").read_bytes()
    source = random.Random(7)
    path = tmp_path / "noise"
    for _ in range(300):
        path.write_bytes(sound[:8] + source.randbytes(source.randrange(400)) + sound[-16:])
        with pytest.raises(BundleError):
            read(path)


def test_another_secret_s_signature_is_refused(tmp_path: Path):
    with pytest.raises(BundleError, match="another secret"):
        read(written(tmp_path / "b", secret=OTHER))

    def keep(index: dict[str, Any]) -> None:
        pass

    with pytest.raises(BundleError, match="changed after it was signed"):
        read(forged(tmp_path / "c", keep, secret=OTHER))


def items_of(index: dict[str, Any]) -> list[list[Any]]:
    return index["items"]


FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "an unknown version": lambda index: index.update(v=2),
    "an unknown field": lambda index: index.update(more=1),
    "a missing field": lambda index: index.pop("items"),
    "another kind": lambda index: index.update(kind="wheels"),
    "an item larger than any blob": lambda index: items_of(index)[0].__setitem__(1, 2**40),
    "an item of negative size": lambda index: items_of(index)[0].__setitem__(1, -1),
    "an item of no size": lambda index: items_of(index)[0].__setitem__(1, True),
    "an item that overlaps the index": lambda index: items_of(index)[0].__setitem__(1, 500),
    "an item twice": lambda index: items_of(index).append(items_of(index)[0]),
    "an item that is a path": lambda index: items_of(index)[0].__setitem__(0, "../../secret"),
    "an item under another's digest": lambda index: items_of(index)[0].__setitem__(0, "0" * 64),
    "two items changed about": lambda index: items_of(index).reverse(),
    "an artifact without a manifest": lambda index: index["artifacts"][0].__setitem__(0, "1" * 64),
    "an artifact whose manifest is a graph": lambda index: index["artifacts"][0].__setitem__(0, digest_of(GRAPH)),
    "an artifact of an environment not named": lambda index: index["artifacts"][0].__setitem__(1, "2" * 64),
    "a program too long": lambda index: index["artifacts"][0].__setitem__(2, "p" * 1025),
    "a program that is no text": lambda index: index["artifacts"][0].__setitem__(2, 7),
    "a request without its graph": lambda index: index["requests"][0].__setitem__(2, "3" * 64),
    "a key too long": lambda index: index["requests"][0].__setitem__(1, "k" * 257),
    "no environment": lambda index: index.update(environments=[]),
    "another environment": lambda index: index.update(environments=[[["torch", "0.evil"]]]),
    "an environment of too many fields": lambda index: index.update(environments=[[[f"f{n}", ""] for n in range(65)]]),
    "rows that are none": lambda index: index.update(artifacts=7),
    "a row of too many parts": lambda index: index["artifacts"][0].append(1),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_malformed_index_is_refused_even_where_its_signature_is_right(tmp_path: Path, name: str):
    with pytest.raises(BundleError):
        read(forged(tmp_path / "b", FORGERIES[name]))


def test_a_signed_bundle_that_lacks_a_blob_is_refused_before_the_daemon_hears_of_it(tmp_path: Path):
    path = tmp_path / "b"
    with BundleWriter(path, kind="artifacts", made_by="test", secret=SECRET) as writer:
        writer.add_environment(FIELDS)
        for data in (b"entry", MANIFEST):
            writer.add_item(digest_of(data), [data])
        writer.add_artifact(Packed(manifest=manifest_digest(MANIFEST), environment=ENVIRONMENT, program="p"))
        writer.finish()
    with pytest.raises(BundleError, match="lacks blob"):
        read(path)


def test_a_length_that_the_file_cannot_hold_is_refused_without_room_being_taken(tmp_path: Path):
    sound = written(tmp_path / "b").read_bytes()
    path = tmp_path / "bomb"
    for length in (2**63 - 1, 2**40, len(sound), 256 * 2**20):
        path.write_bytes(sound[:-16] + length.to_bytes(8, "big") + sound[-8:])
        tracemalloc.start()
        with pytest.raises(BundleError):
            read(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**20


def test_an_item_that_breaks_off_leaves_nothing_and_the_next_one_is_whole(tmp_path: Path):
    def breaking() -> Iterator[bytes]:
        yield b"the first half"
        raise ConnectionError

    path = tmp_path / "g"
    with BundleWriter(path, kind="graphs", made_by="test", secret=None) as writer:
        writer.add_environment(FIELDS)
        with pytest.raises(ConnectionError):
            writer.add_item(Digest("4" * 64), breaking())
        assert Digest("4" * 64) not in writer
        writer.add_item(digest_of(GRAPH), [GRAPH])
        writer.add_request(Request(environment=ENVIRONMENT, key="key", graph=digest_of(GRAPH), program="p"))
        writer.finish()
    (one,) = read_graphs(path)
    assert one.data == GRAPH


def test_a_file_left_unfinished_is_never_there(tmp_path: Path):
    with BundleWriter(tmp_path / "g", kind="graphs", made_by="test", secret=None) as writer:
        writer.add_item(digest_of(GRAPH), [GRAPH])
        # Until the file is complete it has another name.
        assert not (tmp_path / "g").exists()
    assert list(tmp_path.iterdir()) == []


def test_large_items_pass_through_in_little_memory(tmp_path: Path):
    import hashlib

    piece = bytes(2**20)
    pieces, sha256 = 64, hashlib.sha256()
    for _ in range(pieces):
        sha256.update(piece)
    digest = Digest(sha256.hexdigest())
    path = tmp_path / "b"
    tracemalloc.start()
    with BundleWriter(path, kind="artifacts", made_by="test", secret=SECRET) as writer:
        writer.add_item(digest, (piece for _ in range(pieces)))
        writer.finish()
    with Bundle.open(path, kind="artifacts") as bundle:
        bundle.verify_items()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > pieces * 2**20
    assert peak < 8 * 2**20
