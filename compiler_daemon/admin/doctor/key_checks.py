"""Checks of `doctor` of keys: modes, ends, whether they belong together, a TLS handshake.

No token is shown to anybody. `cryptography` is imported where there are certificates to be read.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from compile_wire.endpoint.address import TcpAddress
from compile_wire.endpoint.credentials import AUTHORITY_NAME, CERTIFICATE_NAME
from compile_wire.endpoint.private_files import TOKEN_NAME, split_pem
from compile_wire.endpoint.tls_diagnosis import explain
from compiler_daemon.access.register import ACCESS_NAME, KeyFiles, Register
from compiler_daemon.endpoint import read_keys, read_private
from compiler_daemon.errors import DaemonError
from compiler_daemon.text import numbers
from compiler_daemon.text.findings import Finding, note, ok, problem
from compiler_daemon.tier.signer_files import SignerFiles

SOON_S = 30 * 86400.0
"""An end that is nearer is noted."""

_CONNECT_S = 2.0
_ROTATE = "`compiler-daemon keys rotate`"
_RENEW = "on the daemon's machine, `compiler-daemon keys client NAME --renew --out DIR`"


def check_private(
    path: Path, check: str, mode: int, *, size: int | None = None, made_by: str = "`compiler-daemon serve`"
) -> Finding:
    """Check that a directory or file is ours alone; what is in a file is not looked at."""
    try:
        status = path.stat() if check == "directory" else path.lstat()
    except FileNotFoundError:
        return problem(check, f"{path} does not exist: {made_by} makes it")
    except OSError as error:
        return problem(check, f"{path} cannot be looked at ({error.strerror}): choose another --dir")
    if not (stat.S_ISDIR if check == "directory" else stat.S_ISREG)(status.st_mode):
        kind = "directory" if check == "directory" else "plain file"
        return problem(check, f"{path} is no {kind}: move it away, then start the daemon again")
    if status.st_uid != (user := os.geteuid()):
        return problem(check, f"{path} belongs to user {status.st_uid}, not to user {user}: choose another --dir")
    actual, mend = stat.S_IMODE(status.st_mode), f"`chmod {mode:o} {path}`"
    if actual & 0o022:
        return problem(check, f"others may write to {path} (mode {actual:o}): look at what is in it, then {mend}")
    if actual & 0o077:
        return problem(check, f"others can read {path} (mode {actual:o}): {mend}, or move it away if it may be known")
    if size is not None and status.st_size != size:
        return problem(check, f"{path} has {status.st_size} bytes, not {size}: move it away and start the daemon again")
    if status.st_size == 0 and check != "directory":
        return problem(check, f"{path} is empty: move it away and start the daemon again")
    return ok(check, f"{path}, mode {actual:o}, yours alone")


def check_keys(directory: Path) -> Iterator[Finding]:
    """Check the keys and the register of a daemon's directory; yield nothing where it has none."""
    files = KeyFiles(directory)
    if (directory / ACCESS_NAME).exists():
        yield from _register(directory)
    yield from _signers(directory)
    if files.are_missing():
        return
    yield replace(check_private(files.folder, "directory", 0o700), check="keys")
    private = [
        check_private(path, "keys", 0o600, made_by=_ROTATE)
        for path in (files.authority, files.authority_key, files.server)
    ]
    yield from (finding for finding in private if finding.level != "ok")
    if all(finding.level == "ok" for finding in private):
        yield from _pair("authority", files.authority_key, f"{_ROTATE} --ca")
        yield from _pair("server certificate", files.server, _ROTATE)
        yield from _issued("server certificate", files.server, files.authority, _ROTATE)


def _signers(directory: Path) -> Iterator[Finding]:
    """Check the files of signers; yield nothing where there are none."""
    files = SignerFiles(directory)
    if not files.folder.exists():
        return
    try:
        known = files.read()
    except DaemonError as error:
        yield problem("signers", str(error))
        return
    signs = f"signs as {known.own.signer.name}" if known.own is not None else "signs nothing for a tier"
    if known.own is not None and known.own.signer not in known.trusted:
        yield problem("signers", f"{signs}, which {files.trusted} distrusts: `keys signer init NAME --replace`")
    yield ok("signers", f"{signs}, believes {', '.join(signer.name for signer in known.trusted) or 'nobody'}")


def check_client(directory: Path) -> Iterator[Finding]:
    """Check the keys of a directory that was made for a client elsewhere."""
    own, authority = directory / CERTIFICATE_NAME, directory / AUTHORITY_NAME
    shown = (own, "certificate") if own.exists() else (directory / TOKEN_NAME, "token")
    private = [check_private(authority, "authority", 0o600), check_private(*shown, 0o600)]
    yield from private
    if all(finding.level == "ok" for finding in private):
        if own.exists():
            yield from _pair("certificate", own, _RENEW)
        yield from _ends("authority", authority, _RENEW)


def check_tls(directory: Path, address: TcpAddress) -> Finding:
    """Whether a TLS handshake with the daemon succeeds from here; no token is sent."""
    try:
        keys = read_keys(directory, tls=True).tls
    except DaemonError as error:
        return problem("tls", str(error))
    if keys is None:
        return problem("tls", f"there are no keys for TLS in {directory}: {_RENEW}")
    found = explain(
        "127.0.0.1" if address.host == "0.0.0.0" else address.host,  # noqa: S104  # as its own machine reaches it
        address.port,
        authority=keys.authority_path,
        certificate=keys.certificate_path,
        expires=keys.expires,
        timeout_s=_CONNECT_S,
    )
    return (ok if found.cause == "fine" else problem)("tls", found.text)


def _register(directory: Path) -> Iterator[Finding]:
    path = directory / ACCESS_NAME
    if (private := check_private(path, "clients", 0o600)).level != "ok":
        yield private
        return
    try:
        register = Register.read(directory)
    except DaemonError as error:
        yield problem("clients", str(error))
        return
    now = time.time()
    current = register.in_force(now)
    latest = {client.name: client for client in current}
    yield ok("clients", f"{len(latest)} in force, of {len({client.name for client in register.clients})} ever made")
    for client in latest.values():
        if client.expires - now < SOON_S:
            until = f"{client.name} gets in until {_day(client.expires)}"
            yield note("clients", f"{until}: `compiler-daemon keys client {client.name} --renew --out DIR`")
    if register.previous_ca_until > now:
        until = f"the authority before is believed until {_day(register.previous_ca_until)}"
        yield note("keys", f"{until}: clients that were made before must be renewed by then")
    if register.previous_token_until > now:
        yield note("token", f"the token before opens the daemon until {_day(register.previous_token_until)}")


def _pair(what: str, path: Path, mend: str) -> Iterator[Finding]:
    """Return, of a file with key and certificate, whether they belong together, and the certificate's end."""
    from compiler_daemon.admin.keys.certificates import key_fits

    try:
        key, chain = split_pem(read_private(path))
        if not (key and chain):
            yield problem(what, f"{path} must hold a certificate and its private key: {mend}")
        elif not key_fits(chain, key):
            yield problem(what, f"key and certificate in {path} do not belong together: {mend}")
        else:
            yield from _ends(what, path, mend)
    except (DaemonError, OSError) as error:
        yield problem(what, f"{path} cannot be used: {error}")


def _ends(what: str, path: Path, mend: str) -> Iterator[Finding]:
    from compiler_daemon.admin.keys.certificates import read_certificate

    try:
        seen = read_certificate(split_pem(read_private(path))[1])
    except (DaemonError, OSError) as error:
        yield problem(what, f"{path} cannot be used: {error}")
        return
    left = seen.not_after - time.time()
    named = f"{seen.subject}" + (f" for {', '.join(seen.hosts)}" if seen.hosts else "")
    if seen.not_before > time.time():
        yield problem(what, f"{named} is not valid before {_day(seen.not_before)}: is the clock right?")
    elif left <= 0:
        yield problem(what, f"{named} has ended on {_day(seen.not_after)}: {mend}")
    elif left < SOON_S:
        yield note(what, f"{named} ends in {numbers.seconds(left)}: {mend}")
    else:
        yield ok(what, f"{named}, in force until {_day(seen.not_after)}")


def _issued(what: str, path: Path, authority: Path, mend: str) -> Iterator[Finding]:
    from compiler_daemon.admin.keys.certificates import was_issued_by

    try:
        issued = was_issued_by(split_pem(read_private(path))[1], read_private(authority))
    except (DaemonError, OSError):
        return  # said above
    if not issued:
        yield problem(what, f"{path} was issued by another authority than {authority}, which clients know: {mend}")


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment))
