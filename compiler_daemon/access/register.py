"""Who may come in, and with what: the register of clients, the tokens in force, and the material for TLS.

    DIR/access.json     0600: clients with their roles; tokens and certificates as SHA-256 only; when they end
    DIR/keys/           0700: ca.pem, ca.key, server.pem; during an overlap previous-ca.pem and cross.pem

Guarantees: the register is an allow-list, so a certificate of our own authority that is not in it opens nothing; what
`compiler-daemon keys` changes holds for the next call, without a restart. A register that cannot be read lets in the
daemon's own token and nobody else. Nothing here holds or tells a client's token or key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from compile_wire.endpoint.private_files import TOKEN_NAME, split_pem
from compiler_daemon.endpoint import read_private, read_token, write_private
from compiler_daemon.errors import DirectoryError, KeysError

logger = logging.getLogger(__name__)

Role = Literal["operator", "trainer", "reader"]
"""What a client may do: everything; publish and less; look up, read and have graphs compiled."""
Kind = Literal["certificate", "token"]

ACCESS_NAME = "access.json"
SIGNERS_NAME = "signers"
"""The folder, beside the keys for TLS, that is `compiler_daemon.tier.signer_files`'s."""
MAX_CLIENTS = 512
"""A register of so many is about 180 KB; it is read whole, and every token is compared with all of them."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEX = re.compile(r"[0-9a-f]{64}")
_MAX_ACCESS_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """One client of the register. A name may stand there several times: what it had before may still be in force."""

    name: str
    role: Role
    kind: Kind
    sha256: str
    """Of the certificate's DER, or of the token."""
    made: float
    expires: float
    """Both in seconds since the epoch. For a certificate at most its own end."""
    revoked: float = 0.0
    """When; 0 where it was not."""

    def state(self, now: float) -> str:
        """`in force`, or why not."""
        return "revoked" if self.revoked else "expired" if self.expires <= now else "in force"


@dataclass(frozen=True, kw_only=True, slots=True)
class Register:
    """Holds the contents of `access.json`: the clients and what each may do."""

    clients: tuple[Client, ...] = ()
    previous_token: str = ""
    """SHA-256 of the token before the last rotation; empty where there is none."""
    previous_token_until: float = 0.0
    previous_ca_until: float = 0.0

    def in_force(self, now: float) -> tuple[Client, ...]:
        """Those who are let in."""
        return tuple(client for client in self.clients if client.state(now) == "in force")

    def write(self, directory: Path) -> None:
        """Replace the directory's register."""
        write_private(directory / ACCESS_NAME, json.dumps({"version": 1, **asdict(self)}, indent=1).encode())

    @classmethod
    def read(cls, directory: Path) -> Register:
        """Return the directory's register, empty where there is none; raise `KeysError` where it cannot be read."""
        path = directory / ACCESS_NAME
        try:
            fields = json.loads(read_private(path, _MAX_ACCESS_BYTES))
            return _register(fields)
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise KeysError(
                f"{path} cannot be read ({error}): mend it, or move it away and make the clients anew"
            ) from error


@dataclass(frozen=True, slots=True)
class Caller:
    """Says who makes a call, and in which role."""

    name: str
    role: Role

    @property
    def may_publish(self) -> bool:
        """Whether artifacts are taken from it."""
        return self.role != "reader"


OWNER = Caller("owner", "operator")
"""Who holds the daemon's own token."""


class Keyring:
    """Answers who a caller is from the directory's keys.

    What has changed on the disk is read again at the next question.
    """

    def __init__(self, directory: Path, *, token: str, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._clock = clock
        self._token = _sha256(token.encode())
        self._register = Register()
        self._seen: object = None

    def by_token(self, token: bytes) -> Caller | None:
        """Return who holds the token; None where nobody does."""
        register, now = self._fresh(), self._clock()
        known = [(self._token, OWNER)]
        if register.previous_token and register.previous_token_until > now:
            known.append((register.previous_token, OWNER))
        known += [
            (client.sha256, Caller(client.name, client.role))
            for client in register.in_force(now)
            if client.kind == "token"
        ]
        return _find(_sha256(token), known)

    def is_operators(self, token: bytes) -> bool:
        """Whether an operator holds the token."""
        holder = self.by_token(token)
        return holder is not None and holder.role == "operator"

    def by_certificate(self, der: bytes) -> Caller | str:
        """Return whose certificate it is, or in words why it opens nothing."""
        register, now, given = self._fresh(), self._clock(), _sha256(der)
        for client in register.clients:
            if client.kind == "certificate" and hmac.compare_digest(client.sha256, given):
                if (state := client.state(now)) != "in force":
                    return f"the certificate of {client.name} is {state} here"
                return Caller(client.name, client.role)
        return f"the certificate {given[:16]} is not in this daemon's register"

    def _fresh(self) -> Register:
        seen = [_stamp(self._directory / name) for name in (ACCESS_NAME, TOKEN_NAME)]
        if seen != self._seen:
            self._seen = seen
            try:
                self._register = Register.read(self._directory)
            except (KeysError, DirectoryError) as error:
                logger.error("nobody but the owner is let in: %s", error)  # noqa: TRY400  # no traceback
                self._register = Register()
            try:
                self._token = token_sha256(read_token(self._directory))
            except (OSError, DirectoryError) as error:
                logger.error("the token in use is kept: %s", error)  # noqa: TRY400  # as above
        return self._register


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsMaterial:
    """Holds the server's certificate and key, and the authorities that it believes, all PEM."""

    key: bytes = field(repr=False)
    chain: bytes
    authorities: bytes
    """Those whose clients are let in."""
    changes_at: float
    """When an overlap ends, in seconds since the epoch; infinite where there is none."""


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """Names the files in which the keys of a daemon's directory lie."""

    directory: Path

    @property
    def folder(self) -> Path:
        """The folder of all of them."""
        return self.directory / "keys"

    @property
    def authority(self) -> Path:
        """The authority's certificate; keys are there where it is."""
        return self.folder / "ca.pem"

    @property
    def authority_key(self) -> Path:
        """The authority's private key, and its certificate once more; the daemon never opens it."""
        return self.folder / "ca.key"

    @property
    def server(self) -> Path:
        """The server's private key and chain, in one file so that both are replaced at once."""
        return self.folder / "server.pem"

    @property
    def previous_authority(self) -> Path:
        """The authority before the last rotation."""
        return self.folder / "previous-ca.pem"

    @property
    def cross(self) -> Path:
        """The authority, signed by the one before."""
        return self.folder / "cross.pem"

    def exist(self) -> bool:
        """Whether `keys init` was run."""
        return self.authority.exists()

    def are_missing(self) -> bool:
        """Whether nothing for TLS is there: no folder, or one with nothing but the signers of a tier."""
        return not os.path.lexists(self.folder) or [path.name for path in self.folder.iterdir()] == [SIGNERS_NAME]

    def stamp(self) -> object:
        """Return what differs after any of them was replaced."""
        return [
            _stamp(path)
            for path in (self.authority, self.server, self.previous_authority, self.directory / ACCESS_NAME)
        ]

    def material(self, now: float) -> TlsMaterial:
        """Read what TLS needs; raise `DirectoryError` or `KeysError` where it cannot be used."""
        check_folder(self.folder)
        try:
            key, chain = split_pem(read_private(self.server))
            authorities, until = read_private(self.authority), Register.read(self.directory).previous_ca_until
            if until > now:
                authorities += read_private(self.previous_authority)
        except OSError as error:
            raise KeysError(
                f"{error.filename} cannot be read ({error.strerror}): `compiler-daemon keys rotate`"
            ) from error
        if not key or not chain:
            raise KeysError(f"{self.server} holds no key, or no certificate: `compiler-daemon keys rotate` makes both")
        return TlsMaterial(key=key, chain=chain, authorities=authorities, changes_at=until if until > now else math.inf)


def check_folder(folder: Path) -> None:
    """Raise `DirectoryError` unless the folder of keys is ours alone."""
    try:
        status = folder.lstat()
    except OSError as error:
        raise KeysError(f"{folder} cannot be used ({error.strerror}): `compiler-daemon keys init` makes it") from error
    if status.st_uid != os.geteuid():
        raise DirectoryError(f"{folder} belongs to user {status.st_uid}: make keys of your own in another --dir")
    if status.st_mode & 0o077:
        raise DirectoryError(
            f"others can reach {folder}: `chmod 700 {folder}`, and if somebody may have seen the keys "
            "`compiler-daemon keys rotate --ca --overlap-days 0`"
        )


def check_name(name: str) -> str:
    """Return the name; raise `KeysError` where it is none that can stand in a log line and a certificate."""
    if not _NAME.fullmatch(name):
        raise KeysError(f"{name[:80]!r} is no client's name: letters, digits, dot, dash and underscore, at most 64")
    return name


def renewed(register: Register, client: Client, *, old_until: float) -> Register:
    """Return the register with a new client; what stood under its name before ends at `old_until` at the latest."""
    clients = [
        replace(other, expires=min(other.expires, old_until)) if other.name == client.name else other
        for other in register.clients
    ]
    if len(clients) >= MAX_CLIENTS:
        raise KeysError(f"the register holds {MAX_CLIENTS} clients already: `compiler-daemon keys show` lists them")
    return replace(register, clients=(*clients, client))


def token_sha256(token: str) -> str:
    """Return the name under which a token stands in the register."""
    return _sha256(token.encode())


def _register(fields: Any) -> Register:
    if fields.pop("version") != 1:
        raise ValueError("it is of another version")
    clients = tuple(_client(entry) for entry in fields.pop("clients")[:MAX_CLIENTS])
    register = Register(clients=clients, **fields)
    moments = (register.previous_token_until, register.previous_ca_until)
    if not all(isinstance(moment, int | float) for moment in moments) or not isinstance(register.previous_token, str):
        raise ValueError("a token or an authority of an unknown form")
    return register


def _client(entry: Any) -> Client:
    client = Client(**entry)
    good = (
        client.role in get_args(Role)
        and client.kind in get_args(Kind)
        and _NAME.fullmatch(client.name)
        and _HEX.fullmatch(client.sha256)
        and all(isinstance(moment, int | float) for moment in (client.made, client.expires, client.revoked))
    )
    if not good:
        raise ValueError("a client of an unknown form")
    return client


def _find(given: str, known: Iterable[tuple[str, Caller]]) -> Caller | None:
    """Compare with all, whichever fits: the time tells neither how much of a token was right nor whose it was."""
    found = None
    for sha256, caller in known:
        if hmac.compare_digest(given, sha256):
            found = caller
    return found


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
