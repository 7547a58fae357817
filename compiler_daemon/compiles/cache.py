"""Artifacts as compiles see them: looked up, here and in the shared tiers, and stored when a worker has made them.

Guarantees: what is handed out was signed by this daemon and had all its blobs a moment ago; anything else is a miss,
and counted. What is stored is complete, belongs to the key and environment it is stored under, and is signed only
after both were checked. The bytes of an artifact are never interpreted here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from compile_wire.digest import Digest, digest_of
from compile_wire.errors import DigestError, MalformedError, SignatureError
from compile_wire.limits import MAX_ENTRIES_PER_LOOKUP, MAX_INLINE_BYTES
from compile_wire.manifest import Manifest, Origin, decode_manifest, manifest_digest
from compile_wire.signature import sign_artifact, verify_artifact
from compiler_daemon import metrics
from compiler_daemon.compiles.environments import Environments
from compiler_daemon.jobs import ARTIFACT_KINDS, CompileResult, Entry, Job
from compiler_daemon.store import BlobMissingError, Store, StoredArtifact, StoreError

if TYPE_CHECKING:
    from compiler_daemon.tier.packed import Unpacked
    from compiler_daemon.tier.tier import Found
    from compiler_daemon.tier.tiers import Name, Offer, Tiers

logger = logging.getLogger(__name__)


class Cache:
    """Looks artifacts up and stores them, with keys, environments and signatures checked."""

    def __init__(
        self,
        store: Store,
        environments: Environments,
        *,
        secret: bytes,
        counters: metrics.Counters,
        tiers: Tiers | None = None,
    ) -> None:
        """`tiers` are asked for what is not stored here; None where there are none."""
        self._tiers = tiers
        self._disputed: frozenset[Digest] = frozenset()
        """Taken out of the store since the start: a tier may have them still, and none is taken in again."""
        self._store = store
        self._environments = environments
        self._secret = secret
        self._counters = counters

    async def lookup(self, environment: Digest, key: str, have: Collection[Digest]) -> list[Entry]:
        """Return the artifacts under the key that the client has not tried, newest first; none is a miss.

        What is not here is looked for in the shared tiers, for no longer than a trainer would bear.
        """
        self._environments.fields(environment)
        entries = await asyncio.to_thread(self._find, environment, key, have, counted=True)
        if not entries and self._tiers is not None:
            name = (environment, key, self._disputed.union(have))
            fetched = await self._tiers.fetch_soon(name, lambda: self._fetch(name))
            if fetched is not None:
                entries = [fetched]
                await asyncio.to_thread(self._store.note_hit, fetched.digest)
        self._counters.add(metrics.LOOKUPS)
        self._counters.add(metrics.LOOKUP_HITS if entries else metrics.LOOKUP_MISSES)
        if entries:
            self._counters.add_seconds(metrics.SECONDS_SAVED, entries[0].compile_s)
            if entries[0].origin == "replay":
                self._counters.add(metrics.LOOKUP_HITS_REPLAYED)
        return entries

    async def find(self, environment: Digest, key: str, have: Collection[Digest]) -> list[Entry]:
        """Return the same as `lookup`, without counting it."""
        self._environments.fields(environment)
        return await asyncio.to_thread(self._find, environment, key, have, counted=False)

    async def fetch(self, environment: Digest, key: str, have: Collection[Digest] = ()) -> Entry | None:
        """Return an artifact that a shared tier has, stored here by now; however long a tier takes that answers."""
        if self._tiers is None:
            return None
        name = (environment, key, self._disputed.union(have))
        return await self._tiers.fetch(name, lambda: self._fetch(name))

    async def take_in(self, found: Found) -> Entry:
        """Sign and store an artifact of a shared tier, as one of our own; return it as clients receive it."""
        artifact = found.artifact
        await self._environments.keep(artifact.decoded.environment)
        entry = await asyncio.to_thread(self._take_in, artifact)
        return replace(entry, host=artifact.statement.host)

    async def adopt(self, job: Job, result: CompileResult, tried: Collection[Digest] = ()) -> Entry:
        """Sign and store what a worker made of a job, whose blobs are stored; return it as clients receive it.

        Where there are tiers it is shared first; what another node was faster with is stored and returned in its place,
        unless it is among `tried`. Raises `WireError` where the result is not what the job asked for. The worker ran
        somebody's graph: what it says is taken for nothing more than what it handed over, for the key, environment and
        graph that were asked for.
        """
        decoded = check_manifest(result.manifest, environment=job.environment, key=job.key, origin=job.origin)
        _check_proof(decoded, job, result)
        await self._environments.keep(job.environment)
        await self._environments.note_facts(job.environment, result.facts)
        with self._store.pin([blob.sha256 for blob in decoded.blobs]):
            if self._tiers is not None and (offer := await self._offer(decoded, result.manifest, job.graph, tried)):
                found = await self._tiers.share(offer)
                if found is not None:
                    logger.info("key %s: the artifact of %s was first", job.key[:16], found.artifact.statement.host)
                    return await self.take_in(found)
            return await asyncio.to_thread(self._adopt, job, result, decoded)

    def dispute(self, digest: Digest) -> None:
        """Take an artifact in no more, whoever has it: a trainer that compiled its graph got other code."""
        self._disputed |= {digest}

    async def share_later(self, decoded: Manifest, manifest: bytes, graph: bytes | None) -> None:
        """Have an artifact that is stored here written to the shared tiers, in the background."""
        if self._tiers is not None and (offer := await self._offer(decoded, manifest, graph)):
            await self._tiers.share_later(offer)

    def put_blob(self, digest: Digest, data: bytes) -> None:
        """Store a blob that a worker hands over; called in the worker's thread."""
        self._store.put_blob(digest, data)

    async def has(self, environment: Digest, key: str) -> bool:
        """Return whether an artifact is stored under the key; it does not count as used."""
        rows = await asyncio.to_thread(self._store.artifacts, environment=environment)
        return any(row.key == key for row in rows)

    async def was_asked_for(self, environment: Digest, key: str, graph: bytes) -> bool:
        """Return whether this graph was once asked for under this key, by somebody who may publish."""
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

    async def _fetch(self, name: Name) -> Entry | None:
        """Fetch an artifact from the tiers, unless another fetch has stored it since the caller looked."""
        environment, key, tried = name
        here = await asyncio.to_thread(self._find, environment, key, tried, counted=False)
        if here or self._tiers is None:
            return here[0] if here else None
        found = await self._tiers.find(name)
        return await self.take_in(found) if found is not None else None

    # Below: in threads.

    def keep(self, decoded: Manifest, manifest: bytes, graph: bytes | None, program: str) -> bool:
        """Sign and store a checked artifact, whose blobs are stored, and its graph; return whether it was new."""
        stored = self._store.put_artifact(manifest, self._sign(decoded, manifest), program=program)
        if graph is not None:
            try:
                self._store.put_graph(decoded.environment, decoded.key, graph, program=program)
            except StoreError as error:
                # Kept for replay and for explaining misses; the artifact is good without it.
                logger.warning("the graph of key %s is not kept: %s", decoded.key[:16], error)
        return stored

    def _find(self, environment: Digest, key: str, have: Collection[Digest], *, counted: bool) -> list[Entry]:
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
        if entries and counted:
            # Of the artifact that torch tries first, as the daemon's own counters: all views say the same.
            self._store.note_hit(entries[0].digest)
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

    async def _offer(
        self, decoded: Manifest, manifest: bytes, graph: bytes | None, tried: Collection[Digest] = ()
    ) -> Offer | None:
        from compiler_daemon.tier.tiers import Offer

        facts = await self._environments.known_facts(decoded.environment)
        try:
            blobs = await asyncio.to_thread(self._blobs, decoded)
        except BlobMissingError:
            return None  # said where it is stored
        return Offer(
            environment=decoded.environment,
            key=decoded.key,
            manifest=manifest,
            blobs=blobs,
            graph=graph,
            facts=facts,
            tried=frozenset(self._disputed.union(tried)),
        )

    def _blobs(self, decoded: Manifest) -> dict[Digest, bytes]:
        return {digest: self._store.read_blob(digest) for digest in {blob.sha256 for blob in decoded.blobs}}

    def _take_in(self, artifact: Unpacked) -> Entry:
        decoded = artifact.decoded
        with self._store.pin(artifact.blobs):
            for digest, data in artifact.blobs.items():
                self._store.put_blob(digest, data)
            self.keep(decoded, artifact.manifest, artifact.graph, "")
        return self._made(artifact.manifest, decoded)

    def _adopt(self, job: Job, result: CompileResult, decoded: Manifest) -> Entry:
        with self._store.pin([blob.sha256 for blob in decoded.blobs]):
            try:
                self.keep(decoded, result.manifest, job.graph, job.program)
            except BlobMissingError as error:
                raise MalformedError(f"the worker did not hand over what it promised: {error}") from error
            try:
                self._store.note_compile(job.environment, job.key, result.seconds)
            except StoreError as error:
                logger.warning("the time of key %s is not kept: %s", job.key[:16], error)
            return self._made(result.manifest, decoded)

    def _made(self, manifest: bytes, decoded: Manifest) -> Entry:
        """Return what was stored a moment ago as clients receive it."""
        stored = StoredArtifact(
            manifest=manifest,
            signature=self._sign(decoded, manifest),
            digest=manifest_digest(manifest),
            blobs=tuple({blob.sha256 for blob in decoded.blobs}),
        )
        entry = self._entry(stored, decoded.environment, decoded.key, MAX_INLINE_BYTES - len(manifest))
        if entry is None:
            raise DigestError("the artifact could not be read back from the store")
        return entry

    def _sign(self, decoded: Manifest, manifest: bytes) -> bytes:
        return sign_artifact(self._secret, key=decoded.key, environment=decoded.environment, manifest=manifest)


def check_manifest(manifest: bytes, *, environment: Digest, key: str, origin: Origin) -> Manifest:
    """Return the manifest, decoded; raise `MalformedError` unless it belongs to this key, environment and origin."""
    decoded = decode_manifest(manifest)
    if decoded.key != key or decoded.environment != environment:
        raise MalformedError("the manifest belongs to another key or environment")
    if decoded.origin != origin:
        raise MalformedError(f"the manifest's origin is {decoded.origin}, not {origin}")
    return decoded


def _check_proof(decoded: Manifest, job: Job, result: CompileResult) -> None:
    """Raise `MalformedError` unless the manifest is of this job's graph, and of all the blobs that came for it."""
    if decoded.graph != digest_of(job.graph):
        raise MalformedError("the worker's manifest names another graph than the job's")
    if decoded.kind != ARTIFACT_KINDS[job.kind]:
        raise MalformedError(f"the worker made a {decoded.kind} where one of the {job.kind} was asked for")
    if {blob.sha256: blob.size for blob in decoded.blobs} != result.blobs:
        raise MalformedError("the worker's manifest names other blobs than it handed over")
