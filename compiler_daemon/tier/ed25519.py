"""Ed25519: keys made, messages signed, signatures verified.

The one module of the tier with `cryptography`, which is imported when the first key is used: a daemon without a tier
never loads it.
"""

from __future__ import annotations

KEY_BYTES = 32
"""Of a public key, and of the seed that a private key is made from."""

SIGNATURE_BYTES = 64

_FIELD = 2**255 - 19
_CURVE = -121665 * pow(121666, -1, _FIELD) % _FIELD
"""The curve is -x² + y² = 1 + d x² y², and this is d."""


def generate() -> tuple[bytes, bytes]:
    """Return a new key: its seed, and its public key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    return key.private_bytes_raw(), key.public_key().public_bytes_raw()


def public_of(seed: bytes) -> bytes:
    """Return the public key of a seed."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign(seed: bytes, message: bytes) -> bytes:
    """Return the signature over the message."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def verifies(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the signature over the message is the key's. Whose word counts is for `is_public_key` first."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):  # ValueError: of another length
        return False
    return True


def is_public_key(public: bytes) -> bool:
    """Whether these bytes are a point of the curve that is good for a key.

    OpenSSL loads any 32 bytes, and takes one signature for that of every message under a point of small order.
    """
    y = int.from_bytes(public, "little") & (2**255 - 1)
    if len(public) != KEY_BYTES or y >= _FIELD:
        return False
    # x² = (y² - 1) / (d y² + 1): a point is there where that has a root.
    square = (y * y - 1) * pow(_CURVE * y * y + 1, -1, _FIELD) % _FIELD
    if square and pow(square, (_FIELD - 1) // 2, _FIELD) != 1:
        return False
    return not _has_small_order(y, square)


def _has_small_order(y: int, square: int) -> bool:
    """Whether eight times the point is nothing: doubled three times, by y and x² alone, it ends where y is 1."""
    for _ in range(3):
        # y of the double: (y² + x²) / (1 - d x² y²), and x² from the equation of the curve.
        product = _CURVE * square * y * y % _FIELD
        y = (y * y + square) * pow(1 - product, -1, _FIELD) % _FIELD
        square = (y * y - 1) * pow(_CURVE * y * y + 1, -1, _FIELD) % _FIELD
    return y == 1
