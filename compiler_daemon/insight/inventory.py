"""What is kept, as an operator sees it: listed, found by a short name, pinned, removed, collected.

Looking counts nothing as used. Names are those that docker's users know: any beginning that means one thing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence

from compile_wire.digest import Digest
from compile_wire.limits import CHUNK_BYTES
from compiler_daemon import metrics
from compiler_daemon.compiles.environments import Environments
from compiler_daemon.errors import AmbiguousNameError, NothingNamedError
from compiler_daemon.insight.inventory_values import Collected, EnvironmentView, Named
from compiler_daemon.store import ArtifactRow, BlobMissingError, Store, StoredArtifact, StoredGraph

_DIGEST_LENGTH = 64
_CANDIDATES = 8
"""Named where a name means several things."""


class Inventory:
    """Answers an operator's commands about the store: list, show, pin, remove, collect."""

    def __init__(self, store: Store, environments: Environments, *, counters: metrics.Counters) -> None:
        self._store = store
        self._environments = environments
        self._counters = counters

    async def artifacts(self, wanted: Callable[[ArtifactRow], bool]) -> list[ArtifactRow]:
        """Return the artifacts that are wanted, newest first."""
        return [row for row in await asyncio.to_thread(self._store.artifacts) if wanted(row)]

    async def requests(self, wanted: Callable[[StoredGraph], bool]) -> list[StoredGraph]:
        """Return the requests that are wanted, newest first."""
        return [row for row in await asyncio.to_thread(self._store.graphs) if wanted(row)]

    async def environments(self) -> list[EnvironmentView]:
        """Return every environment, those that are kept before those that were only named, and the oldest first."""
        known = await asyncio.to_thread(self._store.environments) | self._environments.known()
        return [
            EnvironmentView(
                environment=environment, fields=fields, served=await self._environments.is_served(environment)
            )
            for environment, fields in known.items()
        ]

    async def named(self, name: str) -> Named:
        """Return everything that is called so: by its key, or by the digest of artifact or graph, whole or begun.

        Raises `NothingNamedError` and `AmbiguousNameError`.
        """
        if len(name) == _DIGEST_LENGTH and (named := await asyncio.to_thread(self._artifact_named, Digest(name))):
            return named  # without going through everything: who exports asks for each
        artifacts, requests = await asyncio.gather(
            asyncio.to_thread(self._store.artifacts), asyncio.to_thread(self._store.graphs)
        )
        return find_named(name, artifacts, requests)

    async def artifact(self, digest: Digest) -> StoredArtifact | None:
        """Return an artifact's manifest and signature; None where it has gone."""
        return await asyncio.to_thread(self._store.artifact, digest)

    async def graph(self, digest: Digest) -> AsyncGenerator[bytes, None]:
        """Yield a graph in chunks."""
        data = await asyncio.to_thread(self._store.get_graph, digest)
        for begin in range(0, len(data), CHUNK_BYTES):
            yield data[begin : begin + CHUNK_BYTES]

    async def missing(self, digests: Iterable[Digest]) -> list[Digest]:
        """Return the blobs that are not stored."""
        return await asyncio.to_thread(self._store.missing_blobs, digests)

    async def remove(self, digests: Collection[Digest]) -> int:
        """Remove artifacts; return how many there were."""
        removed = 0
        for digest in digests:
            removed += await asyncio.to_thread(self._store.remove, digest)
        self._counters.add(metrics.ARTIFACTS_REMOVED, removed)
        return removed

    async def set_pinned(self, digests: Collection[Digest], pinned: bool) -> int:
        """Pin or unpin artifacts; return how many of them are stored."""
        return sum([await asyncio.to_thread(self._set_pinned, digest, pinned) for digest in digests])

    async def collect(self, *, dry_run: bool, max_bytes: int | None, unused_s: float | None) -> Collected:
        """Collect, for this once with another limit and age where they are given."""
        rows = {row.digest: row for row in await asyncio.to_thread(self._store.artifacts)}
        report = await asyncio.to_thread(self._store.collect, dry_run=dry_run, max_bytes=max_bytes, max_age_s=unused_s)
        return Collected(report=report, artifacts=[rows[digest] for digest in report.gone if digest in rows])

    def _artifact_named(self, digest: Digest) -> Named | None:
        rows = self._store.artifacts(digest=digest)
        if not rows:
            return None
        return Named(artifacts=rows, requests=self._store.graphs(environment=rows[0].environment, key=rows[0].key))

    def _set_pinned(self, digest: Digest, pinned: bool) -> bool:
        try:
            self._store.set_pinned(digest, pinned)
        except BlobMissingError:
            return False
        return True


def find_named(name: str, artifacts: Sequence[ArtifactRow], requests: Sequence[StoredGraph]) -> Named:
    """Return what `name` means among these. See `Inventory.named`."""
    keys = {row.key for row in artifacts} | {row.key for row in requests}
    digests = {row.digest for row in artifacts}
    graphs = {row.graph for row in requests} | {row.graph for row in artifacts if row.graph}
    meanings: set[tuple[str, str]] = set()
    if name:
        for kind, known in (("key", keys), ("artifact", digests), ("graph", graphs)):
            if name in known:
                meanings = {(kind, name)}
                break
            meanings |= {(kind, full) for full in known if full.startswith(name)}
    if not meanings:
        raise NothingNamedError(name)
    if len(meanings) > 1:
        some = ", ".join(f"{kind} {full[:16]}" for kind, full in sorted(meanings)[:_CANDIDATES])
        more = f" and {len(meanings) - _CANDIDATES} more" if len(meanings) > _CANDIDATES else ""
        raise AmbiguousNameError(f"{name!r} can mean {some}{more}: give more of it")
    ((kind, full),) = meanings
    if kind == "artifact":
        (row,) = (row for row in artifacts if row.digest == full)
        place = (row.environment, row.key)
        return Named(artifacts=[row], requests=[one for one in requests if (one.environment, one.key) == place])
    if kind == "graph":
        return Named(
            artifacts=[row for row in artifacts if row.graph == full],
            requests=[one for one in requests if one.graph == full],
        )
    return Named(
        artifacts=[row for row in artifacts if row.key == full], requests=[one for one in requests if one.key == full]
    )
