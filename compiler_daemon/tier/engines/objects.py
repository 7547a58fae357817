"""A bucket as a tier, through obstore: `s3://BUCKET/PREFIX`, and `gs://` and `az://`, which were never run.

What obstore is told, or kept from:
- no retries (it has ten); its caller has a budget, and a breaker;
- `allow_http` from AWS_ALLOW_HTTP: the library forgets that variable where it is given any option of its client;
- single deletes, which every server of S3 has;
- a bucket that is not there raises `FileNotFoundError` like a key that is not, and would be a miss for ever: the
  server's answer is read, and where it does not say, the bucket is listed;
- keys are read from the environment and from the file of AWS's tools, which the library does not read; roles of
  machines and pods it finds itself.
"""

from __future__ import annotations

import asyncio
import configparser
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, S3Store

from compiler_daemon.errors import (
    TierDeniedError,
    TierError,
    TierFullError,
    TierMissingError,
    TierTimeoutError,
    TierUnreachableError,
    TooLargeError,
)
from compiler_daemon.text.findings import Finding, ok, problem
from compiler_daemon.tier.address import TierAddress
from compiler_daemon.tier.engines.engine import EngineTimeouts, Stored, check_name, check_rights, check_size

T = TypeVar("T")

LARGEST = 2 * 2**30
"""More than the wire lets an artifact have; S3 takes 5 GiB in one request."""

_LONGEST_CALL_S = 600.0
"""The client's own limit, behind those of the engine."""

_BUCKET_SEEN_S = 60.0
"""How long a bucket that was seen counts as there, where misses do not say so."""

_REST_S = 0.1
"""Of 120 processes that ended right after a call ten were aborted, of 120 that waited for half of this none."""

_S3_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
)
"""Handed on from the environment that the engine is given; others the library takes from the process's."""

_NO_KEY = ("NoSuchKey", "BlobNotFound")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
_FULL = ("QuotaExceeded", "InsufficientStorage", "StorageFull", "507 ")
_CODE = re.compile(r"<Code>([A-Za-z]+)</Code>")
_STATUS = re.compile(r"status code: (\d+ [A-Za-z ]+)")


class ObjectsEngine:
    """A tier in a bucket."""

    largest = LARGEST

    def __init__(
        self, address: TierAddress, environ: Mapping[str, str] | None = None, timeouts: EngineTimeouts | None = None
    ) -> None:
        self._address = address
        self._timeouts = timeouts or EngineTimeouts()
        self._bucket_seen = -_BUCKET_SEEN_S
        self._last_call = -_REST_S
        self._store = self._opened(os.environ if environ is None else environ)

    async def get(self, name: str, limit: int) -> bytes | None:
        check_name(name)
        try:
            result = await self._answer(obstore.get_async(self._store, name))
        except FileNotFoundError as error:
            await self._check_bucket(error)
            return None
        if (size := result.meta["size"]) > limit:  # the body has not been asked for yet
            raise TooLargeError(f"{name} in {self._address} has {size} bytes, and at most {limit} are read")
        return (await self._answer(result.bytes_async(), size)).to_bytes()

    async def begin(self, name: str, most: int) -> bytes | None:
        call = obstore.get_range_async(self._store, check_name(name), start=0, length=most)
        try:
            return (await self._answer(call, most)).to_bytes()
        except FileNotFoundError as error:
            await self._check_bucket(error)
            return None

    async def create(self, name: str, data: bytes) -> bool:
        try:
            await self._put(name, data, exclusive=True)
        except AlreadyExistsError:
            return False
        return True

    async def replace(self, name: str, data: bytes, *, lives_s: float | None = None) -> None:
        await self._put(name, data, exclusive=False)

    async def delete(self, name: str) -> None:
        check_name(name)
        try:
            await self._answer(obstore.delete_async(self._store, name))
        except FileNotFoundError as error:
            await self._check_bucket(error)

    async def touch(self, name: str) -> bool:
        """Return False: S3 refuses to copy an object onto itself unless something of it changes, and cleans by age."""
        check_name(name)
        return False

    async def names(self, prefix: str) -> AsyncIterator[Stored]:
        pages = obstore.list(self._store, check_name(prefix.rstrip("/")), chunk_size=1000)
        while True:
            try:
                page = await self._answer(anext(pages))
            except StopAsyncIteration:
                return
            except FileNotFoundError as error:
                raise self._missing() from error
            for each in page:
                age_s = (datetime.now(UTC) - each["last_modified"]).total_seconds()
                yield Stored(each["path"], each["size"], max(0.0, age_s))

    async def check(self) -> list[Finding]:
        try:
            await self._see_bucket()
        except TierDeniedError:
            pass  # who may read and write need not be one who may list
        except TierError as error:
            return [problem("tier", str(error))]
        return [ok("tier", f"{self._address}"), *await check_rights(self)]

    async def close(self) -> None:
        """Let the library's threads come to rest: one that still tidies up after a call aborts a Python that ends."""
        await asyncio.sleep(self._last_call + _REST_S - time.monotonic())

    async def _put(self, name: str, data: bytes, *, exclusive: bool) -> None:
        check_name(name)
        check_size(len(data), self.largest)
        mode: Any = "create" if exclusive else "overwrite"
        try:
            # In one request: a part of an upload that was left would cost its owner money, unseen.
            put = obstore.put_async(self._store, name, data, mode=mode, use_multipart=False)
            await self._answer(put, len(data))
        except FileNotFoundError as error:
            raise self._missing() from error

    async def _answer(self, call: Awaitable[T], size: int = 0) -> T:
        try:
            async with asyncio.timeout(self._timeouts.of(size)):
                return await call
        except TimeoutError:
            raise TierTimeoutError(f"{self._address} does not answer") from None
        except (FileNotFoundError, AlreadyExistsError):
            raise
        except (BaseError, OSError) as error:
            raise self._translated(error) from error
        finally:
            self._last_call = time.monotonic()

    def _translated(self, error: Exception) -> TierError:
        text = str(error)
        code, status = _CODE.search(text), _STATUS.search(text)
        why = code[1] if code else status[1].strip() if status else text.partition("\n")[0]
        if isinstance(error, PermissionDeniedError | UnauthenticatedError):
            return TierDeniedError(f"{self._address} does not allow it ({why})")
        if any(mark in text for mark in _NO_BUCKET):
            return self._missing()
        if any(mark in text for mark in _FULL):
            return TierFullError(f"{self._address} has no room ({why})")
        if "kind: Timeout" in text:
            return TierTimeoutError(f"{self._address} does not answer")
        if "kind: Connect" in text:
            return TierUnreachableError(f"nobody answers at {self._address} ({_endpoint_of(text)})")
        return TierError(f"{self._address}: {why}")

    def _missing(self) -> TierMissingError:
        return TierMissingError(
            f"there is no bucket {self._address.place}: make it, or name another; none is made by a daemon"
        )

    async def _check_bucket(self, error: FileNotFoundError) -> None:
        """Raise `TierMissingError` where a miss is one because there is no bucket."""
        text = str(error)
        if any(mark in text for mark in _NO_BUCKET):
            raise self._missing() from error
        if any(mark in text for mark in _NO_KEY) or time.monotonic() - self._bucket_seen < _BUCKET_SEEN_S:
            return
        try:
            await self._see_bucket()
        except TierDeniedError:
            self._bucket_seen = time.monotonic()  # it is there; listing is a right of its own

    async def _see_bucket(self) -> None:
        pages = obstore.list(self._store, check_name("doctor"), chunk_size=1)
        try:
            await self._answer(anext(pages))
        except StopAsyncIteration:
            pass
        except FileNotFoundError as error:
            raise self._missing() from error
        self._bucket_seen = time.monotonic()

    def _opened(self, environ: Mapping[str, str]) -> S3Store | GCSStore | AzureStore:
        options: Any = {
            "allow_http": environ.get("AWS_ALLOW_HTTP", "").lower() in ("true", "1", "yes", "on"),
            "connect_timeout": timedelta(seconds=self._timeouts.connect_s),
            "read_timeout": timedelta(seconds=self._timeouts.call_s),
            "timeout": timedelta(seconds=_LONGEST_CALL_S),
        }
        retries: Any = {"max_retries": 0, "retry_timeout": timedelta(seconds=self._timeouts.call_s)}
        shared: Any = {"prefix": self._address.prefix or None, "client_options": options, "retry_config": retries}
        place = self._address.place
        try:
            match self._address.scheme:
                case "gs":
                    return GCSStore(place, **shared)
                case "az":
                    return AzureStore(place, **shared)
                case _:
                    return S3Store(place, config=_s3_settings(environ), **shared)
        except (BaseError, ValueError) as error:
            raise TierError(f"{self._address} cannot be used: {str(error).partition(chr(10))[0]}") from error


def _s3_settings(environ: Mapping[str, str]) -> Any:
    settings = {name.lower(): environ[name] for name in _S3_VARIABLES if environ.get(name)}
    if "aws_access_key_id" not in settings:
        settings |= _shared_credentials(environ)
    return {**settings, "disable_bulk_delete": True}


def _shared_credentials(environ: Mapping[str, str]) -> dict[str, str]:
    path = environ.get("AWS_SHARED_CREDENTIALS_FILE") or str(Path(environ.get("HOME", "/")) / ".aws/credentials")
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
        profile = dict(parser[environ.get("AWS_PROFILE") or "default"])
    except (configparser.Error, OSError, UnicodeDecodeError, KeyError):
        return {}
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    return {name: profile[name] for name in names if profile.get(name)}


def _endpoint_of(text: str) -> str:
    found = re.search(r"https?://[^/ ]+", text)
    return found[0] if found else "no endpoint"
