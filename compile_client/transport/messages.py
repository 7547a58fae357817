"""What the client and the daemon hand each other, as plain values.

An `Artifact` exists only verified: `compile_client.transport.connection` is the one place that makes them, and it does
so after signature, manifest and every blob have been checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from compile_wire.digest import Digest, digest_of
from compile_wire.manifest import BlobRef, Manifest, Role, encode_manifest

TRACED_AGAIN = "traced_again"
"""The refusal of a graph that torch gives up, to trace the program once more with some of its numbers as constants."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled graph: signed by the daemon for the asked key and environment, complete, every byte checked."""

    manifest: Manifest
    digest: Digest
    """The manifest's name: what to pass as `have` when its guards turned out not to hold."""
    blobs: Mapping[Digest, bytes]
    host: str = ""
    """The node that compiled it, where it came from a shared tier just now; for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompileRequest:
    """A graph or a kernel that the daemon is asked to compile."""

    kind: Literal["graph", "kernel"]
    key: str
    payload: bytes
    """The encoded GraphSpec or KernelSpec."""
    have: tuple[Digest, ...] = ()
    """Manifests of artifacts whose guards did not hold."""
    background: bool = False
    """Whether no training waits for it: other compiles come first then."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The daemon will not compile this graph, and why. The daemon is well; torch compiles here."""

    reason: str
    """Of the protocol's `Refused.Reason`, in lower case without its prefix: `key_mismatch`, `unsupported`, ..."""
    message: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Queued:
    """Says that the compile waits for a worker."""

    position: int


@dataclass(frozen=True, slots=True)
class Running:
    """Says that a worker compiles the graph."""

    elapsed_s: float
    phase: str
    expected_s: float
    """0 where the daemon has no history of this graph."""


CompileEvent = Queued | Running


@dataclass(frozen=True, slots=True)
class Part:
    """One blob of a graph that was compiled here."""

    role: Role
    name: str
    data: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalCompile:
    """A graph that torch compiled in this process, ready to be published."""

    key: str
    guards: str
    compile_s: float
    parts: tuple[Part, ...]
    graph: bytes | None = None
    """The GraphSpec, where the graph could be captured."""
    disputed: tuple[Digest, ...] = ()
    """Manifests of artifacts that were served for it and are not what torch made here."""

    @property
    def total_bytes(self) -> int:
        """Bytes that it holds in memory."""
        return sum(len(part.data) for part in self.parts) + len(self.graph or b"")

    def packed(self, environment: Digest) -> tuple[bytes, dict[Digest, bytes]]:
        """Return the encoded manifest and the blobs; raise `MalformedError` where a bound of the wire is broken."""
        blobs: dict[Digest, bytes] = {}
        refs: list[BlobRef] = []
        for part in self.parts:
            digest = digest_of(part.data)
            blobs[digest] = part.data
            refs.append(BlobRef(role=part.role, name=part.name, sha256=digest, size=len(part.data)))
        manifest = Manifest(
            key=self.key,
            environment=environment,
            guards=self.guards,
            graph=digest_of(self.graph) if self.graph else "",
            compile_s=self.compile_s,
            origin="trainer",
            blobs=tuple(refs),
        )
        return encode_manifest(manifest), blobs
