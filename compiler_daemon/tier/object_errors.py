"""Why an object of the shared tier is not used. Each is a miss; `reason` is the name of its counter.

ObjectError                     the base: catch this where any object that cannot be used means the same
  MalformedObjectError          malformed           not of the form it should have: cut short, damaged, too new
  ObjectTooLargeError           too_large           larger, or declared larger, than is taken from a tier
  WrongKeyError                 wrong_key           another key's, another environment's, or of another purpose
  UnknownSignerError            unknown_signer      signed by somebody who is not trusted here
  DistrustedSignerError         distrusted_signer   signed by somebody who was trusted here once
  BadSignatureError             bad_signature       no signature fits the signer that it names
  OriginRefusedError            origin_refused      signed and whole, and made by whom `accept` leaves out

Who made the object wrote the texts in it; here they are checked to be plain and short before they are in a message.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from compiler_daemon.errors import DaemonError

Reason = Literal[
    "malformed",
    "too_large",
    "wrong_key",
    "unknown_signer",
    "distrusted_signer",
    "bad_signature",
    "origin_refused",
]


class ObjectError(DaemonError):
    """An object of the tier is not used."""

    code = "DATA_LOSS"
    reason: ClassVar[Reason]


class MalformedObjectError(ObjectError):
    """The object does not have the form it should have."""

    reason = "malformed"


class ObjectTooLargeError(ObjectError):
    """The object is larger, or says that it is, than what is taken from a tier."""

    reason = "too_large"


class WrongKeyError(ObjectError):
    """The object is signed, and for something else than was asked for."""

    reason = "wrong_key"


class UnknownSignerError(ObjectError):
    """Nobody who is trusted here has signed the object."""

    reason = "unknown_signer"

    def __init__(self, line: str, host: str) -> None:
        """`line` is the signer's public line, whose signature fits."""
        signer = line.partition(":")[0]
        super().__init__(
            f"signed by {signer} on {host}, who is not trusted here: if that machine is yours, "
            f"`compiler-daemon keys trust {line}`"
        )
        self.signer = signer
        self.line = line
        self.host = host


class DistrustedSignerError(ObjectError):
    """The object is signed by somebody who was taken off the list."""

    reason = "distrusted_signer"

    def __init__(self, line: str, host: str) -> None:
        """`line` is the signer's public line."""
        signer = line.partition(":")[0]
        super().__init__(
            f"signed by {signer} on {host}, who was distrusted here: compiled again; that machine needs a new key, "
            "`compiler-daemon keys signer init NAME --replace`"
        )
        self.signer = signer
        self.line = line
        self.host = host


class BadSignatureError(ObjectError):
    """A signature does not fit the signer that it names: damaged, or forged."""

    reason = "bad_signature"


class OriginRefusedError(ObjectError):
    """The object was made by a trainer where only those of workers are accepted."""

    reason = "origin_refused"
