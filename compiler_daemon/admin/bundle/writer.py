"""Writing a file in one pass; `admin.output` puts it into its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from compile_wire.digest import Digest
from compile_wire.environment import environment_id
from compile_wire.signature import secret_fingerprint, sign_bundle
from compiler_daemon.admin.bundle.index import (
    LENGTH_BYTES,
    MAGIC,
    MAX_INDEX_BYTES,
    Index,
    Kind,
    Packed,
    Request,
    checksum,
    encode_index,
)
from compiler_daemon.admin.output import Output
from compiler_daemon.errors import BundleError


class BundleWriter:
    """Writes a bundle; a context manager. Leaving it without `finish` leaves no file."""

    def __init__(self, path: Path, *, kind: Kind, made_by: str, secret: bytes | None) -> None:
        """`secret` signs; None in a file of graphs."""
        self._output = Output(path)
        self._kind: Kind = kind
        self._made_by = made_by
        self._secret = secret
        self._items: dict[Digest, int] = {}
        self._environments: dict[Digest, Mapping[str, str]] = {}
        self._requests: list[Request] = []
        self._artifacts: list[Packed] = []

    def __enter__(self) -> Self:
        self._file = self._output.__enter__().file
        self._file.write(MAGIC)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._output.__exit__(kind, error, traceback)

    def __contains__(self, digest: Digest) -> bool:
        """Whether the item is written already."""
        return digest in self._items

    def add_item(self, digest: Digest, chunks: Iterable[bytes]) -> None:
        """Write an item, once. Where the chunks end early by an error, nothing of it stays."""
        if digest in self._items:
            return
        begin, size = self._file.tell(), 0
        try:
            for chunk in chunks:
                self._file.write(chunk)
                size += len(chunk)
        except BaseException:
            self._file.seek(begin)
            self._file.truncate()
            raise
        self._items[digest] = size

    def add_environment(self, fields: Mapping[str, str]) -> None:
        """Note the environment of a request or an artifact."""
        self._environments[environment_id(fields)] = dict(fields)

    def add_request(self, request: Request) -> None:
        """Note a request whose graph and environment are written."""
        self._requests.append(request)

    def add_artifact(self, artifact: Packed) -> None:
        """Note an artifact whose manifest, blobs and environment are written."""
        self._artifacts.append(artifact)

    def finish(self) -> int:
        """Write index and signature, and bring it all to its place; return its bytes."""
        index = encode_index(
            Index(
                kind=self._kind,
                made_by=self._made_by,
                secret=secret_fingerprint(self._secret) if self._secret is not None else "",
                environments=self._environments,
                requests=tuple(self._requests),
                artifacts=tuple(self._artifacts),
            ),
            self._items,
        )
        if len(index) > MAX_INDEX_BYTES:
            raise BundleError("that is more than one file can hold: export programs one by one, with --program")
        signature = sign_bundle(self._secret, index=index) if self._secret is not None else checksum(index)
        self._file.write(index + signature + len(index).to_bytes(LENGTH_BYTES, "big") + MAGIC)
        return self._output.finish()
