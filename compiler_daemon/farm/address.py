"""Where a farm's scheduler is, and what opens it: read from what the operator wrote, and refused in words.

Nothing goes to a farm without TLS but on the loopback interface: whoever speaks with a Dask scheduler can run code on
all of its workers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from compiler_daemon.config import FarmConfig
from compiler_daemon.endpoint import read_private
from compiler_daemon.errors import DirectoryError, UsageError

FARM_VARIABLE = "COMPILER_DAEMON_FARM"
CA_VARIABLE = "COMPILER_DAEMON_FARM_CA"
CERTIFICATE_VARIABLE = "COMPILER_DAEMON_FARM_CERTIFICATE"
KEY_VARIABLE = "COMPILER_DAEMON_FARM_KEY"

_FORMS = "write tls://HOST:PORT, as the scheduler says it"


def farm_of(
    environ: Mapping[str, str],
    *,
    address: str | None,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
    wait_s: float,
) -> FarmConfig | None:
    """Return the farm of the command line, else that of the environment; None where neither names one.

    Raises `UsageError` for what can be no farm, and `DirectoryError` for a private key that others can read.
    """
    text = address or environ.get(FARM_VARIABLE, "")
    if not text:
        return None
    scheme = _checked_scheme(text)
    if scheme == "tcp":
        return FarmConfig(address=text, wait_s=wait_s)
    files = {
        "--farm-ca": (CA_VARIABLE, ca),
        "--farm-cert": (CERTIFICATE_VARIABLE, certificate),
        "--farm-key": (KEY_VARIABLE, key),
    }
    paths = [_file(option, variable, given, environ) for option, (variable, given) in files.items()]
    _check_key(paths[2])
    return FarmConfig(address=text, ca=paths[0], certificate=paths[1], key=paths[2], wait_s=wait_s)


def _checked_scheme(text: str) -> str:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise UsageError(f"{text!r} is no farm: {_FORMS}") from None
    if url.scheme not in ("tls", "tcp") or not url.hostname or port is None or url.path or url.query or url.username:
        raise UsageError(f"{text!r} is no farm: {_FORMS}")
    if url.scheme == "tcp" and not _is_loopback(url.hostname):
        raise UsageError(
            f"{text} is not on the loopback interface, and whoever speaks with a farm without TLS can run code "
            "on all of its workers: start scheduler and workers with --tls-ca-file, --tls-cert and --tls-key, and "
            f"{_FORMS}"
        )
    return url.scheme


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _file(option: str, variable: str, given: Path | None, environ: Mapping[str, str]) -> str:
    path = given or (Path(environ[variable]) if environ.get(variable) else None)
    if path is None:
        raise UsageError(f"a farm over TLS needs {option}: name the file there, or in {variable}")
    if not path.is_file():
        raise UsageError(f"{path}, which {option} or {variable} names, is no file")
    return str(path.absolute())


def _check_key(path: str) -> None:
    try:
        read_private(Path(path))
    except OSError as error:
        raise DirectoryError(f"{path}, the farm's private key, cannot be read: {error.strerror}") from error
