"""Artifacts that follow from their key: whoever knows the key knows every byte, and so notices a wrong one.

Their sizes are those of real ones: an entry and some shared objects, from 50 KB to 1 MB together; a few are larger than
a message, so that their blobs travel one by one; and some objects belong to several artifacts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

from compile_client.testing import Artifact, LocalCompile, Part
from compile_wire.digest import Digest
from compile_wire.manifest import Manifest

ENVIRONMENT: Mapping[str, str] = {"python": "cp311", "torch": "0.synthetic", "cpu_flags": "none"}
"""Of no machine: no worker can run in it, so that what is looked up was published and never compiled."""

_MAX_OBJECTS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalogue:
    """So many artifacts, each following from its number."""

    name: str
    keys: int
    min_bytes: int = 50_000
    max_bytes: int = 1_000_000
    big_every: int = 0
    """Each so-manieth is `big_bytes` long; 0 is none."""
    big_bytes: int = 4_500_000
    shared: int = 40
    """So many objects are of a kernel that several graphs have; 0 is none."""

    def key(self, number: int) -> str:
        """Return the key of an artifact."""
        return f"{self.name}-{number:06d}"

    def size(self, number: int) -> int:
        """Return how many bytes its blobs have, roughly; small ones are more frequent than large ones."""
        if self.big_every and number % self.big_every == self.big_every - 1:
            return self.big_bytes
        part = int.from_bytes(_bytes(f"size {self.key(number)}", 4), "big") / 2**32
        return round(math.exp(math.log(self.min_bytes) + part * math.log(self.max_bytes / self.min_bytes)))

    def compiled(self, number: int) -> LocalCompile:
        """Return the artifact as a trainer that compiled it would hand it in."""
        key, size = self.key(number), self.size(number)
        objects = number % (_MAX_OBJECTS + 1)
        entry = size // 2 if objects else size
        parts = [Part("entry", "", _bytes(f"entry {key}", entry))]
        for place in range(objects):
            common = place == 0 and self.shared > 0
            text = f"{self.name} shared {number % self.shared}" if common else f"object {place} {key}"
            length = 20_000 if common else (size - entry) // objects
            name = hashlib.sha256(text.encode()).hexdigest()[:16]
            parts.append(Part("object", f"kernel-{name}.so", _bytes(text, length)))
        return LocalCompile(
            key=key, guards="", compile_s=1.5, parts=tuple(parts), graph=_bytes(f"graph {key}", 2_000 + size % 20_000)
        )

    def complaint(self, number: int, artifact: Artifact) -> str:
        """Return what is wrong with an artifact that was served under the key of `number`; empty where nothing is."""
        return complaint(self.compiled(number), artifact.manifest, artifact.blobs)


def complaint(expected: LocalCompile, manifest: Manifest, blobs: Mapping[Digest, bytes]) -> str:
    """Return in which way manifest and blobs are not those of `expected`; empty where they are."""
    if manifest.key != expected.key:
        return f"key {manifest.key} instead of {expected.key}"
    if [(ref.role, ref.name) for ref in manifest.blobs] != [(part.role, part.name) for part in expected.parts]:
        return f"{expected.key}: other blobs than were published"
    for ref, part in zip(manifest.blobs, expected.parts, strict=True):
        if blobs[ref.sha256] != part.data:
            return f"{expected.key}: wrong bytes in {ref.role} {ref.name}"
    return ""


def _bytes(text: str, length: int) -> bytes:
    return hashlib.shake_128(text.encode()).digest(length)
