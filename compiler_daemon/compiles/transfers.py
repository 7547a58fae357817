"""Artifacts, blobs and graphs on their way between clients and the store: handed in, read, imported.

Guarantees: what is taken in is complete and belongs to the key and environment it is stored under. What does not match
its digest leaves nothing behind. The bytes of an artifact are never interpreted here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import ExitStack

from compile_wire.digest import Digest, check_digest, digest_of
from compile_wire.environment import environment_id
from compile_wire.errors import MalformedError
from compile_wire.limits import CHUNK_BYTES, MAX_GRAPH_BYTES
from compile_wire.manifest import Manifest, decode_manifest, manifest_digest
from compiler_daemon import metrics
from compiler_daemon.compiles.cache import Cache, check_manifest
from compiler_daemon.compiles.environments import Environments
from compiler_daemon.jobs import GraphSource
from compiler_daemon.store import BlobMissingError, Store, StoreFullError

logger = logging.getLogger(__name__)

_RECORD_BYTES = 8192
"""What a record has beside its manifest: signature, program, checksum."""


class Transfers:
    """Takes in what clients and operators hand over, and reads blobs and graphs for them."""

    def __init__(self, store: Store, environments: Environments, *, cache: Cache, counters: metrics.Counters) -> None:
        """`cache` signs and stores what is taken in."""
        self._store = store
        self._environments = environments
        self._cache = cache
        self._counters = counters

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
        decoded = check_manifest(manifest, environment=environment, key=key, origin="trainer")
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
                self._cache.dispute(digest)
                self._counters.add(metrics.ARTIFACTS_DISPUTED)
                logger.warning(
                    "artifact %s of %s is in quarantine: a trainer that compiled the graph got other code", digest, key
                )
        if stored:
            # After what is disputed is known: else what is there in a tier would stand for this one.
            await self._cache.share_later(decoded, manifest, spec)
        return stored

    async def read_blob(self, digest: Digest) -> AsyncGenerator[bytes, None]:
        """Yield a blob in chunks. It is not evicted meanwhile."""
        with self._store.pin([digest]):
            chunks = self._store.iter_blob(digest, CHUNK_BYTES)
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                yield chunk
        self._counters.add(metrics.BLOBS_READ)

    async def write_blob(self, digest: Digest, size: int, chunks: AsyncIterator[bytes]) -> bool:
        """Store a blob from its chunks; return whether it was new. What does not match leaves nothing behind."""
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

    async def import_blob(self, digest: Digest, size: int, chunks: AsyncIterator[bytes]) -> bool:
        """Store a blob for an operator, as `write_blob` does; raise `StoreFullError` rather than evict anything."""
        await self._check_room(size)
        return await self.write_blob(digest, size, chunks)

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
                "serve with a larger --store-size, or make room with `compiler-daemon gc --max-size`"
            )

    # Below: in threads.

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
            return self._cache.keep(decoded, manifest, graph, program)

    def _import(self, decoded: Manifest, manifest: bytes, graph: bytes | None, program: str) -> bool:
        if graph is not None and self._store.graphs(environment=decoded.environment, key=decoded.key):
            graph = None
        with self._store.pin([blob.sha256 for blob in decoded.blobs]):
            return self._cache.keep(decoded, manifest, graph, program)


def _checked_graph(data: bytes, size: int | None = None) -> bytes:
    size = len(data) if size is None else size
    if not 0 < size <= MAX_GRAPH_BYTES:
        raise MalformedError(f"a graph has from 1 to {MAX_GRAPH_BYTES} bytes, not {size}")
    return data
