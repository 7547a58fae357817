"""What can be wrong with bytes from the other side.

WireError                 the base: catch this where any malformed input means the same
  MalformedError          not of the form it should have: wrong type, missing field, unknown version, too big
  SignatureError          the signature does not match; nothing of the artifact may be used
  DigestError             bytes are not the ones that their digest names
"""


class WireError(ValueError):
    """Bytes from the other side cannot be used."""


class MalformedError(WireError):
    """The bytes do not have the form they should have."""


class SignatureError(WireError):
    """The signature does not match."""


class DigestError(WireError):
    """The bytes are not the ones that their digest names."""
