"""SHA-256 digests in hex: the names of blobs, manifests, graphs and environments."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import NewType

from compile_wire.errors import DigestError, MalformedError

Digest = NewType("Digest", str)
"""64 lower-case hex digits."""

_HEX = re.compile(r"[0-9a-f]{64}")


def digest_of(data: bytes | bytearray | memoryview) -> Digest:
    """Return the digest of `data`."""
    return Digest(hashlib.sha256(data).hexdigest())


def parse_digest(text: str) -> Digest:
    """Return `text` as a digest; raise `MalformedError` where it is none."""
    if not _HEX.fullmatch(text):
        raise MalformedError(f"not a SHA-256 in lower-case hex: {text[:80]!r}")
    return Digest(text)


def check_digest(data: bytes | bytearray | memoryview, expected: Digest) -> None:
    """Raise `DigestError` where `data` is not what `expected` names."""
    if not hmac.compare_digest(digest_of(data), expected):
        raise DigestError(f"{len(data)} bytes do not match their digest {expected[:12]}")
