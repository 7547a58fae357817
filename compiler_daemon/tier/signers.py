"""Who signs for the shared tier, and who of them is believed: names, public lines, keys, standing.

A signer is a name with a number (`lab-1`; after a loss comes `lab-2`), and its public line is `NAME:BASE64`, as Nix has
it. Nothing here shows a private key. `signer_files` has what lies on the disk.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Literal

from compiler_daemon.errors import KeysError
from compiler_daemon.text.findings import Finding, note, ok, problem
from compiler_daemon.tier import ed25519

MAX_NAME_TEXT = 64

Standing = Literal["trusted", "distrusted", "unknown", "another_key"]
"""What is known of who signed: `another_key` is a known name with a key that is not its own."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,55}-[0-9]{1,7}")


@dataclass(frozen=True, slots=True)
class Signer:
    """A name and the public key that goes with it."""

    name: str
    public: bytes

    @property
    def line(self) -> str:
        """The public line: what others trust."""
        return f"{self.name}:{base64.b64encode(self.public).decode()}"

    @classmethod
    def parse(cls, line: str) -> Signer:
        """Return the signer of a public line; raise `KeysError`, saying what is wrong, where it is none."""
        name, colon, text = line.strip().partition(":")
        if not colon:
            raise KeysError(
                f"{line[:40]!r} is no public line of a signer: NAME:BASE64, as `keys signer init` prints it"
            )
        check_signer_name(name)
        public = bytes_of(text, name)
        if len(public) == 2 * ed25519.KEY_BYTES:
            raise KeysError(
                f"that is the private key of {name}: show it to nobody; "
                "`compiler-daemon keys signers` prints the public line"
            )
        if not ed25519.is_public_key(public):
            raise KeysError(
                f"what stands after {name}: is no public key; "
                "copy the whole line that `compiler-daemon keys signers` prints on the other machine"
            )
        return cls(name, public)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The key that a directory signs with."""

    signer: Signer
    seed: bytes = field(repr=False)

    @classmethod
    def make(cls, name: str) -> SigningKey:
        """Return a new key; raise `KeysError` where that is no signer's name."""
        check_signer_name(name)
        seed, public = ed25519.generate()
        return cls(Signer(name, public), seed)

    def sign(self, message: bytes) -> bytes:
        """Return the signature over a message."""
        return ed25519.sign(self.seed, message)


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """A signer in the list of a directory."""

    signer: Signer
    since: float
    """When that was said, in seconds since the epoch; 0 where nobody wrote it down."""
    distrusted: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class SignerList:
    """Whom a directory believes: itself, and those in its list."""

    own: SigningKey | None = None
    listed: tuple[Listed, ...] = ()

    def standing(self, signer: Signer) -> Standing:
        """Say what is known of a signer. A key that was distrusted stays so under every name."""
        if any(one.distrusted and signer.public == one.signer.public for one in self.listed):
            return "distrusted"
        known = [one.signer for one in self.listed] + ([self.own.signer] if self.own is not None else [])
        if signer in known:
            return "trusted"
        return "another_key" if signer.name in {one.name for one in known} else "unknown"

    @property
    def trusted(self) -> tuple[Signer, ...]:
        """All that are believed."""
        own = (self.own.signer,) if self.own is not None else ()
        known = dict.fromkeys((*own, *(one.signer for one in self.listed)))
        return tuple(signer for signer in known if self.standing(signer) == "trusted")


def signer_findings(known: SignerList) -> list[Finding]:
    """Return what a tier is worth to a directory with these signers, in words."""
    name = known.own.signer.name if known.own is not None else ""
    others = [signer.name for signer in known.trusted if signer.name != name]
    init = "`compiler-daemon keys signer init NAME`"
    found = []
    if known.own is None:
        found.append(note("tier signer", f"no key of its own: this daemon reads, and shares nothing; {init} makes one"))
    elif known.own.signer not in known.trusted:
        found.append(problem("tier signer", f"{name} is distrusted here, and signs all the same: {init} --replace"))
    else:
        found.append(ok("tier signer", f"signs as {name}"))
    if not known.trusted:
        text = "nobody's signature is believed: all that is in the tier is a miss"
        found.append(problem("tier signers", f"{text}; `compiler-daemon keys trust NAME:BASE64`"))
    elif not others:
        text = "nobody's signature is believed but its own: what others share is a miss"
        found.append(note("tier signers", f"{text}; `compiler-daemon keys trust NAME:BASE64`"))
    else:
        found.append(ok("tier signers", f"believes {', '.join(others)}"))
    return found


def check_signer_name(name: str) -> str:
    """Return the name; raise `KeysError` where it is none of a signer."""
    if not _NAME.fullmatch(name):
        raise KeysError(
            f"{name[:80]!r} is no signer's name: letters, digits, dot, dash and underscore, then a dash and a number "
            "(lab-1); the number grows when the key is made anew"
        )
    return name


def bytes_of(text: str, name: str) -> bytes:
    """Return what the base64 after a signer's name says; raise `KeysError`, which does not show it, where it is none.

    A private key may have been mistaken for a public one, so that no error holds any of it.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data or base64.b64encode(data).decode() != text:
        raise KeysError(f"what stands after {name}: is not base64; copy the whole line NAME:BASE64")
    return data
