"""Artifacts to store, which are small, differ from one another, and have real manifests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compile_wire.digest import Digest, digest_of
from compile_wire.manifest import BlobRef, Manifest, encode_manifest, manifest_digest
from compiler_daemon.store import Store, StoreConfig

ENVIRONMENT = digest_of(b"an environment")
SIGNATURE = b"\x01" + b"s" * 32
PROGRAM = "train.py"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A manifest and its blobs, ready to be stored."""

    manifest: bytes
    blobs: tuple[bytes, ...]

    @property
    def digest(self) -> Digest:
        return manifest_digest(self.manifest)

    @property
    def blob_digests(self) -> list[Digest]:
        return [digest_of(blob) for blob in self.blobs]


def noise(seed: int, size: int = 1000) -> bytes:
    return random.Random(seed).randbytes(size)


def sample_of(blobs: Sequence[bytes], *, key: str = "key", environment: Digest = ENVIRONMENT) -> Sample:
    refs = tuple(
        BlobRef(
            role="object" if number else "entry",
            name=f"{number}.so" if number else "",
            sha256=digest_of(blob),
            size=len(blob),
        )
        for number, blob in enumerate(blobs)
    )
    manifest = Manifest(
        key=key, environment=environment, guards="", graph="", compile_s=1.5, origin="worker", blobs=refs
    )
    return Sample(manifest=encode_manifest(manifest), blobs=tuple(blobs))


def sample(seed: int, *, key: str = "key", blobs: int = 2, size: int = 1000) -> Sample:
    return sample_of([noise(seed * 1000 + number, size) for number in range(blobs)], key=key)


def put(store: Store, item: Sample, *, signature: bytes = SIGNATURE) -> bool:
    for blob in item.blobs:
        store.put_blob(digest_of(blob), blob)
    return store.put_artifact(item.manifest, signature, program=PROGRAM)


def found(store: Store, *, key: str = "key", environment: Digest = ENVIRONMENT, limit: int = 16) -> list[Digest]:
    return [artifact.digest for artifact in store.find(environment, key, limit=limit)]


def assert_whole(store: Store, item: Sample, *, key: str = "key") -> None:
    """Require that the store finds the artifact, and that every byte of it is as it was put."""
    (artifact,) = [artifact for artifact in store.find(ENVIRONMENT, key, limit=999) if artifact.digest == item.digest]
    assert artifact.manifest == item.manifest
    assert artifact.signature == SIGNATURE
    assert sorted(artifact.blobs) == sorted(set(item.blob_digests))
    assert [store.read_blob(digest) for digest in item.blob_digests] == list(item.blobs)


def config(root: Path, **changes: object) -> StoreConfig:
    return StoreConfig(root=root, **{"grace_s": 0.0, **changes})  # type: ignore[arg-type]  # each test passes its own fields


def blob_path(root: Path, digest: Digest) -> Path:
    return root / "blobs" / digest[:2] / digest


def change_one_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
