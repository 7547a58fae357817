"""The same questions about what is kept, where no daemon serves: the store is opened here, as a daemon would.

Guarantees: no daemon has the store meanwhile, which the directory's lock decides, and one that starts waits for a
moment. Nothing is evicted unless that was asked for: how large the store may be is what a daemon is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from compile_wire.digest import Digest
from compile_wire.endpoint.address import UnixAddress
from compile_wire.endpoint.credentials import is_clients
from compiler_daemon.access.directory import DirectoryLock
from compiler_daemon.admin.inventory.calls import Description, InventoryClient
from compiler_daemon.config import DaemonConfig, DaemonLocation
from compiler_daemon.errors import DaemonError
from compiler_daemon.insight.inventory import find_named
from compiler_daemon.insight.inventory_values import Collected, EnvironmentView
from compiler_daemon.store import ArtifactRow, BlobMissingError, Store, StoreConfig, StoredGraph, StoreError

_NO_LIMIT = 2**62


class StoredInventory(InventoryClient):
    """Answers what `InventoryClient` asks, from an open store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def artifacts(
        self, *, environment: str = "", program: str = "", origin: str = "", pinned_only: bool = False
    ) -> list[ArtifactRow]:
        """Return artifacts, newest first."""
        return [
            row
            for row in self._store.artifacts()
            if row.environment.startswith(environment)
            and program in ("", row.program)
            and origin in ("", row.origin)
            and (row.pinned or not pinned_only)
        ]

    def requests(self, *, environment: str = "", program: str = "") -> list[StoredGraph]:
        """Return the graphs that were asked for, newest first."""
        rows = self._store.graphs()
        return [row for row in rows if row.environment.startswith(environment) and program in ("", row.program)]

    def environments(self) -> dict[Digest, EnvironmentView]:
        """Return every environment by its id, oldest first; nobody serves any."""
        return {
            environment: EnvironmentView(environment=environment, fields=fields, served=False)
            for environment, fields in self._store.environments().items()
        }

    def describe(self, name: str) -> tuple[list[Description], list[StoredGraph]]:
        """Return everything of a name; raise `DaemonError` where it means nothing, or several things."""
        named = find_named(name, self._store.artifacts(), self._store.graphs())
        found = [(row, self._store.artifact(row.digest)) for row in named.artifacts]
        described = [
            Description(row=row, manifest=stored.manifest, signature=stored.signature)
            for row, stored in found
            if stored is not None
        ]
        return described, list(named.requests)

    def graph(self, digest: Digest) -> Iterator[bytes]:
        """Yield a graph's bytes; raise `DaemonError` where they are not kept, or damaged."""
        try:
            yield self._store.get_graph(digest)
        except StoreError as error:
            raise DaemonError(str(error)) from error

    def remove(self, digests: Sequence[Digest]) -> int:
        """Remove artifacts; return how many there were."""
        return sum(self._store.remove(digest) for digest in digests)

    def set_pinned(self, digests: Sequence[Digest], pinned: bool) -> int:
        """Pin or unpin artifacts; return how many of them are stored."""
        changed = 0
        for digest in digests:
            try:
                self._store.set_pinned(digest, pinned)
                changed += 1
            except BlobMissingError:
                continue
        return changed

    def collect(self, *, dry_run: bool, max_bytes: int | None, unused_s: float | None) -> Collected:
        """Collect, or say what would go. Without `max_bytes` the size of the store is no reason."""
        rows = {row.digest: row for row in self._store.artifacts()}
        report = self._store.collect(
            dry_run=dry_run, max_bytes=_NO_LIMIT if max_bytes is None else max_bytes, max_age_s=unused_s
        )
        return Collected(report=report, artifacts=[rows[digest] for digest in report.gone if digest in rows])


def nobody_serves(place: DaemonLocation) -> bool:
    """Whether a place has a store of this machine, and no daemon that would answer for it."""
    if is_clients(place.directory) or not (place.address is None or isinstance(place.address, UnixAddress)):
        return False
    return (_config(place).store_root / "index.sqlite3").is_file() and not DirectoryLock(place.directory).is_held()


@contextmanager
def opened_store(place: DaemonLocation) -> Iterator[Store]:
    """Open the store of a place that nobody serves. Raises `DaemonError` where it cannot be, or somebody serves now."""
    lock = DirectoryLock(place.directory)
    lock.acquire()
    try:
        with Store.open(StoreConfig(root=_config(place).store_root, max_bytes=_NO_LIMIT)) as store:
            yield store
    except StoreError as error:
        raise DaemonError(str(error)) from error
    finally:
        lock.release()


def _config(place: DaemonLocation) -> DaemonConfig:
    return DaemonConfig(directory=place.directory, address=place.address or place.default_address)
