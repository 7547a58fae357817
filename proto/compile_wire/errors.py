"""What can be wrong with bytes from the other side, and with the way to it.

WireError                 the base: catch this where any malformed input means the same
  MalformedError          not of the form it should have: wrong type, missing field, unknown version, too big
  SignatureError          the signature does not match; nothing of the artifact may be used
  DigestError             bytes are not the ones that their digest names
EndpointError             the base of what `compile_wire.endpoint` raises; each side makes its own errors of it
  AddressError            the address is none that can be used
  AbsentError             nobody listens there
  SilentError             nobody on another machine answered in time
  UnsafeError             files that others own or can reach, or a stranger behind the socket
  CredentialsError        token, secret or key is missing or unusable
"""


class WireError(ValueError):
    """Bytes from the other side cannot be used."""


class MalformedError(WireError):
    """The bytes do not have the form they should have."""


class SignatureError(WireError):
    """The signature does not match."""


class DigestError(WireError):
    """The bytes are not the ones that their digest names."""


class EndpointError(Exception):
    """The other side cannot be reached, or must not be."""


class AddressError(EndpointError):
    """The address is none that can be used."""


class AbsentError(EndpointError):
    """Nobody listens there."""


class SilentError(EndpointError):
    """Nobody on another machine answered in time."""


class UnsafeError(EndpointError):
    """Others could have written what would be trusted, or could read what must stay secret."""


class CredentialsError(EndpointError):
    """Token, secret or key is missing or unusable."""
