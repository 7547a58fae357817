"""Signatures over artifacts: who can write to the transport or the disk still cannot make a client load code.

HMAC-SHA256 with a secret that only the daemon's user can read (a 0600 file in a 0700 directory). The first byte names
the scheme, so that another can be added beside it. The signed text binds key and environment to the manifest, and the
manifest binds the blobs by their digests: nothing can be swapped for something else that was signed.
"""

from __future__ import annotations

import hashlib
import hmac

from compile_wire.digest import Digest, digest_of
from compile_wire.errors import SignatureError

_HMAC_SHA256 = b"\x01"
SECRET_BYTES = 32


def sign_artifact(secret: bytes, *, key: str, environment: Digest, manifest: bytes) -> bytes:
    """Return the signature of an artifact."""
    return _HMAC_SHA256 + _mac(secret, "artifact", key, environment, digest_of(manifest))


def verify_artifact(secret: bytes, signature: bytes, *, key: str, environment: Digest, manifest: bytes) -> None:
    """Raise `SignatureError` unless `signature` is the one over exactly this key, environment and manifest."""
    _verify(signature, sign_artifact(secret, key=key, environment=environment, manifest=manifest))


def sign_facts(secret: bytes, *, environment: Digest, facts: bytes) -> bytes:
    """Return the signature of an environment's facts."""
    return _HMAC_SHA256 + _mac(secret, "facts", environment, digest_of(facts))


def verify_facts(secret: bytes, signature: bytes, *, environment: Digest, facts: bytes) -> None:
    """Raise `SignatureError` unless `signature` is the one over exactly these facts."""
    _verify(signature, sign_facts(secret, environment=environment, facts=facts))


def sign_bundle(secret: bytes, *, index: bytes) -> bytes:
    """Return the signature of a bundle's index, which names everything in the bundle by its digest."""
    return _HMAC_SHA256 + _mac(secret, "bundle", digest_of(index))


def verify_bundle(secret: bytes, signature: bytes, *, index: bytes) -> None:
    """Raise `SignatureError` unless `signature` is the one over exactly this index."""
    _verify(signature, sign_bundle(secret, index=index))


def secret_fingerprint(secret: bytes) -> str:
    """Return what tells secrets apart and gives nothing of them away: 16 hex digits."""
    return _mac(secret, "fingerprint").hex()[:16]


def _mac(secret: bytes, *parts: str) -> bytes:
    if len(secret) != SECRET_BYTES:
        raise SignatureError(f"the signing secret has {len(secret)} bytes, not {SECRET_BYTES}")
    mac = hmac.new(secret, b"compile-daemon v1", hashlib.sha256)
    for part in parts:
        data = part.encode()
        mac.update(len(data).to_bytes(8, "big") + data)
    return mac.digest()


def _verify(given: bytes, expected: bytes) -> None:
    if not hmac.compare_digest(given, expected):
        raise SignatureError("the signature does not match: made by another daemon, or changed on the way")
