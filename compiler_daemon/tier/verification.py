"""Whether an object may be believed: its bytes are those that were signed, by somebody who is trusted.

One trusted signer is enough, and signatures of strangers beside it do no harm. A signature that does not fit is never
passed over: somebody has changed something.
"""

from __future__ import annotations

import hmac

from compile_wire.digest import Digest, digest_of
from compiler_daemon.tier import ed25519
from compiler_daemon.tier.header import Header, Signature, text_to_sign
from compiler_daemon.tier.object_errors import (
    BadSignatureError,
    DistrustedSignerError,
    MalformedObjectError,
    UnknownSignerError,
)
from compiler_daemon.tier.signers import Signer, SignerList


def check_signatures(header: Header, trusted: SignerList) -> Signer:
    """Return the trusted signer whose signature fits.

    Raises `BadSignatureError` where one does not fit, `DistrustedSignerError` or `UnknownSignerError` where none is of
    somebody who is trusted. An unknown signer's fits the key that it brings, so that trusting that key is of use.
    """
    for one in header.signatures:
        _check_signature(one, header.signed, trusted)
    standings = {one.signer: trusted.standing(one.signer) for one in header.signatures}
    by_standing = {standing: signer for signer, standing in reversed(standings.items())}
    if (believed := by_standing.get("trusted")) is not None:
        return believed
    host = header.statement.host
    if (distrusted := by_standing.get("distrusted")) is not None:
        raise DistrustedSignerError(distrusted.line, host)
    raise UnknownSignerError(by_standing["unknown"].line, host)


def check_part(data: bytes | memoryview, expected: Digest | str, what: str) -> None:
    """Raise `MalformedObjectError` where the bytes are not those that were named under the signature."""
    if not hmac.compare_digest(digest_of(data), expected):
        raise MalformedObjectError(f"its {what} is not the one that was signed: damaged, or changed")


def _check_signature(one: Signature, signed: bytes, trusted: SignerList) -> None:
    name = one.signer.name
    if trusted.standing(one.signer) == "another_key":
        raise BadSignatureError(
            f"signed under the name of {name} with another key than the one that is known here: if {name} has a new "
            "key, give it the next number"
        )
    if not ed25519.verifies(one.signer.public, one.signature, text_to_sign(name, signed)):
        raise BadSignatureError(f"the signature of {name} does not fit: the object is damaged, or forged")
