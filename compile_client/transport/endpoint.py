"""The way to the daemon, read by `compile_wire.endpoint`; what is wrong with it is an error of the client's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compile_client.errors import AbsentError, AddressError, CredentialsError, UnavailableError, UnsafeError
from compile_wire import errors as wire
from compile_wire.endpoint import address as addresses
from compile_wire.endpoint import credentials as keys
from compile_wire.endpoint import peer
from compile_wire.endpoint.address import Address, TcpAddress, UnixAddress
from compile_wire.endpoint.credentials import Credentials, TlsKeys, has_tls_keys

__all__ = [
    "Address",
    "Credentials",
    "TcpAddress",
    "TlsKeys",
    "UnixAddress",
    "find_address",
    "has_tls_keys",
    "probe",
    "read_credentials",
]


def find_address(given: str, directory: Path, *, secured: bool = False) -> Address:
    """Return the address that was given, else the one that is written down, else the daemon's usual socket.

    `secured` is True where TLS will be used: then other machines are spoken to, and may have names. Raises
    `AddressError` where it is none that can be used, and `UnsafeError` where others could have written it down.
    """
    with _own_errors():
        address = addresses.parse_address(given) if given else addresses.find_address(directory)
        return addresses.dialled(address, secured=secured)


def probe(address: Address, timeout_s: float) -> None:
    """Return where someone of this user accepts connections; raise `AbsentError` or `UnsafeError` where not.

    Takes at most `timeout_s` seconds. Where another machine is silent for so long, raises `UnavailableError`.
    """
    try:
        with _own_errors():
            peer.probe(address, timeout_s)
    except TimeoutError as error:
        if address.is_local:
            raise AbsentError(f"no daemon at {address} ({error})") from error
        # Looking again costs as long each time, unlike with a daemon of this machine that is not there.
        raise UnavailableError(f"nobody answers at {address} within {timeout_s:g} s") from error
    except OSError as error:  # not there, refused, a full backlog, a path too long for a socket
        raise AbsentError(f"no daemon at {address} ({error.strerror or error})") from error


def read_credentials(directory: Path, *, tls: bool = False) -> Credentials:
    """Return what is in the directory; raise `UnsafeError` or `CredentialsError` where it is unusable."""
    try:
        with _own_errors():
            return keys.read_credentials(directory, tls=tls)
    except OSError as error:
        what = f"the daemon's directory {directory}" if error.filename == str(directory) else error.filename
        raise CredentialsError(f"{what} cannot be read ({error.strerror})") from error


@contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except wire.AddressError as error:
        raise AddressError(str(error)) from error
    except (wire.UnsafeError, wire.PeerError) as error:
        raise UnsafeError(str(error)) from error
    except wire.UnusableFileError as error:
        raise CredentialsError(str(error)) from error
