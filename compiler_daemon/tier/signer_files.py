"""The signers' files of a daemon's directory: its own key, and the list of those it believes.

    DIR/keys/signers/own.key    0600: the key that this directory signs with, `NAME:BASE64`
    DIR/keys/signers/trusted    whose signatures are believed, a line each: `NAME:BASE64 trusted|distrusted DATE`

A bare public line in the list is one that is trusted, so that a container's image can bring it; others may read the
list, and nobody else may have written it. A directory with a key trusts itself. Guarantees: in a list that cannot be
read nobody is trusted; what changes in these files holds for the next object, without a restart.
"""

from __future__ import annotations

import base64
import calendar
import logging
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from compiler_daemon.access.register import SIGNERS_NAME, KeyFiles, check_folder
from compiler_daemon.endpoint import read_private, write_private
from compiler_daemon.errors import DirectoryError, KeysError
from compiler_daemon.tier import ed25519
from compiler_daemon.tier.signers import Listed, Signer, SignerList, SigningKey, bytes_of, check_signer_name

logger = logging.getLogger(__name__)

MAX_SIGNERS = 256
"""A list of so many is about 30 KB."""

_DATE = "%Y-%m-%dT%H:%M:%SZ"
_MAX_LIST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class SignerFiles:
    """Names the files of a directory's signers, reads and writes them."""

    directory: Path

    @property
    def folder(self) -> Path:
        """The folder of both."""
        return KeyFiles(self.directory).folder / SIGNERS_NAME

    @property
    def own(self) -> Path:
        """The private key."""
        return self.folder / "own.key"

    @property
    def trusted(self) -> Path:
        """The list."""
        return self.folder / "trusted"

    def prepare(self) -> None:
        """Make the folder where there is none; raise `DirectoryError` where others can reach it."""
        for folder in (self.folder.parent, self.folder):
            try:
                folder.mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                raise DirectoryError(f"{folder} cannot be made: {error.strerror}") from error
            check_folder(folder)

    def read(self) -> SignerList:
        """Return who signs and who is believed; raise `KeysError` or `DirectoryError` where a file cannot be used."""
        return SignerList(own=self.read_own(), listed=self.read_listed())

    def read_own(self) -> SigningKey | None:
        """Return the directory's key, None where it has none."""
        if not os.path.lexists(self.own):
            return None
        check_folder(self.folder)
        try:
            return _signing_key(read_private(self.own))
        except OSError as error:
            raise KeysError(f"{self.own} cannot be read ({error.strerror})") from error
        except (KeysError, ValueError) as error:
            raise KeysError(
                f"{self.own} holds no signing key: move it away, and `compiler-daemon keys signer init NAME` makes one"
            ) from error

    def read_listed(self) -> tuple[Listed, ...]:
        """Return the list."""
        if not os.path.lexists(self.trusted):
            return ()
        check_folder(self.folder)
        try:
            lines = _read_public(self.trusted).decode("ascii").splitlines()
            listed = tuple(_listed(line) for line in lines if line.strip())
        except OSError as error:
            raise KeysError(f"{self.trusted} cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise KeysError(
                f"{self.trusted} cannot be read ({error}): mend it, or move it away and trust anew"
            ) from error
        self._check(listed)
        return listed

    def write_own(self, key: SigningKey) -> None:
        """Replace the directory's key."""
        secret = base64.b64encode(key.seed + key.signer.public).decode()
        write_private(self.own, f"{key.signer.name}:{secret}\n".encode())

    def write_listed(self, listed: tuple[Listed, ...]) -> None:
        """Replace the list."""
        self._check(listed)
        lines = [
            f"{one.signer.line} {'distrusted' if one.distrusted else 'trusted'} "
            f"{time.strftime(_DATE, time.gmtime(one.since))}\n"
            for one in listed
        ]
        write_private(self.trusted, "".join(lines).encode())

    def stamp(self) -> object:
        """Return what differs after either was replaced."""
        return [_stamp(path) for path in (self.own, self.trusted)]

    def _check(self, listed: tuple[Listed, ...]) -> None:
        names, keys = {one.signer.name for one in listed}, {one.signer.public for one in listed}
        if len(listed) > MAX_SIGNERS:
            raise KeysError(f"{self.trusted} would hold more than {MAX_SIGNERS} signers: take lines out that are old")
        if not len(names) == len(keys) == len(listed):
            raise KeysError(f"{self.trusted} has a name or a key twice: mend it")


class Signers:
    """Answers from a directory's files; what has changed in them is read again at the next question."""

    def __init__(self, directory: Path) -> None:
        self._files = SignerFiles(directory)
        self._known: tuple[object, SignerList] = (None, SignerList())
        """What was read, and what the files were then: replaced together, since threads ask."""
        self._said: list[str] = []

    def current(self) -> SignerList:
        """Return who signs and who is believed now. A file that cannot be read counts as none, and is said once."""
        seen = self._files.stamp()
        before, known = self._known
        if seen != before:
            own: SigningKey | None = None
            listed: tuple[Listed, ...] = ()
            failures: list[str] = []
            try:
                own = self._files.read_own()
            except (KeysError, DirectoryError) as error:
                failures.append(f"nothing is signed for the tier: {error}")
            try:
                listed = self._files.read_listed()
            except (KeysError, DirectoryError) as error:
                failures.append(f"no signature in the tier is believed but our own: {error}")
            known = SignerList(own=own, listed=listed)
            for text in failures:
                if text not in self._said:
                    logger.error("%s", text)
            self._said = failures
            # What could not be read may be readable in a moment, without having changed: too many open files.
            self._known = (seen if not failures else None, known)
        return known


def _signing_key(data: bytes) -> SigningKey:
    """Return the key in a file; raise `KeysError` or `ValueError` where there is none."""
    name, _, text = data.decode("ascii").strip().partition(":")
    secret = bytes_of(text, check_signer_name(name))
    seed, public = secret[: ed25519.KEY_BYTES], secret[ed25519.KEY_BYTES :]
    if ed25519.public_of(seed) != public:
        raise ValueError("private and public key do not belong together")
    return SigningKey(Signer(name, public), seed)


def _listed(line: str) -> Listed:
    """Return one line of the list; raise `ValueError` where it is none."""
    parts = line.split()
    try:
        signer = Signer.parse(parts[0])
    except KeysError as error:
        raise ValueError(str(error)) from error
    if len(parts) == 1:
        return Listed(signer=signer, since=0.0)
    if len(parts) != 3 or parts[1] not in ("trusted", "distrusted"):
        raise ValueError(f"a line is NAME:BASE64, trusted or distrusted, and a date, not {line[:80]!r}")
    since = calendar.timegm(time.strptime(parts[2], _DATE))
    return Listed(signer=signer, since=float(since), distrusted=parts[1] == "distrusted")


def _read_public(path: Path) -> bytes:
    """Return a file that others may read, and only we can have written."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DirectoryError(f"{path} is not a plain file: move it away")
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise DirectoryError(f"others can write to {path}: look at what is in it, then `chmod 644 {path}`")
        data = bytearray()
        while len(data) <= _MAX_LIST_BYTES and (piece := os.read(descriptor, _MAX_LIST_BYTES + 1 - len(data))):
            data += piece
    finally:
        os.close(descriptor)
    if len(data) > _MAX_LIST_BYTES:
        raise DirectoryError(f"{path} is longer than {_MAX_LIST_BYTES} bytes: it is none of ours, move it away")
    return bytes(data)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
