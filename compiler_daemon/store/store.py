"""The store: everything the daemon keeps, behind one object.

Guarantees, after any crash and at every moment:
  * what a put returned for is there, whole, and durable (file, then name, then folder on the disk);
  * nothing half-written is ever visible;
  * bytes are checked against their SHA-256 when they come and whenever they go;
  * the hard limit is never passed, and nothing in use is evicted.

All calls are synchronous and safe from any thread; they raise only `StoreError` for failures of the store and
`compile_wire.errors.WireError` for bytes that are not what they claim to be. After an error the store goes on.
Signatures are kept, not checked: who may publish is decided by the caller, what may be loaded by the client.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Self

from compile_wire.digest import Digest, check_digest
from compiler_daemon.store.artifacts import Artifacts
from compiler_daemon.store.blob_writer import BlobWriter
from compiler_daemon.store.blobs import Blobs
from compiler_daemon.store.config import StoreConfig
from compiler_daemon.store.directory import Directory
from compiler_daemon.store.environments import Environments
from compiler_daemon.store.files import FileStores
from compiler_daemon.store.history import History
from compiler_daemon.store.index import Index, total_bytes
from compiler_daemon.store.pins import Pins
from compiler_daemon.store.quarantine import Quarantine
from compiler_daemon.store.rankings import Rankings
from compiler_daemon.store.requests import Requests
from compiler_daemon.store.rows import ArtifactRow, GcReport, ScanReport, StoredArtifact, StoredGraph, StoreUsage
from compiler_daemon.store.samples import FigureSample, Samples, Step
from compiler_daemon.store.scan import scan
from compiler_daemon.store.space import SpaceQuota
from compiler_daemon.store.usage_stamps import UsageTracker


class Store:
    """Keeps artifacts, graphs and figures on disk. Also a context manager that closes it."""

    def __init__(self, config: StoreConfig, directory: Directory, index: Index) -> None:
        """Use `open`."""
        self._config = config
        self._directory = directory
        self._index = index
        with directory.failing_as("set up the store's folders"):
            self._file_stores = FileStores(directory.root)
            quarantine = Quarantine(directory.root, max_bytes=config.max_quarantine_bytes)
        self._pins = Pins(remember_s=max(config.grace_s, config.orphan_grace_s))
        self._usage_tracker = UsageTracker(index)
        self._quota = SpaceQuota(
            config, directory, index, self._file_stores, self._pins, self._usage_tracker, beside=self._beside
        )
        self._blobs = Blobs(directory, index, self._file_stores, quarantine, self._pins)
        self._artifacts = Artifacts(
            directory, index, self._file_stores, self._blobs, self._quota, self._pins, self._usage_tracker, quarantine
        )
        self._requests = Requests(config, directory, index, self._file_stores, quarantine)
        self._history = History(index)
        self._samples = Samples(index)
        self._rankings = Rankings(index, self._usage_tracker)
        self.scan_report: ScanReport = scan(directory, index, self._file_stores, quarantine)
        """What the start found out of place, and put right."""
        self._environments = Environments(config, directory, index, self._file_stores, self._quota)

    def _beside(self) -> int:
        """Return the bytes of the store that no table of the index counts."""
        return self._environments.size()

    @classmethod
    def open(cls, config: StoreConfig) -> Store:
        """Make or validate the directory, lock it, open or rebuild the index, and put things in order.

        Raises `StoreUnsafeError` where others own the directory or may write to it, `StoreLockedError` where another
        daemon uses it, and other `StoreError`s where the disk does not let us.
        """
        with ExitStack() as stack:
            directory = Directory.open(config.root, address=config.address)
            stack.callback(directory.close)
            index = Index.open(directory)
            stack.callback(index.close)
            store = cls(config, directory, index)
            stack.pop_all()
            return store

    def close(self) -> None:
        """Write what is waiting and free the lock. May be called twice; other calls then raise `StoreClosedError`."""
        self._usage_tracker.flush()
        self._index.close()
        self._directory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Blobs

    def has_blob(self, digest: Digest) -> bool:
        """Return whether the blob is stored. If so, it will not be evicted within `grace_s`."""
        return not self._blobs.missing([digest])

    def missing_blobs(self, digests: Iterable[Digest]) -> list[Digest]:
        """Return those not stored, in order and once each. The others will not be evicted within `grace_s`."""
        return self._blobs.missing(digests)

    def put_blob(self, digest: Digest, data: bytes) -> bool:
        """Store a blob; return whether it was new.

        Raises `DigestError` where `data` is not what `digest` names, `StoreFullError` where there is no room for it.
        """
        check_digest(data, digest)
        with self.blob_writer(digest, len(data)) as writer:
            writer.write(data)
            return writer.commit()

    def blob_writer(self, digest: Digest, size: int) -> BlobWriter:
        """Return a context manager that stores a blob from chunks: `write(chunk)`, then `commit()`.

        Entering it takes room for `size` bytes or raises `StoreFullError`; leaving it without `commit` removes all.
        """
        return BlobWriter(self._directory, self._file_stores, self._blobs, self._quota, self._pins, digest, size)

    def read_blob(self, digest: Digest) -> bytes:
        """Return a blob's bytes, verified.

        Raises `BlobMissingError` where it is not stored, `BlobDamagedError` where it is not what it was; then it has
        gone to quarantine, and artifacts that need it are misses from now on.
        """
        return self._blobs.read(digest)

    def iter_blob(self, digest: Digest, chunk_bytes: int) -> Iterator[bytes]:
        """Yield a blob's bytes in chunks, verified: raises as `read_blob`, before the last chunk is handed out.

        Nothing is read before the first chunk is asked for; what has been handed out is not to be used before the end.
        """
        if chunk_bytes <= 0:
            raise ValueError(f"chunk_bytes must be positive, got {chunk_bytes}")
        return self._blobs.chunks(digest, chunk_bytes)

    def pin(self, digests: Iterable[Digest]) -> AbstractContextManager[None]:
        """Keep blobs or artifacts from being evicted until the block ends. In memory only; pins add up.

        What had gone before is not brought back: pin first, then read. Damaged blobs go to quarantine all the same.
        """
        return self._pins.pin(digests)

    # Artifacts

    def put_artifact(self, manifest: bytes, signature: bytes, *, program: str) -> bool:
        """Store an artifact whose blobs are stored; return whether it was new. A new signature replaces the old one.

        Raises `BlobMissingError` naming all blobs that are missing, `MalformedError` where the manifest is not one or
        lies about a blob's size, `StoreFullError` where there is no room for its record.
        """
        return self._artifacts.put(manifest, signature, program=program)

    def find(
        self, environment: Digest, key: str, *, exclude: Collection[Digest] = (), limit: int
    ) -> list[StoredArtifact]:
        """Return the artifacts of a key, newest first, and stamp them as used.

        All their blobs are in place in full size; none is returned with a blob that is missing or known to be damaged.
        They will not be evicted within `grace_s`. What counts as a hit is for the caller to say, with `note_hit`.
        """
        return self._artifacts.find(environment, key, exclude=exclude, limit=limit)

    def note_hit(self, digest: Digest) -> None:
        """Count a hit of an artifact; one that is not stored any more has none."""
        self._artifacts.note_hit(digest)

    def artifacts(self, *, environment: Digest | None = None, digest: Digest | None = None) -> list[ArtifactRow]:
        """Return the list of artifacts, newest first."""
        return self._artifacts.rows(environment, digest)

    def artifact(self, digest: Digest) -> StoredArtifact | None:
        """Return one artifact, as `find` does but not stamped as used; None where it is not stored whole."""
        return self._artifacts.get(digest)

    def remove(self, digest: Digest) -> bool:
        """Remove an artifact, pinned or not; return whether there was one. Its blobs go with a later collection."""
        return self._artifacts.remove(digest)

    def set_aside(self, environment: Digest, key: str, digest: Digest) -> bool:
        """Serve an artifact no more, because somebody showed that it is wrong; its manifest is kept in quarantine.

        Returns whether there was one of that digest under this environment and key.
        """
        return self._artifacts.set_aside(environment, key, digest)

    def set_pinned(self, digest: Digest, pinned: bool) -> None:
        """Keep an artifact permanently, or no longer. Raises `BlobMissingError` where it is not stored."""
        self._artifacts.set_pinned(digest, pinned)

    # Requests and facts

    def put_graph(self, environment: Digest, key: str, data: bytes, *, program: str) -> Digest:
        """Keep a request, in place of an earlier one of the same environment and key; return the graph's digest.

        Raises `MalformedError` where the graph is larger than the wire allows.
        """
        return self._requests.put(environment, key, data, program=program)

    def get_graph(self, digest: Digest) -> bytes:
        """Return a graph's bytes, verified; raises as `read_blob`."""
        return self._requests.get(digest)

    def graphs(self, *, environment: Digest | None = None, key: str | None = None) -> list[StoredGraph]:
        """Return the requests, newest first; several may name one graph."""
        return self._requests.rows(environment, key)

    def put_environment(self, fields: Mapping[str, str]) -> Digest:
        """Keep an environment; return its id. Raises `MalformedError` where it breaks a bound of the wire."""
        return self._environments.put(fields)

    def environments(self) -> dict[Digest, dict[str, str]]:
        """Return every environment, by id, oldest first."""
        return self._environments.all()

    def put_facts(self, environment: Digest, facts: bytes) -> None:
        """Keep the facts of an environment, in place of earlier ones. Raises `BlobMissingError` for an unknown one."""
        self._environments.put_facts(environment, facts)

    def get_facts(self, environment: Digest) -> bytes:
        """Return the facts of an environment; empty where none are known."""
        return self._environments.get_facts(environment)

    # History

    def add_counts(self, counts: Mapping[str, int]) -> None:
        """Add to counters that survive restarts; all of them or none."""
        self._history.add_counts(counts)

    def counts(self) -> dict[str, int]:
        """Return all counters. `quarantined` is the store's own: damaged files found."""
        return self._history.counts()

    def note_compile(self, environment: Digest, key: str, seconds: float) -> None:
        """Remember how long a compile took."""
        self._history.note_compile(environment, key, seconds)

    def expected_seconds(self, environment: Digest, key: str) -> float | None:
        """Return the last time of the same key, or else the recent mean of the environment; None without any."""
        return self._history.expected_seconds(environment, key)

    def put_sample(self, figures: Mapping[str, int], *, now: float) -> bool:
        """Keep totals as they are at `now`, for curves; return whether anything had changed."""
        return self._samples.put(figures, now=now)

    def samples(self, start: float, *, step: Step) -> list[FigureSample]:
        """Return totals over time, in order: for a day by the minute, for a year by the hour.

        The first is the last one before `start`, where there is one.
        """
        return self._samples.since(start, step=step)

    # Rankings

    def slowest_artifacts(self, limit: int) -> list[ArtifactRow]:
        """Return the artifacts that took longest to compile."""
        return self._rankings.slowest(limit)

    def artifact_row(self, digest: Digest) -> tuple[ArtifactRow, bytes] | None:
        """Return an artifact's line of the list, and its manifest; its files are not looked at. None where unknown."""
        return self._rankings.artifact(digest)

    # Space

    def usage(self) -> StoreUsage:
        """Return how full the store is."""
        with self._index.reading() as connection:
            artifacts, blobs, requests, quarantined = connection.execute(
                """SELECT (SELECT count(*) FROM artifacts), (SELECT count(*) FROM blobs),
                          (SELECT count(*) FROM requests),
                          coalesce((SELECT value FROM counters WHERE name = 'quarantined'), 0)"""
            ).fetchone()
            return StoreUsage(
                artifacts=artifacts,
                blobs=blobs,
                bytes=total_bytes(connection, "shelved") + self._beside(),
                max_bytes=self._config.max_bytes,
                requests=requests,
                graph_bytes=total_bytes(connection, "graphs"),
                quarantined=quarantined,
            )

    def collect(
        self, *, dry_run: bool = False, max_bytes: int | None = None, max_age_s: float | None = None
    ) -> GcReport:
        """Remove orphaned blobs, expired artifacts, then the least recently used down to the low-water mark.

        `max_bytes` in place of the low-water mark, and `max_age_s` in place of the configured age, for this once.
        """
        return self._quota.collect(dry_run=dry_run, max_bytes=max_bytes, max_age_s=max_age_s)
