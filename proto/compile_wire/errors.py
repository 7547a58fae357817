"""What can be wrong with bytes from the other side, and with the way to it.

WireError                 the base: catch this where any malformed input means the same
  MalformedError          not of the form it should have: wrong type, missing field, unknown version, too big
  SignatureError          the signature does not match; nothing of the artifact may be used
  DigestError             bytes are not the ones that their digest names
EndpointError             the base of what `compile_wire.endpoint` raises; each side makes its own errors of it
  AddressError            the address is none, or none that can be used here
  PeerError               another user serves the socket
  UnsafeError             others could have written what would be trusted, or read what must stay secret
    UnsafeDirectoryError  others own a directory, or can reach it
    UnsafeFileError       others own a file, or can reach it
    NotAFileError         it is a pipe, a device, a directory
  UnusableFileError       a file of ours that is too long, or holds no token, secret or key
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

AddressFlaw = Literal["form", "path", "length", "clear"]
"""What is wrong with an address: its form, its path, its path's length, or that it is elsewhere and TLS is not used."""


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
    """The address is none, or none that can be used here."""

    def __init__(self, text: str, *, flaw: AddressFlaw) -> None:
        super().__init__(text)
        self.flaw: AddressFlaw = flaw


class PeerError(EndpointError):
    """Another user serves the socket."""

    def __init__(self, text: str, *, whose: str) -> None:
        super().__init__(text)
        self.whose = whose
        """Process and users, in words."""


class UnsafeError(EndpointError):
    """Others could have written what would be trusted, or could read what must stay secret."""

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self.path = path


class UnsafeDirectoryError(UnsafeError):
    """Others own a directory, or can reach it."""


class UnsafeFileError(UnsafeError):
    """Others own a file, or can reach it."""


class NotAFileError(UnsafeError):
    """What should be a plain file is a pipe, a device or a directory."""


class UnusableFileError(EndpointError):
    """A file of ours is too long, or does not hold what it should."""

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self.path = path
