"""What may be believed: the checks between bytes from the daemon and anything that is made of them.

The manifest is bound to the asked key and our environment by its signature, and the blobs to the manifest by their
digests. What these functions let through may be unpickled and loaded; nothing else ever is.
"""

from __future__ import annotations

from compile_client.errors import BadDigestError, BadSignatureError, MalformedAnswerError
from compile_wire.digest import Digest, check_digest
from compile_wire.errors import DigestError, MalformedError, SignatureError
from compile_wire.facts import Facts, decode_facts
from compile_wire.manifest import BlobRef, Manifest, decode_manifest
from compile_wire.signature import verify_artifact, verify_facts


def verified_manifest(secret: bytes, signature: bytes, data: bytes, *, key: str, environment: Digest) -> Manifest:
    """Return the manifest in `data`, signed for exactly this key and environment; raise `ArtifactError` otherwise."""
    try:
        verify_artifact(secret, signature, key=key, environment=environment, manifest=data)
        manifest = decode_manifest(data)
    except SignatureError as error:
        raise BadSignatureError(f"an artifact of the daemon is not to be trusted: {error}") from error
    except MalformedError as error:
        raise MalformedAnswerError(f"an artifact's manifest is malformed: {error}") from error
    if manifest.key != key or manifest.environment != environment:
        raise MalformedAnswerError("an artifact's manifest names another key or environment")
    return manifest


def verified_blob(data: bytes, ref: BlobRef) -> bytes:
    """Return `data` where it is the blob of the manifest; raise `BadDigestError` otherwise."""
    if len(data) != ref.size:
        raise BadDigestError(f"a blob has {len(data)} bytes, and {ref.size} in its manifest")
    try:
        check_digest(data, ref.sha256)
    except DigestError as error:
        raise BadDigestError(f"a blob was damaged in the store or on the way: {error}") from error
    return data


def verified_facts(secret: bytes, signature: bytes, data: bytes, *, environment: Digest) -> Facts:
    """Return the facts in `data`, signed for this environment; raise `ArtifactError` otherwise."""
    try:
        verify_facts(secret, signature, environment=environment, facts=data)
        return decode_facts(data)
    except SignatureError as error:
        raise BadSignatureError(f"the daemon's facts are not to be trusted: {error}") from error
    except MalformedError as error:
        raise MalformedAnswerError(f"the daemon's facts are malformed: {error}") from error
