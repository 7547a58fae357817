"""Addresses, keys and private files, read by `compile_wire.endpoint`; what is wrong with them is a `DaemonError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compile_wire.endpoint import address as addresses
from compile_wire.endpoint import credentials, peer, private_files
from compile_wire.endpoint.address import Address, UnixAddress, check_path_length, parse_address
from compile_wire.endpoint.credentials import Keys
from compile_wire.endpoint.private_files import MAX_FILE_BYTES
from compile_wire.errors import (
    AddressError,
    NotAFileError,
    PeerError,
    UnsafeDirectoryError,
    UnsafeFileError,
    UnusableFileError,
)
from compiler_daemon import errors
from compiler_daemon.errors import DirectoryError, UsageError

_PROBE_S = 2.0


def read_address(text: str) -> Address:
    """Return the address that `text` names; raise `UsageError`, saying what to do, where it is none."""
    try:
        address = parse_address(text)
        check_path_length(address)
    except AddressError as error:
        match error.flaw:
            case "path":
                raise UsageError("a Unix address needs a path: write unix:PATH") from error
            case "length":
                raise UsageError(f"{error}; choose a shorter one with --address unix:PATH") from error
            case _:
                raise UsageError(f"{text!r} is no address: write unix:PATH or HOST:PORT") from error
    return address


def written_address(directory: Path) -> str:
    """Return what the daemon of a directory has written down, else what `keys client` has; empty where nobody has.

    Raises `DirectoryError` where others could have written it.
    """
    with _as_directory_error():
        return addresses.written_address(directory)


def read_note(path: Path) -> dict[str, object]:
    """Return the fields of a note, none where it cannot be read; raise `DirectoryError` where others could write it."""
    with _as_directory_error():
        return addresses.read_note(path)


def check_peer(address: UnixAddress) -> None:
    """Raise `PeerError` where another user serves the socket: nothing is to be shown to that one.

    A socket that cannot be connected to is left to the caller's own attempt.
    """
    try:
        peer.probe(address, _PROBE_S)
    except PeerError as error:
        raise errors.PeerError(
            f"{address} is served by {error.whose}: it is shown no token; name your own daemon's directory with --dir"
        ) from error
    except OSError:
        return


def read_keys(directory: Path, *, tls: bool) -> Keys:
    """Return what opens the daemon of a directory; raise `DirectoryError` where it must not be used."""
    with _as_directory_error():
        try:
            return credentials.read_keys(directory, tls=tls)
        except OSError as error:
            raise DirectoryError(f"{error.filename} cannot be read: {error.strerror}") from error


def read_token(directory: Path) -> str:
    """Return the token of a directory; raise `DirectoryError` where it must not be used, `OSError` where none is."""
    with _as_directory_error(": move it away and start again"):
        return credentials.read_token(directory)


def read_secret(directory: Path) -> bytes:
    """Return the signing secret of a directory, with the errors of `read_token`."""
    with _as_directory_error(": move it away and start again; artifacts signed with the old one will be compiled anew"):
        return credentials.read_secret(directory)


def read_secret_file(path: Path) -> bytes:
    """Return the signing secret in a file, with the errors of `read_token`."""
    with _as_directory_error(": it is no daemon's secret"):
        return credentials.read_secret_file(path)


def read_private(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Return the bytes of one of our small files; raise `DirectoryError` where others could have written or read it.

    Raises `OSError` where it cannot be opened.
    """
    with _as_directory_error(": it is none of ours, move it away"):
        return private_files.read_private(path, max_bytes)


def write_private(path: Path, data: bytes) -> None:
    """Write a 0600 file, whole or not at all; raise `DirectoryError` where that cannot be done."""
    try:
        private_files.write_private(path, data)
    except OSError as error:
        raise DirectoryError(f"{path} cannot be written: {error.strerror}") from error


@contextmanager
def _as_directory_error(advice: str = "") -> Iterator[None]:
    """Raise `DirectoryError` for what others can reach, and with `advice` for what has not the form that it should."""
    try:
        yield
    except UnsafeFileError as error:
        raise DirectoryError(
            f"{error.path} is not ours alone: `chmod 600 {error.path}`, or move it away if it may be known"
        ) from error
    except NotAFileError as error:
        raise DirectoryError(f"{error}: move it away") from error
    except UnsafeDirectoryError as error:
        raise DirectoryError(str(error)) from error
    except UnusableFileError as error:
        raise DirectoryError(f"{error}{advice}") from error
