"""What `compiler-daemon keys` does: keys are made, recreated, handed out, listed and taken back.

Guarantees: files are 0600 in folders that are 0700, each written whole or not at all; nothing that is there is
overwritten unless it was asked for; two of these at once wait for each other. Whatever can be replaced without breaking
a running client is: what was in force before stays so for the overlap. A running daemon takes up all but the signing
secret by itself. Nothing returned from here holds a secret.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compile_wire.endpoint.address import CARD_NAME
from compile_wire.endpoint.credentials import AUTHORITY_NAME, CERTIFICATE_NAME
from compile_wire.endpoint.private_files import SECRET_NAME, TOKEN_NAME, split_pem
from compile_wire.signature import SECRET_BYTES
from compiler_daemon.access.directory import DirectoryLock, Identity, prepare_directory
from compiler_daemon.access.register import (
    Client,
    KeyFiles,
    Kind,
    Register,
    Role,
    check_folder,
    check_name,
    renewed,
    token_sha256,
)
from compiler_daemon.admin.keys.alone import alone
from compiler_daemon.admin.keys.certificates import (
    CertificateView,
    Issued,
    cross_sign,
    end_of,
    issue_client,
    issue_server,
    make_authority,
    read_certificate,
)
from compiler_daemon.endpoint import read_private, write_private
from compiler_daemon.errors import KeysError, RunningError

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 397
OVERLAP_DAYS = 7
_DAY_S = 86400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """Says what a command on keys did, and what it means for those who run meanwhile: sentences for an operator."""

    done: tuple[str, ...]
    meanwhile: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class KeysView:
    """Describes all keys of a directory, without any secret."""

    directory: str
    authority: CertificateView | None
    previous_authority: CertificateView | None
    previous_authority_until: float
    server: CertificateView | None
    previous_token_until: float
    clients: tuple[Client, ...]


def init(directory: Path, hosts: Sequence[str], *, days: int = CERTIFICATE_DAYS) -> Change:
    """Make authority and server certificate; raise `KeysError` where there are keys already."""
    prepare_directory(directory)
    files = KeyFiles(directory)
    with alone(directory):
        if not files.are_missing():
            raise KeysError(f"{files.folder} is there already: `compiler-daemon keys rotate` makes keys anew")
        Identity.open(directory)
        authority = make_authority(AUTHORITY_DAYS)
        server = issue_server(authority, hosts, days)
        # Made aside and moved there whole: a half-made folder would be in the way of another try.
        aside = Path(tempfile.mkdtemp(dir=directory, prefix=".keys."))
        try:
            for path, data in (
                (files.authority_key, authority.key + authority.certificate),
                (files.server, server.key + server.certificate),
                (files.authority, authority.certificate),
            ):
                write_private(aside / path.name, data)
            if not files.folder.exists():
                os.rename(aside, files.folder)
            else:
                check_folder(files.folder)
                # The authority's certificate last: keys are there where it is.
                for path in (files.authority_key, files.server, files.authority):
                    os.rename(aside / path.name, path)
                aside.rmdir()
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    named = ", ".join(read_certificate(server.certificate).hosts)
    return Change(done=(f"made an authority and a server certificate for {named} in {files.folder}",))


def rotate(
    directory: Path,
    *,
    hosts: Sequence[str] = (),
    token: bool = False,
    secret: bool = False,
    authority: bool = False,
    overlap_days: float = OVERLAP_DAYS,
    days: int = CERTIFICATE_DAYS,
) -> Change:
    """Make the server's certificate anew, and what else is named.

    Raises `KeysError` where there is nothing to make anew, and `RunningError` where the secret is to change under a
    running daemon.
    """
    files = KeyFiles(directory)
    if not files.exist() and (authority or hosts or not (token or secret)):
        raise KeysError(f"there are no keys in {directory}: `compiler-daemon keys init --host NAME` makes them")
    prepare_directory(directory)
    if secret and DirectoryLock(directory).is_held():
        raise RunningError(
            f"a daemon serves {directory} and signs with the secret: `compiler-daemon stop`, rotate, start it again"
        )
    changes: list[Change] = []
    with alone(directory):
        until = time.time() + overlap_days * _DAY_S
        if files.exist():
            check_folder(files.folder)
            if authority:
                changes.append(_rotate_authority(files, until))
            changes.append(_rotate_server(files, hosts, days))
        if token:
            changes.append(_rotate_token(directory, until))
        if secret:
            changes.append(_rotate_secret(directory))
    return Change(
        done=tuple(text for change in changes for text in change.done),
        meanwhile=tuple(text for change in changes for text in change.meanwhile),
    )


def make_client(
    directory: Path,
    name: str,
    out: Path,
    *,
    role: Role = "trainer",
    kind: Kind = "certificate",
    address: str = "",
    days: int = CERTIFICATE_DAYS,
    renew: bool = False,
    overlap_days: float = OVERLAP_DAYS,
) -> Change:
    """Fill `out` with what a client on another machine needs; raise `KeysError` where the name is taken."""
    check_name(name)
    files = KeyFiles(directory)
    if not files.exist():
        raise KeysError(f"there are no keys in {directory}: `compiler-daemon keys init --host NAME` makes them")
    check_folder(files.folder)
    with alone(directory):
        now = time.time()
        register = Register.read(directory)
        taken = [client for client in register.in_force(now) if client.name == name]
        if taken and not renew:
            raise KeysError(
                f"{name} is a {taken[-1].role} in force already: --renew makes its keys anew, "
                f"`compiler-daemon keys revoke {name}` takes them back"
            )
        contents = {
            AUTHORITY_NAME: read_private(files.authority),
            SECRET_NAME: Identity.open(directory).secret,
        }
        if kind == "certificate":
            issued = issue_client(_authority(files), name, role, days)
            seen = read_certificate(issued.certificate)
            contents[CERTIFICATE_NAME] = issued.key + issued.certificate
            sha256, expires = seen.sha256, seen.not_after
        else:
            token = secrets.token_hex(32)
            contents[TOKEN_NAME] = token.encode()
            sha256, expires = token_sha256(token), end_of(days)
        client = Client(name=name, role=role, kind=kind, sha256=sha256, made=now, expires=expires)
        card = {"name": name, "role": role, "kind": kind, "expires": expires, "address": address}
        contents[CARD_NAME] = json.dumps(card, indent=1).encode()
        changed = renewed(register, client, old_until=now + overlap_days * _DAY_S)
        _fill(out, contents)
        # Last: what is in the register and in no directory could not be found again.
        changed.write(directory)
    meanwhile = (f"its earlier keys are in force until {_day(now + overlap_days * _DAY_S)}",) if taken else ()
    how = f"COMPILER_DAEMON_DIR={out}" + ("" if address else " COMPILER_DAEMON_ADDRESS=HOST:PORT")
    return Change(
        done=(
            f"made a {kind} for the {role} {name}, in force until {_day(expires)}, in {out}",
            f"a trainer uses it with TORCH_COMPILE_CLIENT=1 {how}; move it as it is, it holds secrets",
        ),
        meanwhile=meanwhile,
    )


def revoke(directory: Path, name: str) -> Change:
    """Take back every key of a client; raise `KeysError` where it has none in force."""
    with alone(directory):
        now = time.time()
        register = Register.read(directory)
        held = [client for client in register.in_force(now) if client.name == name]
        if not held:
            raise KeysError(f"no client {name[:80]!r} is in force: `compiler-daemon keys show` lists them")
        clients = tuple(replace(client, revoked=now) if client in held else client for client in register.clients)
        replace(register, clients=clients).write(directory)
    return Change(
        done=(f"took back the keys of {name}: {len(held)}",),
        meanwhile=(
            "its next call is refused, on open connections too; a compile that it waits for ends first",
            "it knows the signing secret: `compiler-daemon keys rotate --secret` if that may be misused",
        ),
    )


def show(directory: Path) -> KeysView:
    """Describe all keys; raise `KeysError` where one cannot be read."""
    files, register = KeyFiles(directory), Register.read(directory)
    until = register.previous_ca_until
    return KeysView(
        directory=str(directory),
        authority=_described(files.authority),
        previous_authority=_described(files.previous_authority) if until > time.time() else None,
        previous_authority_until=until,
        server=_described(files.server),
        previous_token_until=register.previous_token_until,
        clients=register.clients,
    )


def _rotate_authority(files: KeyFiles, until: float) -> Change:
    old, register = _authority(files), Register.read(files.directory)
    if (before := register.previous_ca_until) > time.time() and until > time.time():
        raise KeysError(
            f"the authority before this one is in force until {_day(before)}: rotate it again after that, "
            "or with --overlap-days 0, which ends both at once"
        )
    new = make_authority(AUTHORITY_DAYS)
    until = min(until, read_certificate(old.certificate).not_after)
    overlaps = until > time.time() + 60
    if overlaps:
        write_private(files.cross, cross_sign(new.certificate, old, until))
        write_private(files.previous_authority, old.certificate)
    else:
        files.cross.unlink(missing_ok=True)
        files.previous_authority.unlink(missing_ok=True)
    replace(register, previous_ca_until=until if overlaps else 0.0).write(files.directory)
    # Both in one file: a crash leaves no key without its certificate. `_rotate_server` puts `ca.pem` beside it.
    write_private(files.authority_key, new.key + new.certificate)
    done = ("made a new authority; the key of the old one is gone",)
    if not overlaps:
        return Change(
            done=done, meanwhile=("no client gets in until its directory is recreated: `keys client NAME --renew`",)
        )
    return Change(
        done=done,
        meanwhile=(
            f"clients' directories made before work until {_day(until)}: make each anew by then, "
            "`compiler-daemon keys client NAME --renew --out DIR`",
        ),
    )


def _rotate_server(files: KeyFiles, hosts: Sequence[str], days: int) -> Change:
    if not hosts:
        with contextlib.suppress(OSError, KeysError):  # unreadable: made for this machine alone, and said
            hosts = read_certificate(read_private(files.server)).hosts
    authority = _authority(files)
    server = issue_server(authority, hosts, days)
    chain = server.certificate
    with contextlib.suppress(FileNotFoundError):
        cross = read_private(files.cross)
        if read_certificate(cross).not_after > time.time():
            chain += cross
    write_private(files.authority, authority.certificate)
    write_private(files.server, server.key + chain)
    seen = read_certificate(server.certificate)
    return Change(
        done=(f"made a server certificate for {', '.join(seen.hosts)}, in force until {_day(seen.not_after)}",),
        meanwhile=("a running daemon shows it to the next connection; open connections go on",),
    )


def _rotate_token(directory: Path, until: float) -> Change:
    old = Identity.open(directory).token
    overlaps = until > time.time()
    register = replace(
        Register.read(directory),
        previous_token=token_sha256(old) if overlaps else "",
        previous_token_until=until if overlaps else 0.0,
    )
    register.write(directory)
    write_private(directory / TOKEN_NAME, secrets.token_hex(32).encode())
    said = (
        f"the old one opens the daemon until {_day(until)}; trainers that run go on with it, and read the new one "
        "when they connect again"
        if overlaps
        else "the old one opens nothing any more; trainers that run are refused once, torch compiles for them, and "
        "they read the new one when they try again, 10 s later"
    )
    return Change(done=("made a new token for this directory",), meanwhile=(said,))


def _rotate_secret(directory: Path) -> Change:
    write_private(directory / SECRET_NAME, secrets.token_bytes(SECRET_BYTES))
    return Change(
        done=("made a new signing secret",),
        meanwhile=(
            "artifacts signed with the old secret are not used any more: each graph is compiled once again",
            "trainers of this machine read the new one by themselves; clients elsewhere use no artifact until their "
            "directories are recreated: `compiler-daemon keys client NAME --renew --out DIR`",
        ),
    )


def _authority(files: KeyFiles) -> Issued:
    try:
        key, certificate = split_pem(read_private(files.authority_key))
    except OSError as error:
        raise KeysError(
            f"{error.filename} cannot be read ({error.strerror}): without the authority nothing can be signed; "
            f"put it back, or move {files.folder} away and begin with `compiler-daemon keys init`"
        ) from error
    return Issued(certificate, key)


def _fill(out: Path, contents: dict[str, bytes]) -> None:
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise KeysError(f"{out} is not empty: name another directory with --out")
        prepare_directory(out)
        for name, data in contents.items():
            write_private(out / name, data)
    except OSError as error:
        raise KeysError(f"{out} cannot be written ({error.strerror}): name another directory with --out") from error


def _described(path: Path) -> CertificateView | None:
    try:
        _, certificates = split_pem(read_private(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeysError(f"{path} cannot be read ({error.strerror})") from error
    return read_certificate(certificates)


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))
