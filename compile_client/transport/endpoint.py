"""The way to the daemon, read by `compile_wire.endpoint`; what is wrong with it is an error of the client's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compile_client import errors
from compile_wire import errors as wire
from compile_wire.endpoint import address as addresses
from compile_wire.endpoint import credentials as keys
from compile_wire.endpoint.address import Address
from compile_wire.endpoint.credentials import Credentials, TlsKeys, has_tls_keys

__all__ = ["Address", "Credentials", "TlsKeys", "find_address", "has_tls_keys", "probe", "read_credentials"]

_ERRORS: dict[type[wire.EndpointError], type[errors.ClientError]] = {
    wire.AddressError: errors.AddressError,
    wire.AbsentError: errors.AbsentError,
    wire.SilentError: errors.UnavailableError,
    wire.UnsafeError: errors.UnsafeError,
    wire.CredentialsError: errors.CredentialsError,
}


def find_address(given: str, directory: Path, *, secured: bool = False) -> Address:
    """Return where the daemon listens; raise `AddressError` where that is nothing that can be used."""
    with _own_errors():
        return addresses.find_address(given, directory, secured=secured)


def probe(address: Address, timeout_s: float) -> None:
    """Return where someone of this user accepts connections.

    Raises `AbsentError`, `UnavailableError` or `UnsafeError` where not.
    """
    with _own_errors():
        addresses.probe(address, timeout_s)


def read_credentials(directory: Path, *, tls: bool = False) -> Credentials:
    """Return what is in the directory; raise `UnsafeError` or `CredentialsError` where it is unusable."""
    with _own_errors():
        return keys.read_credentials(directory, tls=tls)


@contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except wire.EndpointError as error:
        raise _ERRORS[type(error)](str(error)) from error
