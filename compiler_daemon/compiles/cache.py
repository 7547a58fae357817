"""Artifacts as clients see them: found, handed out, taken in.

Guarantees: what is handed out was signed by this daemon and had all its blobs a moment ago; anything else is a miss,
and counted. What is taken in is complete, belongs to the key and environment it is stored under, and is signed only
after both were checked. The bytes of an artifact are never interpreted here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import ExitStack

from compile_wire.digest import Digest, check_digest, digest_of
from compile_wire.environment import environment_id
from compile_wire.errors import DigestError, MalformedError, SignatureError
from compile_wire.limits import CHUNK_BYTES, MAX_ENTRIES_PER_LOOKUP, MAX_GRAPH_BYTES, MAX_INLINE_BYTES
from compile_wire.manifest import Manifest, Origin, decode_manifest, manifest_digest
from compile_wire.signature import sign_artifact, verify_artifact
from compiler_daemon import metrics
from compiler_daemon.compiles.environments import Environments
from compiler_daemon.jobs import ARTIFACT_KINDS, CompileResult, Entry, GraphSource, Job
from compiler_daemon.store import BlobMissingError, Store, StoredArtifact, StoreError, StoreFullError

logger = logging.getLogger(__name__)

_RECORD_BYTES = 8192
"""What a record has beside its manifest: signature, program, checksum."""


class Cache:
    """Looks artifacts up and files them: the store, with keys, environments and signatures checked."""

    def __init__(
        self,
        store: Store,
        environments: Environments,
        *,
        secret: bytes,
        counters: metrics.Counters,
    ) -> None:
        self._store = store
        self._environments = environments
        self._secret = secret
        self._counters = counters

    async def lookup(self, environment: Digest, key: str, have: Collection[Digest]) -> list[Entry]:
        """Return the artifacts under the key that the client has not tried, newest first; none is a miss."""
        entries = await self.find(environment, key, have)
        self._counters.add(metrics.LOOKUPS)
        self._counters.add(metrics.LOOKUP_HITS if entries else metrics.LOOKUP_MISSES)
        if entries:
            self._counters.add_seconds(metrics.SECONDS_SAVED, entries[0].compile_s)
            if entries[0].origin == "replay":
                self._counters.add(metrics.LOOKUP_HITS_REPLAYED)
        return entries

    async def find(self, environment: Digest, key: str, have: Collection[Digest]) -> list[Entry]:
        """As `lookup`, but not counted."""
        self._environments.fields(environment)
        return await asyncio.to_thread(self._find, environment, key, have)

    async def graph(self, source: GraphSource) -> bytes:
        """Return a graph's bytes; raise `MalformedError` where there are none or too many."""
        if source.sha256 is None:
            return _checked_graph(source.data or b"")
        return await asyncio.to_thread(self._stored_graph, source.sha256)

    async def publish(
        self,
        environment: Digest,
        key: str,
        manifest: bytes,
        *,
        blobs: Mapping[Digest, bytes],
        graph: GraphSource | None,
        program: str,
        disputed: Collection[Digest] = (),
    ) -> bool:
        """Take in what a client compiled; return whether it was new. What it disputes is served no more."""
        self._environments.fields(environment)
        decoded = self._check_manifest(manifest, environment=environment, key=key, origin="trainer")
        spec = await self.graph(graph) if graph else None
        if spec is not None and decoded.graph not in ("", digest_of(spec)):
            raise MalformedError("the manifest names another graph than the one given")
        named = {blob.sha256 for blob in decoded.blobs}
        if not blobs.keys() <= named:
            raise MalformedError("a blob came with the artifact that its manifest does not name")
        await self._environments.keep(environment)
        stored = await asyncio.to_thread(self._publish, decoded, manifest, blobs, spec, program)
        if stored:
            self._counters.add(metrics.ARTIFACTS_PUBLISHED)
        for digest in disputed:
            if digest != manifest_digest(manifest) and await asyncio.to_thread(
                self._store.set_aside, environment, key, digest
            ):
                self._counters.add(metrics.ARTIFACTS_DISPUTED)
                logger.warning(
                    "artifact %s of %s is in quarantine: a trainer that compiled the graph got other code", digest, key
                )
        return stored

    async def adopt(self, job: Job, result: CompileResult) -> Entry:
        """Sign and store what a worker made of a job, whose blobs are stored; return it as clients receive it.

        Raises `WireError` where the result is not what the job asked for. The worker ran somebody's graph: what it
        says is taken for nothing more than what it handed over, for the key, environment and graph that were asked for.
        """
        decoded = self._check_manifest(result.manifest, environment=job.environment, key=job.key, origin=job.origin)
        _check_proof(decoded, job, result)
        await self._environments.keep(job.environment)
        entry = await asyncio.to_thread(self._adopt, job, result, decoded)
        await self._environments.note_facts(job.environment, result.facts)
        return entry

    def put_blob(self, digest: Digest, data: bytes) -> None:
        """Store a blob that a worker hands over; called in the worker's thread."""
        self._store.put_blob(digest, data)

    async def read_blob(self, digest: Digest) -> AsyncGenerator[bytes, None]:
        """Yield a blob in chunks. It is not evicted meanwhile."""
        with self._store.pin([digest]):
            chunks = self._store.iter_blob(digest, CHUNK_BYTES)
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                yield chunk
        self._counters.add(metrics.BLOBS_READ)

    async def write_blob(self, digest: Digest, size: int, chunks: AsyncIterator[bytes]) -> bool:
        """Store a blob from its chunks; return whether it was new. What does not match leaves nothing behind."""
        return await self._write_blob(digest, size, chunks)

    async def import_blob(self, digest: Digest, size: int, chunks: AsyncIterator[bytes]) -> bool:
        """As `write_blob`, for an operator; raises `StoreFullError` rather than evict anything for it."""
        await self._check_room(size)
        return await self._write_blob(digest, size, chunks)

    async def import_artifact(
        self, fields: Mapping[str, str], manifest: bytes, *, graph: Digest | None, program: str
    ) -> bool:
        """Sign and store what another daemon made and an operator vouches for; return whether it was new.

        Its blobs are stored. What is there stays as it is, and so does the graph that is kept for the same key.
        """
        decoded = decode_manifest(manifest)
        if environment_id(fields) != decoded.environment:
            raise MalformedError("the artifact is for another environment than the one given")
        if graph is not None and decoded.graph not in ("", graph):
            raise MalformedError("the manifest names another graph than the one given")
        spec = await self.graph(GraphSource(sha256=graph)) if graph is not None else None
        await self._check_room(len(manifest) + _RECORD_BYTES)
        await self._environments.learn(fields)
        stored = await asyncio.to_thread(self._import, decoded, manifest, spec, program)
        if stored:
            self._counters.add(metrics.ARTIFACTS_IMPORTED)
        return stored

    async def _check_room(self, size: int) -> None:
        usage = await asyncio.to_thread(self._store.usage)
        if usage.bytes + size > usage.max_bytes:
            raise StoreFullError(
                f"{size} bytes more do not fit, and an import removes nothing: "
                "serve with a larger --store-gib, or make room with `compiler-daemon gc --max-gib`"
            )

    async def _write_blob(self, digest: Digest, size: int, chunks: AsyncIterator[bytes]) -> bool:
        if await asyncio.to_thread(self._store.has_blob, digest):
            return False
        scope = ExitStack()
        try:
            writer = await asyncio.to_thread(scope.enter_context, self._store.blob_writer(digest, size))
            async for chunk in chunks:
                await asyncio.to_thread(writer.write, chunk)
            stored = await asyncio.to_thread(writer.commit)
        finally:
            await asyncio.to_thread(scope.close)
        self._counters.add(metrics.BLOBS_WRITTEN)
        return stored

    async def has(self, environment: Digest, key: str) -> bool:
        """Whether an artifact is filed under the key; it does not count as used."""
        rows = await asyncio.to_thread(self._store.artifacts, environment=environment)
        return any(row.key == key for row in rows)

    async def was_asked_for(self, environment: Digest, key: str, graph: bytes) -> bool:
        """Whether this graph was once asked for under this key, by somebody who may publish."""
        rows = await asyncio.to_thread(self._store.graphs, environment=environment, key=key)
        return digest_of(graph) in {row.graph for row in rows}

    async def expected_seconds(self, environment: Digest, key: str) -> float:
        """Return how long this graph took before; 0 where nobody knows."""
        return await asyncio.to_thread(self._store.expected_seconds, environment, key) or 0.0

    async def run(self, *, every_s: float) -> None:
        """Remove what has expired and what belongs to nothing, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await asyncio.to_thread(self._store.collect)
            except StoreError as error:
                logger.warning("the store could not be tidied: %s", error)

    # Below: in threads.

    def _find(self, environment: Digest, key: str, have: Collection[Digest]) -> list[Entry]:
        entries: list[Entry] = []
        room = MAX_INLINE_BYTES
        for stored in self._store.find(environment, key, exclude=tuple(have), limit=MAX_ENTRIES_PER_LOOKUP):
            overhead = len(stored.manifest) + len(stored.signature)
            if entries and overhead > room:
                break  # the client asks again when none of these fits, and names them in `have`
            entry = self._entry(stored, environment, key, room - overhead)
            if entry is not None:
                room -= overhead + sum(len(data) for data in entry.blobs.values())
                entries.append(entry)
        return entries

    def _entry(self, stored: StoredArtifact, environment: Digest, key: str, room: int) -> Entry | None:
        """Return an artifact with its blobs where they fit; None where it cannot be used any more."""
        decoded = decode_manifest(stored.manifest)
        refs = {blob.sha256: blob.size for blob in decoded.blobs}
        try:
            verify_artifact(self._secret, stored.signature, key=key, environment=environment, manifest=stored.manifest)
            inline = sum(refs.values()) <= room
            blobs = {digest: self._store.read_blob(digest) for digest in refs} if inline else {}
        except (BlobMissingError, SignatureError) as error:
            self._counters.add(metrics.ENTRIES_UNUSABLE)
            logger.warning("the artifact %s of key %s is a miss: %s", stored.digest[:12], key[:16], error)
            return None
        return Entry(
            manifest=stored.manifest,
            signature=stored.signature,
            digest=stored.digest,
            compile_s=decoded.compile_s,
            origin=decoded.origin,
            blobs=blobs,
        )

    def _stored_graph(self, digest: Digest) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            for chunk in self._store.iter_blob(digest, CHUNK_BYTES):
                size += len(chunk)
                if size > MAX_GRAPH_BYTES:
                    break
                parts.append(chunk)
        except BlobMissingError:
            # The blob that brought a graph goes with a later collection; the graph itself was kept with its request.
            return self._store.get_graph(digest)
        return _checked_graph(b"".join(parts), size)

    def _publish(
        self,
        decoded: Manifest,
        manifest: bytes,
        blobs: Mapping[Digest, bytes],
        graph: bytes | None,
        program: str,
    ) -> bool:
        for digest, data in blobs.items():
            check_digest(data, digest)
        digests = [blob.sha256 for blob in decoded.blobs]
        with self._store.pin(digests):
            for digest, data in blobs.items():
                self._store.put_blob(digest, data)
            return self._keep(decoded, manifest, graph, program)

    def _import(self, decoded: Manifest, manifest: bytes, graph: bytes | None, program: str) -> bool:
        if graph is not None and self._store.graphs(environment=decoded.environment, key=decoded.key):
            graph = None
        with self._store.pin([blob.sha256 for blob in decoded.blobs]):
            return self._keep(decoded, manifest, graph, program)

    def _adopt(self, job: Job, result: CompileResult, decoded: Manifest) -> Entry:
        with self._store.pin([blob.sha256 for blob in decoded.blobs]):
            try:
                self._keep(decoded, result.manifest, job.graph, job.program)
            except BlobMissingError as error:
                raise MalformedError(f"the worker did not hand over what it promised: {error}") from error
            try:
                self._store.note_compile(job.environment, job.key, result.seconds)
            except StoreError as error:
                logger.warning("the time of key %s is not kept: %s", job.key[:16], error)
            stored = StoredArtifact(
                manifest=result.manifest,
                signature=self._sign(decoded, result.manifest),
                digest=manifest_digest(result.manifest),
                blobs=tuple({blob.sha256 for blob in decoded.blobs}),
            )
            entry = self._entry(stored, job.environment, job.key, MAX_INLINE_BYTES - len(result.manifest))
        if entry is None:
            raise DigestError("the artifact could not be read back from the store")
        return entry

    def _keep(self, decoded: Manifest, manifest: bytes, graph: bytes | None, program: str) -> bool:
        stored = self._store.put_artifact(manifest, self._sign(decoded, manifest), program=program)
        if graph is not None:
            try:
                self._store.put_graph(decoded.environment, decoded.key, graph, program=program)
            except StoreError as error:
                # Kept for replay and for explaining misses; the artifact is good without it.
                logger.warning("the graph of key %s is not kept: %s", decoded.key[:16], error)
        return stored

    def _sign(self, decoded: Manifest, manifest: bytes) -> bytes:
        return sign_artifact(self._secret, key=decoded.key, environment=decoded.environment, manifest=manifest)

    @staticmethod
    def _check_manifest(manifest: bytes, *, environment: Digest, key: str, origin: Origin) -> Manifest:
        decoded = decode_manifest(manifest)
        if decoded.key != key or decoded.environment != environment:
            raise MalformedError("the manifest belongs to another key or environment")
        if decoded.origin != origin:
            raise MalformedError(f"the manifest's origin is {decoded.origin}, not {origin}")
        return decoded


def _checked_graph(data: bytes, size: int | None = None) -> bytes:
    size = len(data) if size is None else size
    if not 0 < size <= MAX_GRAPH_BYTES:
        raise MalformedError(f"a graph has from 1 to {MAX_GRAPH_BYTES} bytes, not {size}")
    return data


def _check_proof(decoded: Manifest, job: Job, result: CompileResult) -> None:
    """Raise `MalformedError` unless the manifest is of this job's graph, and of all the blobs that came for it."""
    if decoded.graph != digest_of(job.graph):
        raise MalformedError("the worker's manifest names another graph than the job's")
    if decoded.kind != ARTIFACT_KINDS[job.kind]:
        raise MalformedError(f"the worker made a {decoded.kind} where one of the {job.kind} was asked for")
    if {blob.sha256: blob.size for blob in decoded.blobs} != result.blobs:
        raise MalformedError("the worker's manifest names other blobs than it handed over")
