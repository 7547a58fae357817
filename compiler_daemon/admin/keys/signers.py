"""What `compiler-daemon keys signer`, `signers`, `trust` and `distrust` do: who signs for a tier, and who is believed.

Guarantees: as those of `commands`. A running daemon takes up each change by itself, with the next object that it reads
or writes. Nothing returned from here holds a private key.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from compiler_daemon.access.directory import prepare_directory
from compiler_daemon.admin.keys.alone import alone
from compiler_daemon.admin.keys.commands import Change
from compiler_daemon.errors import KeysError
from compiler_daemon.tier.signer_files import SignerFiles
from compiler_daemon.tier.signers import Listed, Signer, SigningKey, check_signer_name


@dataclass(frozen=True, kw_only=True, slots=True)
class NewSigner:
    """Says which key was made, and what to do with it: sentences for an operator."""

    name: str
    line: str
    """What other daemons are to trust."""
    file: str
    next: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SignerView:
    """Describes one signer that a directory knows."""

    name: str
    line: str
    state: str
    """`own`, `trusted` or `distrusted`."""
    since: float
    """In seconds since the epoch; 0 where nobody wrote it down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SignersView:
    """Describes all signers that a directory knows."""

    directory: str
    signers: tuple[SignerView, ...]
    """Its own first."""


def init(directory: Path, name: str, *, renew: bool = False) -> NewSigner:
    """Make the key that the directory signs with.

    Raises `KeysError` where it has one, unless that is to be replaced: the one before stays trusted here then, and
    nobody can sign with it any more.
    """
    check_signer_name(name)
    prepare_directory(directory)
    files = SignerFiles(directory)
    with alone(directory):
        files.prepare()
        own, listed = files.read_own(), files.read_listed()
        if own is not None and not renew:
            raise KeysError(
                f"this directory signs as {own.signer.name} already: `compiler-daemon keys signers` shows its public "
                "line, and --replace makes a new key under the next number"
            )
        if name in {one.signer.name for one in listed} or (own is not None and own.signer.name == name):
            raise KeysError(f"{name} is known here with another key: a new key takes the next number")
        key = SigningKey.make(name)
        before: tuple[str, ...] = ()
        if own is not None:
            # First: what was signed with it is believed without a gap.
            if own.signer not in {one.signer for one in listed}:
                files.write_listed((*listed, Listed(signer=own.signer, since=time.time())))
            gone = own.signer.name
            before = (f"what {gone} signed is believed as before; `compiler-daemon keys distrust {gone}` ends that",)
        files.write_own(key)
    return NewSigner(
        name=name,
        line=key.signer.line,
        file=str(files.own),
        next=(
            f"on each machine that is to believe this one: `compiler-daemon keys trust {key.signer.line}`",
            f"{files.own} holds the private key: it stays here, or goes to machines that sign as {name}, too",
            *before,
        ),
    )


def trust(directory: Path, line: str) -> Change:
    """Believe what a signer signs; raise `KeysError` where the line is none, or its name or key is another's here."""
    signer = Signer.parse(line)
    prepare_directory(directory)
    files = SignerFiles(directory)
    with alone(directory):
        files.prepare()
        known = files.read()
        if known.own is not None and known.own.signer == signer:
            return Change(done=(f"{signer.name} is this directory's own key, which is believed here",))
        _check_is_one(signer, [one.signer for one in known.listed] + ([known.own.signer] if known.own else []))
        before = next((one for one in known.listed if one.signer == signer), None)
        if before is not None and not before.distrusted:
            return Change(done=(f"{signer.name} is trusted here already",))
        others = tuple(one for one in known.listed if one.signer != signer)
        files.write_listed((*others, Listed(signer=signer, since=time.time())))
    again = "again" if before is not None else "from now on"
    return Change(
        done=(f"{signer.name} is trusted {again}",),
        meanwhile=(f"what {signer.name} has signed runs in your trainers: it is code",),
    )


def distrust(directory: Path, name: str) -> Change:
    """Believe a signer no more; raise `KeysError` where none is called that, or it is the directory itself."""
    name = name.partition(":")[0]
    files = SignerFiles(directory)
    with alone(directory):
        known = files.read()
        if known.own is not None and known.own.signer.name == name:
            raise KeysError(
                f"{name} is the key that this directory signs with: `compiler-daemon keys signer init NAME --replace` "
                "makes another one, then distrust it"
            )
        found = next((one for one in known.listed if one.signer.name == name), None)
        if found is None:
            raise KeysError(
                f"no signer {name[:80]!r} is known here, and so nothing of it is believed: "
                "`compiler-daemon keys signers` lists those who are"
            )
        if found.distrusted:
            return Change(done=(f"{name} is distrusted here already",))
        changed = replace(found, distrusted=True, since=time.time())
        files.write_listed(tuple(changed if one is found else one for one in known.listed))
    return Change(
        done=(f"{name} is distrusted from now on: what it signed is a miss here",),
        meanwhile=(
            "what was taken from it before is in this daemon's store, and signed by this daemon: if that may be bad, "
            "`compiler-daemon stop` and `compiler-daemon keys rotate --secret` have all compiled anew",
            "other machines trust it until they are told the same",
        ),
    )


def show(directory: Path) -> SignersView:
    """Describe all signers; raise `KeysError` or `DirectoryError` where a file cannot be used."""
    files = SignerFiles(directory)
    known = files.read()
    signers = [_view(one.signer, "distrusted" if one.distrusted else "trusted", one.since) for one in known.listed]
    if known.own is not None:
        signers.insert(0, _view(known.own.signer, "own", files.own.stat().st_mtime))
    return SignersView(directory=str(directory), signers=tuple(signers))


def _check_is_one(signer: Signer, known: list[Signer]) -> None:
    """Raise `KeysError` where the name is known with another key, or the key under another name."""
    for other in known:
        if other.name == signer.name and other.public != signer.public:
            raise KeysError(
                f"{signer.name} is known here with another key: a new key takes the next number, "
                f"so one of the two is not what it says ({other.line} is known)"
            )
        if other.public == signer.public and other.name != signer.name:
            raise KeysError(f"that key is known here as {other.name}: a key has one name")


def _view(signer: Signer, state: str, since: float) -> SignerView:
    return SignerView(name=signer.name, line=signer.line, state=state, since=since)
