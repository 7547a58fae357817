"""Where a tier is, read from what the operator wrote, and what the objects in it are called.

A password comes from a file or from the environment, never from the command line, where every user of the machine could
read it; and it is masked wherever an address is printed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from compiler_daemon.endpoint import read_private
from compiler_daemon.errors import DirectoryError, UsageError

Scheme = Literal["file", "s3", "gs", "az", "redis", "rediss", "unix"]

TIER_VARIABLE = "COMPILER_DAEMON_TIER"
PASSWORD_VARIABLE = "COMPILER_DAEMON_TIER_PASSWORD"  # noqa: S105 - the variable's name
PASSWORD_FILE_VARIABLE = "COMPILER_DAEMON_TIER_PASSWORD_FILE"  # noqa: S105 - the variable's name

SLOTS = 8
"""Artifacts of one key that differ in their guards; a tier holds no more, so that junk costs bounded reads."""

_SCHEMES = ("file", "s3", "gs", "az", "redis", "rediss", "unix")
_FORMS = "write file:///DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, redis://HOST:PORT or unix:///SOCKET"
_ELSEWHERE = f"put it into {PASSWORD_VARIABLE}, or name a file of mode 600 in {PASSWORD_FILE_VARIABLE}"
_REDIS_PORT = 6379
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TierAddress:
    """A tier's address; as text it is without its password."""

    scheme: Scheme
    place: str
    """The directory, the bucket, HOST:PORT, or the socket's path."""
    prefix: str = ""
    """Before all names in a bucket; empty, or without slashes at its ends."""
    database: int = 0
    """Redis's."""
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def is_far(self) -> bool:
        """Whether an answer takes tens of milliseconds: a bucket."""
        return self.scheme in ("s3", "gs", "az")

    def __str__(self) -> str:
        login = f"{quote(self.user)}:***@" if self.password else f"{quote(self.user)}@" if self.user else ""
        match self.scheme:
            case "file":
                return f"file://{quote(self.place)}"
            case "unix":
                return f"unix://{login}{quote(self.place)}" + (f"?db={self.database}" if self.database else "")
            case "redis" | "rediss":
                return f"{self.scheme}://{login}{self.place}/{self.database}"
            case _:
                return f"{self.scheme}://{self.place}" + (f"/{self.prefix}" if self.prefix else "")


def tier_of(argument: str, environ: Mapping[str, str]) -> TierAddress | None:
    """Return the tier of the command line, else that of the environment, with its password; None where neither is.

    Raises `UsageError` for what can be no tier, and `DirectoryError` for a file that others can reach.
    """
    text = argument or environ.get(TIER_VARIABLE, "")
    if not text:
        return None
    return _with_password(read_tier(text, may_hold_password=not argument), environ)


def tier_at(place: str, environ: Mapping[str, str]) -> TierAddress:
    """Return one of the tiers that `tier_places` has found, with its password; with the errors of `tier_of`."""
    return _with_password(read_tier(place, may_hold_password=True), environ)


def _with_password(address: TierAddress, environ: Mapping[str, str]) -> TierAddress:
    if address.scheme not in ("redis", "rediss", "unix") or address.password:
        return address
    return replace(address, password=_password(environ))


def tier_places(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the tiers of the command line, else those of the environment, which are separated by spaces.

    Each is checked, so that what is none is said at the command line; raises `UsageError`.
    """
    if arguments:
        for text in arguments:
            read_tier(text)
        return tuple(arguments)
    named = tuple(environ.get(TIER_VARIABLE, "").split())
    for text in named:
        read_tier(text, may_hold_password=True)
    return named


def read_tier(text: str, *, may_hold_password: bool = False) -> TierAddress:
    """Return the address that `text` names; raise `UsageError`, saying what to do, where it is none.

    `may_hold_password` says that the text is from a place that other users cannot read.
    """
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise UsageError(f"{masked(text)!r} is no tier: {_FORMS}") from None
    if url.scheme not in _SCHEMES or url.fragment:
        raise UsageError(f"{masked(text)!r} is no tier: {_FORMS}")
    if url.password is not None and not may_hold_password:
        raise UsageError(f"{masked(text)} holds a password, which other users of this machine could read: {_ELSEWHERE}")
    scheme = cast(Scheme, url.scheme)
    match scheme:
        case "file":
            return _directory(text, url)
        case "redis" | "rediss":
            return _redis(text, scheme, url, port)
        case "unix":
            return _socket(text, url)
        case _:
            return _bucket(text, scheme, url)


def masked(text: str) -> str:
    """Return what was written as it may be printed: without a login and a query, whichever form they have."""
    scheme, there, rest = text.partition("://") if "://" in text else ("", "", text)
    place = rest.partition("?")[0]
    _, at, place = place.rpartition("@")
    return f"{scheme}{there}{'***@' if at else ''}{place}{'?***' if '?' in rest else ''}"


def object_name(namespace: str, environment: str, key: str, slot: int) -> str:
    """Return the name of one artifact of a key."""
    if not 0 <= slot < SLOTS:
        raise ValueError(f"a key has the slots 0 to {SLOTS - 1}, not {slot}")
    sha = hashlib.sha256(key.encode()).hexdigest()
    return f"v1/{_part(namespace)}/{_part(environment)}/{sha}/{slot}"


def objects_prefix(namespace: str, environment: str = "") -> str:
    """Return what the names of all artifacts of a namespace, or of one environment in it, begin with."""
    return f"v1/{_part(namespace)}/" + (f"{_part(environment)}/" if environment else "")


def facts_name(environment: str) -> str:
    """Return the name of an environment's facts."""
    return f"facts/{_part(environment)}"


def list_name(environment: str, program: str) -> str:
    """Return the name of the list of what a program asked for last."""
    return f"programs/{_part(environment)}/{hashlib.sha256(program.encode()).hexdigest()}"


def compile_sha(namespace: str, environment: str, key: str) -> str:
    """Return what a compile is called in leases: the same key in another environment is another compile."""
    return hashlib.sha256(f"{_part(namespace)}\0{_part(environment)}\0{key}".encode()).hexdigest()


def lease_name(sha: str, generation: int | None = None) -> str:
    """Return the name of a lease: of one generation, or of the one that an engine with locks needs."""
    return f"lease/{_sha(sha)}" if generation is None else f"lease/{_sha(sha)}/{generation}"


def beat_name(sha: str, generation: int) -> str:
    """Return the name of what the holder of a lease overwrites while it lives."""
    return f"beat/{_sha(sha)}/{generation}"


def cleaning_sha() -> str:
    """Return what the work of `tier gc` is called in leases."""
    return hashlib.sha256(b"tier gc").hexdigest()


def refused_name(sha: str) -> str:
    """Return the name of the marker of a compile that was refused, or has killed workers."""
    return f"refused/{_sha(sha)}"


def _directory(text: str, url: SplitResult) -> TierAddress:
    if url.netloc not in ("", "localhost") or url.query or not url.path.startswith("/") or len(url.path) < 2:
        raise UsageError(f"{masked(text)!r} names no directory: write file:///DIR, with three slashes")
    return TierAddress(scheme="file", place=unquote(url.path).rstrip("/") or "/")


def _bucket(text: str, scheme: Scheme, url: SplitResult) -> TierAddress:
    if url.username is not None or url.query:
        raise UsageError(
            f"{masked(text)}: keys, endpoint and region of a bucket come from the usual variables "
            "(AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, AWS_REGION), not from its address"
        )
    prefix = url.path.strip("/")
    if not _PART.fullmatch(url.netloc) or not all(_PART.fullmatch(part) for part in prefix.split("/") if prefix):
        raise UsageError(f"{masked(text)!r} names no bucket: write {scheme}://BUCKET or {scheme}://BUCKET/PREFIX")
    return TierAddress(scheme=scheme, place=url.netloc, prefix=prefix)


def _redis(text: str, scheme: Scheme, url: SplitResult, port: int | None) -> TierAddress:
    database = url.path.strip("/") or "0"
    if not url.hostname or url.query or not database.isdecimal():
        raise UsageError(
            f"{masked(text)!r} names no Redis: write {scheme}://HOST:PORT, or {scheme}://HOST:PORT/DATABASE"
        )
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    place = f"{host}:{_REDIS_PORT if port is None else port}"
    return TierAddress(scheme=scheme, place=place, database=int(database), **_login(url))


def _socket(text: str, url: SplitResult) -> TierAddress:
    query = dict(parse_qsl(url.query))
    database = query.pop("db", "0")
    if url.hostname or len(url.path) < 2 or query or not database.isdecimal():
        raise UsageError(f"{masked(text)!r} names no socket: write unix:///SOCKET, or unix:///SOCKET?db=DATABASE")
    return TierAddress(scheme="unix", place=unquote(url.path), database=int(database), **_login(url))


def _login(url: SplitResult) -> dict[str, str]:
    return {"user": unquote(url.username or ""), "password": unquote(url.password or "")}


def _password(environ: Mapping[str, str]) -> str:
    name = environ.get(PASSWORD_FILE_VARIABLE, "")
    if not name:
        return environ.get(PASSWORD_VARIABLE, "")
    try:
        return read_private(Path(name)).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DirectoryError(f"{name}, which {PASSWORD_FILE_VARIABLE} names, cannot be read: {error}") from error


def _part(text: str) -> str:
    if not _PART.fullmatch(text):
        raise ValueError(f"{text!r} cannot be a part of a name in a tier")
    return text


def _sha(text: str) -> str:
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"{text!r} is no SHA-256")
    return text
