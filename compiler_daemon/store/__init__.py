"""The artifact store: an index in SQLite over blob files named by their SHA-256. Enter by `Store.open`.

The files are the truth and the index follows them; see docs/decisions/0002-store-sqlite-and-blob-files.md. Nothing
here knows of gRPC, of torch, or of what the blobs contain.
"""

from compiler_daemon.store.blob_writer import BlobWriter
from compiler_daemon.store.config import StoreConfig
from compiler_daemon.store.errors import (
    BlobDamagedError,
    BlobMissingError,
    DiskFullError,
    StoreClosedError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreReadOnlyError,
    StoreUnsafeError,
    StoreVanishedError,
)
from compiler_daemon.store.rows import ArtifactRow, GcReport, ScanReport, StoredArtifact, StoredGraph, StoreUsage
from compiler_daemon.store.samples import FigureSample, Step
from compiler_daemon.store.store import Store

__all__ = [
    "ArtifactRow",
    "BlobDamagedError",
    "BlobMissingError",
    "BlobWriter",
    "DiskFullError",
    "FigureSample",
    "GcReport",
    "ScanReport",
    "Step",
    "Store",
    "StoreClosedError",
    "StoreConfig",
    "StoreDamagedError",
    "StoreError",
    "StoreFullError",
    "StoreLockedError",
    "StoreReadOnlyError",
    "StoreUnsafeError",
    "StoreUsage",
    "StoreVanishedError",
    "StoredArtifact",
    "StoredGraph",
]
