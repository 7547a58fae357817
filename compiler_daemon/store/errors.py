"""What can go wrong in the store, and what the wire calls it.

StoreError                  -> UNAVAILABLE          the base; the disk or the index did not do what was asked
  BlobMissingError          -> NOT_FOUND            nothing is stored under that digest
    BlobDamagedError        -> NOT_FOUND            it was, but its bytes no longer match; quarantined
  StoreFullError            -> RESOURCE_EXHAUSTED   the hard limit leaves no room, and nothing may be evicted
    DiskFullError           -> RESOURCE_EXHAUSTED   the disk, a quota or a file size limit leaves no room
  StoreReadOnlyError        -> FAILED_PRECONDITION  the disk or the directory does not let us write
  StoreVanishedError        -> UNAVAILABLE          the directory was removed or unmounted under the running daemon
  StoreDamagedError         -> DATA_LOSS            the index cannot be read; the next start rebuilds it
  StoreUnsafeError          -> FAILED_PRECONDITION  others own the directory or may write to it
  StoreLockedError          -> FAILED_PRECONDITION  another daemon uses the directory
  StoreClosedError          -> UNAVAILABLE          the store was closed

A `BlobDamagedError` is a `BlobMissingError`: who asks for bytes and cannot have them has a miss either way. Wrong bytes
from a caller raise `compile_wire.errors.WireError`, which is not of this tree: the store is well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from compile_wire.digest import Digest


class StoreError(Exception):
    """The store could not do what was asked. The text says what to do; nothing half-done is left behind."""

    code: ClassVar[str] = "UNAVAILABLE"
    """Name of the gRPC status that a caller across the wire is told."""


class BlobMissingError(StoreError):
    """Nothing is stored under one or more digests."""

    code = "NOT_FOUND"

    def __init__(self, digests: Sequence[Digest], text: str = "not stored") -> None:
        more = f" and {len(digests) - 1} more" if len(digests) > 1 else ""
        super().__init__(f"{digests[0][:12]}{more}: {text}")
        self.digests = tuple(digests)


class BlobDamagedError(BlobMissingError):
    """The stored bytes no longer match their digest. They go to quarantine; from now on it is a miss."""

    def __init__(self, digest: Digest) -> None:
        super().__init__([digest], "the stored bytes are damaged, and out of use from now on")


class StoreFullError(StoreError):
    """The hard limit leaves no room, and everything that could be evicted is in use, pinned or too young."""

    code = "RESOURCE_EXHAUSTED"


class DiskFullError(StoreFullError):
    """The disk, a quota or a limit on file sizes leaves no room."""


class StoreReadOnlyError(StoreError):
    """The disk or the directory does not let this user write."""

    code = "FAILED_PRECONDITION"


class StoreVanishedError(StoreError):
    """The directory was removed, replaced or unmounted while the store was open."""

    def __init__(self, root: Path) -> None:
        super().__init__(f"the store {root} has vanished: mount it again or make room for a new one, then restart")
        self.root = root


class StoreDamagedError(StoreError):
    """The index cannot be read. The next start sets it aside and rebuilds it from the files; no artifact is lost."""

    code = "DATA_LOSS"


class StoreUnsafeError(StoreError):
    """Others own the directory or may write to it: what they put there would be run as code."""

    code = "FAILED_PRECONDITION"


class StoreLockedError(StoreError):
    """Another daemon uses the directory."""

    code = "FAILED_PRECONDITION"

    def __init__(self, root: Path, holder: str) -> None:
        super().__init__(
            f"the store {root} is in use by another daemon ({holder or 'it did not say which'}): "
            "stop it, or give this one another directory"
        )
        self.holder = holder


class StoreClosedError(StoreError):
    """The store was closed."""
