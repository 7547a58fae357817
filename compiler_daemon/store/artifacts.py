"""Artifacts: manifests that can be found by environment and key, with all their blobs in place.

Guarantee: an artifact whose put returned is found again after any crash, and one that is found is complete.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from compile_wire.digest import Digest
from compile_wire.errors import MalformedError, WireError
from compile_wire.manifest import Manifest, decode_manifest, manifest_digest
from compiler_daemon.store.blobs import Blobs
from compiler_daemon.store.deletion import delete_artifacts
from compiler_daemon.store.directory import Directory
from compiler_daemon.store.errors import BlobMissingError, StoreError, StoreVanishedError
from compiler_daemon.store.files import FileStores, Found
from compiler_daemon.store.index import Index
from compiler_daemon.store.pins import Pins
from compiler_daemon.store.quarantine import Quarantine
from compiler_daemon.store.record_files import ArtifactRecord, decode_artifact, encode_artifact
from compiler_daemon.store.rows import ArtifactRow, StoredArtifact
from compiler_daemon.store.space import SpaceQuota
from compiler_daemon.store.usage_stamps import UsageTracker

logger = logging.getLogger(__name__)

_RECORD_COLUMNS = "manifest, signature, program, created, pinned"
ROW_COLUMNS = "digest, environment, key, graph, bytes, compile_s, origin, program, created, used, hits, pinned"


class Artifacts:
    """Keeps the artifacts of a store. Safe to call from any thread."""

    def __init__(
        self,
        directory: Directory,
        index: Index,
        file_stores: FileStores,
        blobs: Blobs,
        quota: SpaceQuota,
        pins: Pins,
        usage_tracker: UsageTracker,
        quarantine: Quarantine,
    ) -> None:
        self._quarantine = quarantine
        self._directory = directory
        self._index = index
        self._file_stores = file_stores
        self._blobs = blobs
        self._quota = quota
        self._pins = pins
        self._usage_tracker = usage_tracker

    def put(self, manifest: bytes, signature: bytes, *, program: str) -> bool:
        """Store an artifact; return whether it was new. See `Store.put_artifact`."""
        decoded = decode_manifest(manifest)
        digest = manifest_digest(manifest)
        sizes = blob_sizes(decoded)
        new = ArtifactRecord(manifest=manifest, signature=signature, program=program, created=time.time(), pinned=False)
        data = encode_artifact(new)
        with self._pins.pin([digest, *sizes]):
            self._check_blobs(sizes)
            known = self._record(digest)
            if known is not None and known.signature == signature:
                return False
            with self._quota.reserved(len(data)):
                # Signed anew, as after a change of secrets: what the user and time have added stays.
                record = new if known is None else known.with_signature(signature)
                self._write(digest, record, decoded)
        return known is None

    def find(self, environment: Digest, key: str, *, exclude: Collection[Digest], limit: int) -> list[StoredArtifact]:
        """Return complete artifacts of a key, newest first. See `Store.find`."""
        with self._index.reading() as connection:
            digests = [
                row[0]
                for row in connection.execute(
                    "SELECT digest FROM artifacts WHERE environment = ? AND key = ? ORDER BY created DESC, rowid DESC",
                    (environment, key),
                )
            ]
        found: list[StoredArtifact] = []
        for digest in digests:
            if len(found) >= limit:
                break
            if digest not in exclude and (artifact := self._complete(digest)) is not None:
                self._usage_tracker.note(digest)
                found.append(artifact)
        return found

    def note_hit(self, digest: Digest) -> None:
        """Count a hit. See `Store.note_hit`."""
        self._usage_tracker.note(digest, hits=1)

    def get(self, digest: Digest) -> StoredArtifact | None:
        """Return one artifact where it is complete; not stamped as used."""
        return self._complete(digest)

    def rows(self, environment: Digest | None, digest: Digest | None = None) -> list[ArtifactRow]:
        """Return the list of artifacts, newest first."""
        self._usage_tracker.flush()
        asked = {"environment = ?": environment, "digest = ?": digest}
        conditions = [condition for condition, value in asked.items() if value is not None]
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        values = [value for value in asked.values() if value is not None]
        with self._index.reading() as connection:
            rows = connection.execute(
                f"SELECT {ROW_COLUMNS} FROM artifacts {where} ORDER BY created DESC, rowid DESC",  # noqa: S608  # constants
                values,
            ).fetchall()
        return [artifact_row(row) for row in rows]

    def remove(self, digest: Digest) -> bool:
        """Remove an artifact; return whether there was one. See `Store.remove`."""
        with self._index.lock:
            if self._record(digest) is None:
                return False
            with self._index.writing() as connection:
                delete_artifacts(connection, self._file_stores, [digest])
            with self._directory.failing_as("remove an artifact"):
                self._file_stores.artifacts.sync(digest)
            return True

    def set_aside(self, environment: Digest, key: str, digest: Digest) -> bool:
        """Put an artifact's record into quarantine. See `Store.set_aside`."""
        with self._index.lock:
            found = self.get(digest)
            if found is None:
                return False
            decoded = decode_manifest(found.manifest)
            if decoded.environment != environment or decoded.key != key:
                return False
            self._quarantine.keep(f"{digest}.manifest", found.manifest)
            return self.remove(digest)

    def set_pinned(self, digest: Digest, pinned: bool) -> None:
        """Set or clear a user's pin. See `Store.set_pinned`."""
        with self._index.lock:
            record = self._record(digest)
            if record is None:
                raise BlobMissingError([digest], "no such artifact")
            if record.pinned != pinned:
                record = record.with_pinned(pinned)
                self._write(digest, record, decode_manifest(record.manifest))

    def _write(self, digest: Digest, record: ArtifactRecord, manifest: Manifest) -> None:
        data = encode_artifact(record)
        with self._directory.failing_as("store an artifact"):
            file = self._file_stores.artifacts.put(digest, data)
        try:
            with self._index.writing() as connection:
                # Again, now that no blob can go: one may have been found damaged in the meantime.
                self._check_blobs(blob_sizes(manifest))
                insert_artifact(connection, record, manifest, file)
        except BaseException:
            with suppress(StoreError, OSError), self._index.lock:
                if self._record(digest) is None:
                    self._file_stores.artifacts.remove(digest)
            raise

    def _record(self, digest: Digest) -> ArtifactRecord | None:
        with self._index.reading() as connection:
            row = connection.execute(
                f"SELECT {_RECORD_COLUMNS} FROM artifacts WHERE digest = ?",  # noqa: S608  # a constant
                (digest,),
            ).fetchone()
        if row is None:
            return None
        manifest, signature, program, created, pinned = row
        return ArtifactRecord(
            manifest=manifest, signature=signature, program=program, created=created, pinned=bool(pinned)
        )

    def _check_blobs(self, sizes: Mapping[Digest, int]) -> None:
        if missing := self._blobs.missing(sizes):
            raise BlobMissingError(missing, "a blob of the artifact is not stored: write it first")
        with self._index.reading() as connection:
            for blob, size in sizes.items():
                row = connection.execute("SELECT bytes FROM blobs WHERE digest = ?", (blob,)).fetchone()
                if row is not None and row[0] != size:
                    raise MalformedError(f"blob {blob[:12]} has {row[0]} bytes, and the manifest says {size}")

    def _complete(self, digest: Digest) -> StoredArtifact | None:
        """Return the artifact where it is whole; None, and gone from the index, where it is not."""
        # Touched before its files are looked at: from here on eviction leaves it alone.
        if not self._pins.touch(digest):
            return None
        with self._index.reading() as connection:
            row = connection.execute("SELECT manifest, signature FROM artifacts WHERE digest = ?", (digest,)).fetchone()
            blobs = connection.execute(
                "SELECT blob, bytes FROM artifact_blobs LEFT JOIN blobs ON digest = blob WHERE artifact = ?", (digest,)
            ).fetchall()
        if row is None:
            return None
        manifest, signature = row
        broken = [blob for blob, size in blobs if not self._blobs.in_place(blob, -1 if size is None else size)]
        if not broken and manifest_digest(manifest) == digest:
            return StoredArtifact(
                digest=digest, manifest=manifest, signature=signature, blobs=tuple(blob for blob, _ in blobs)
            )
        try:
            for blob in broken:
                self._blobs.give_up(blob)
            if not broken:
                self._read_again(digest)
        except StoreVanishedError:
            raise
        except (StoreError, WireError) as error:
            logger.warning("artifact %s is damaged and could not be removed: %s", digest, error)
        return None

    def _read_again(self, digest: Digest) -> None:
        """Make a damaged row again from its record; without a sound record the next start drops the artifact."""
        logger.warning("the index entry of artifact %s is damaged; it is read from its record again", digest)
        with self._index.lock, self._directory.failing_as("read an artifact's record"):
            record, _ = decode_artifact(self._file_stores.artifacts.read(digest), digest)
            with self._index.writing() as connection:
                connection.execute("UPDATE artifacts SET manifest = ? WHERE digest = ?", (record.manifest, digest))


def artifact_row(row: Sequence[Any]) -> ArtifactRow:
    """Return what `ROW_COLUMNS` gave."""
    digest, environment, key, graph, size, compile_s, origin, program, created, used, hits, pinned = row
    return ArtifactRow(
        digest=digest,
        environment=environment,
        key=key,
        graph=graph,
        bytes=size,
        compile_s=compile_s,
        origin=origin,
        program=program,
        created=created,
        used=used,
        hits=hits,
        pinned=bool(pinned),
    )


def blob_sizes(manifest: Manifest) -> dict[Digest, int]:
    """Return the distinct blobs of a manifest; raise `MalformedError` where it gives one of them two sizes."""
    sizes: dict[Digest, int] = {}
    for blob in manifest.blobs:
        if sizes.setdefault(blob.sha256, blob.size) != blob.size:
            raise MalformedError(f"the manifest gives blob {blob.sha256[:12]} two sizes")
    return sizes


def insert_artifact(connection: sqlite3.Connection, record: ArtifactRecord, manifest: Manifest, file: Found) -> None:
    """Write the rows of an artifact whose record is `file`; where it has some, only what may change about it."""
    digest = record.digest
    connection.execute(
        """INSERT INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)
           ON CONFLICT (digest) DO UPDATE SET signature = excluded.signature, pinned = excluded.pinned,
           record_bytes = excluded.record_bytes, record_ns = excluded.record_ns""",
        (
            digest,
            manifest.environment,
            manifest.key,
            manifest.graph,
            record.manifest,
            record.signature,
            record.program,
            manifest.origin,
            manifest.total_bytes,
            file.bytes,
            file.modified_ns,
            manifest.compile_s,
            record.created,
            record.created,
            record.pinned,
        ),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO artifact_blobs VALUES (?, ?)", [(digest, blob) for blob in blob_sizes(manifest)]
    )
