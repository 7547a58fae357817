"""The store compared with a dict: after any operation it answers as the dict would, or reports a miss."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from compile_wire.digest import Digest, digest_of
from compile_wire.errors import DigestError
from compiler_daemon.store import BlobDamagedError, BlobMissingError, Store
from tests.store.store_samples import (
    ENVIRONMENT,
    PROGRAM,
    SIGNATURE,
    Sample,
    blob_path,
    change_one_byte,
    config,
    noise,
    sample_of,
)

BLOBS = {digest_of(data): data for data in (noise(seed, 300 * seed) for seed in range(6))}
ITEMS = [
    sample_of([list(BLOBS.values())[number] for number in numbers], key=key)
    for key, numbers in [("a", (0, 1)), ("a", (1, 2)), ("a", (3,)), ("b", (0, 1)), ("b", (4, 5, 1)), ("b", (5, 5))]
]
KEYS = {item.digest: key for item, key in zip(ITEMS, "aaabbb", strict=True)}

a_blob = st.sampled_from(sorted(BLOBS))
an_item = st.sampled_from(ITEMS)


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.blobs: set[Digest] = set()
        self.damaged: set[Digest] = set()
        self.artifacts: list[Sample] = []
        self.pinned: set[Digest] = set()
        self.counts: dict[str, int] = {}

    @initialize()
    def open(self) -> None:
        self.store = Store.open(config(self.folder / "store", orphan_grace_s=0.0))

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    @rule(digest=a_blob)
    def put_blob(self, digest: Digest) -> None:
        self._notice_damage(digest)
        assert self.store.put_blob(digest, BLOBS[digest]) == (digest not in self.blobs)
        self.blobs.add(digest)

    @rule(digest=a_blob, other=a_blob)
    def put_wrong_bytes(self, digest: Digest, other: Digest) -> None:
        with pytest.raises(DigestError):
            self.store.put_blob(digest, BLOBS[other] + b"!")

    @rule(digest=a_blob)
    def write_without_commit(self, digest: Digest) -> None:
        self._notice_damage(digest)
        with self.store.blob_writer(digest, len(BLOBS[digest])) as writer:
            writer.write(BLOBS[digest])

    @rule(digest=a_blob, streamed=st.booleans())
    def read_blob(self, digest: Digest, streamed: bool) -> None:
        def read() -> bytes:
            return b"".join(self.store.iter_blob(digest, 100)) if streamed else self.store.read_blob(digest)

        if digest in self.damaged:
            with pytest.raises(BlobDamagedError):
                read()
            self._lose(digest)
        elif digest in self.blobs:
            assert read() == BLOBS[digest]
        else:
            with pytest.raises(BlobMissingError):
                read()

    @rule(item=an_item)
    def put_artifact(self, item: Sample) -> None:
        missing = {digest for digest in item.blob_digests if digest not in self.blobs}
        if missing:
            with pytest.raises(BlobMissingError) as caught:
                self.store.put_artifact(item.manifest, SIGNATURE, program=PROGRAM)
            assert set(caught.value.digests) == missing
        else:
            new = item not in self.artifacts
            assert self.store.put_artifact(item.manifest, SIGNATURE, program=PROGRAM) == new
            if new:
                self.artifacts.append(item)

    @rule(item=an_item)
    def put_whole_artifact(self, item: Sample) -> None:
        for digest in item.blob_digests:
            self.put_blob(digest)
        self.put_artifact(item)

    @rule(item=an_item)
    def remove(self, item: Sample) -> None:
        assert self.store.remove(item.digest) == (item in self.artifacts)
        self._forget(item)

    @rule(item=an_item, pinned=st.booleans())
    def set_pinned(self, item: Sample, pinned: bool) -> None:
        if item in self.artifacts:
            self.store.set_pinned(item.digest, pinned)
            (self.pinned.add if pinned else self.pinned.discard)(item.digest)
        else:
            with pytest.raises(BlobMissingError):
                self.store.set_pinned(item.digest, pinned)

    @precondition(lambda self: self.blobs - self.damaged - {digest_of(b"")})
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(sorted(self.blobs - self.damaged - {digest_of(b"")})))
        change_one_byte(blob_path(self.folder / "store", digest))
        self.damaged.add(digest)

    @precondition(lambda self: self.blobs)
    @rule(data=st.data())
    def remove_file(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(sorted(self.blobs)))
        blob_path(self.folder / "store", digest).unlink()
        with pytest.raises(BlobMissingError):
            self.store.read_blob(digest)
        self._lose(digest)

    @rule()
    def collect(self) -> None:
        held = {digest for item in self.artifacts for digest in item.blob_digests}
        foretold = self.store.collect(dry_run=True)
        report = self.store.collect()
        assert report.blobs == report.orphans == foretold.orphans == len(self.blobs - held)
        self.damaged &= held
        self.blobs &= held

    @rule(name=st.sampled_from("xy"), count=st.integers(0, 5))
    def count(self, name: str, count: int) -> None:
        self.store.add_counts({name: count})
        self.counts[name] = self.counts.get(name, 0) + count

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.open()

    @rule()
    def reopen_with_a_damaged_index(self) -> None:
        self.store.close()
        (self.folder / "store" / "index.sqlite3").write_bytes(b"garbage" * 100)
        self.open()
        self.counts = {}

    @invariant()
    def finds_what_the_model_has(self) -> None:
        for key in "ab":
            expected = [item.digest for item in reversed(self.artifacts) if KEYS[item.digest] == key]
            assert [artifact.digest for artifact in self.store.find(ENVIRONMENT, key, limit=99)] == expected

    @invariant()
    def has_what_the_model_has(self) -> None:
        usage = self.store.usage()
        assert set(BLOBS) - set(self.store.missing_blobs(BLOBS)) == self.blobs
        assert (usage.blobs, usage.artifacts) == (len(self.blobs), len(self.artifacts))
        assert {row.digest for row in self.store.artifacts() if row.pinned} == self.pinned
        counts = self.store.counts()
        counts.pop("quarantined", None)
        assert counts == self.counts

    def _notice_damage(self, digest: Digest) -> None:
        """Model that a put of a stored blob checks what is stored, and drops it with its artifacts if it is damaged."""
        if digest in self.damaged:
            self._lose(digest)

    def _lose(self, digest: Digest) -> None:
        self.blobs.discard(digest)
        self.damaged.discard(digest)
        for item in [item for item in self.artifacts if digest in item.blob_digests]:
            self._forget(item)

    def _forget(self, item: Sample) -> None:
        if item in self.artifacts:
            self.artifacts.remove(item)
            self.pinned.discard(item.digest)


StoreMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,  # other work shares the machine
    suppress_health_check=[HealthCheck.too_slow],
)
test_store_answers_as_a_dict_would = StoreMachine.TestCase
