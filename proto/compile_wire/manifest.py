"""The manifest: what an artifact consists of, and for what it is good.

An artifact is a manifest plus the blobs that it lists. The manifest is canonical msgpack, so that its digest can be
signed and can name it. Guarantees: `decode(encode(m)) == m`, and `encode(decode(b)) == b` for every accepted `b`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from compile_wire.digest import Digest, digest_of, parse_digest
from compile_wire.errors import MalformedError
from compile_wire.limits import (
    MAX_ARTIFACT_BYTES,
    MAX_BLOB_BYTES,
    MAX_BLOBS,
    MAX_KEY_TEXT,
    MAX_MANIFEST_BYTES,
    MAX_NAME_TEXT,
)
from compile_wire.packing import pack, unpack

_VERSION = 1

Kind = Literal["graph", "kernel", "timings", "trace"]
"""What an artifact is. Its blobs' roles say it, so that the manifests of graphs are what they always were."""

Role = Literal["entry", "object", "metadata", "stage", "timings", "trace"]
"""Of a graph: `entry`, what torch's own cache reads (a pickle), exactly one; `object`, a shared object, under our
relocatable name. Of a kernel: `metadata`, Triton's JSON without paths, exactly one; `stage`, what one stage of its
pipeline made, down to the binary. Of an autotuned kernel: `timings`, what Triton measured, exactly one. Of a function:
`trace`, what dynamo made of it, exactly one."""

_LEADING: dict[str, tuple[Kind, frozenset[str]]] = {
    "entry": ("graph", frozenset({"entry", "object"})),
    "metadata": ("kernel", frozenset({"metadata", "stage"})),
    "timings": ("timings", frozenset({"timings"})),
    "trace": ("trace", frozenset({"trace"})),
}
"""The role that an artifact has exactly one blob of, the kind that it makes, and the roles that may stand beside it."""

Origin = Literal["worker", "trainer", "replay"]
"""Who compiled it: one of the daemon's workers for a trainer, a trainer that published its own compile, or a worker for
nobody in particular, from a graph that was kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlobRef:
    """One blob of an artifact."""

    role: Role
    name: str
    """What the blob is installed as, see `compile_torch.objects`; empty for the entry."""
    sha256: Digest
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """One artifact: a graph compiled, forward and backward, for one environment; or a kernel, or its timings."""

    key: str
    """The key that torch, or Triton, computed."""
    environment: Digest
    guards: str
    """The guard expression that torch evaluates before it uses the entry; empty where there is none. Of a kernel: what
    it is (name, target, registers, see `compile_wire.kernel.about`). Informative."""
    graph: str
    """Digest of the GraphSpec or KernelSpec it was compiled from; empty where that could not be captured."""
    compile_s: float
    """Seconds that the compile took: what a hit saves."""
    origin: Origin
    blobs: tuple[BlobRef, ...]

    @property
    def kind(self) -> Kind:
        """What it is."""
        return next(_LEADING[blob.role][0] for blob in self.blobs if blob.role in _LEADING)

    @property
    def total_bytes(self) -> int:
        """Bytes of all blobs together."""
        return sum(blob.size for blob in self.blobs)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the canonical bytes; raise `MalformedError` where a bound is broken."""
    data = _packed(manifest)
    decode_manifest(data)
    return data


def decode_manifest(data: bytes) -> Manifest:
    """Return the manifest in `data`; raise `MalformedError` where it is anything else than one, canonically encoded."""
    fields = unpack(data, max_bytes=MAX_MANIFEST_BYTES, what="manifest", max_lists=MAX_BLOBS + 2)
    if not isinstance(fields, dict) or fields.get("v") != _VERSION:
        raise MalformedError("not a manifest of a version known here")
    expected = {"v", "key", "environment", "guards", "graph", "compile_s", "origin", "blobs"}
    if set(fields) != expected:
        raise MalformedError(f"manifest fields {sorted(set(fields) ^ expected)} are missing or unknown")
    manifest = Manifest(
        key=_text(fields["key"], "key", MAX_KEY_TEXT),
        environment=parse_digest(_text(fields["environment"], "environment", 64)),
        guards=_text(fields["guards"], "guards", MAX_MANIFEST_BYTES),
        graph=_text(fields["graph"], "graph", 64),
        compile_s=_seconds(fields["compile_s"]),
        origin=cast("Origin", _one_of(fields["origin"], get_args(Origin), "origin")),
        blobs=_blobs(fields["blobs"]),
    )
    if manifest.graph:
        parse_digest(manifest.graph)
    if not manifest.key:
        raise MalformedError("the manifest has no key")
    if manifest.total_bytes > MAX_ARTIFACT_BYTES:
        raise MalformedError(f"the artifact has {manifest.total_bytes} bytes, more than {MAX_ARTIFACT_BYTES}")
    _check_roles([blob.role for blob in manifest.blobs])
    if _packed(manifest) != data:
        raise MalformedError("the manifest is not in its canonical form")
    return manifest


def manifest_digest(data: bytes) -> Digest:
    """Return the name of an encoded manifest."""
    return digest_of(data)


def _packed(manifest: Manifest) -> bytes:
    return pack(
        {
            "v": _VERSION,
            "key": manifest.key,
            "environment": manifest.environment,
            "guards": manifest.guards,
            "graph": manifest.graph,
            "compile_s": float(manifest.compile_s),
            "origin": manifest.origin,
            "blobs": [[blob.role, blob.name, blob.sha256, blob.size] for blob in manifest.blobs],
        }
    )


def _blobs(value: Any) -> tuple[BlobRef, ...]:
    if not isinstance(value, list) or len(value) > MAX_BLOBS:
        raise MalformedError(f"an artifact has a list of at most {MAX_BLOBS} blobs")
    refs = []
    for item in value:
        if not isinstance(item, list) or len(item) != 4:
            raise MalformedError("a blob is [role, name, sha256, size]")
        role, name, sha256, size = item
        if type(size) is not int or not 0 <= size <= MAX_BLOB_BYTES:
            raise MalformedError(f"a blob's size is from 0 to {MAX_BLOB_BYTES}, not {size!r:.40}")
        refs.append(
            BlobRef(
                role=cast("Role", _one_of(role, get_args(Role), "role")),
                name=_blob_name(name),
                sha256=parse_digest(_text(sha256, "sha256", 64)),
                size=size,
            )
        )
    return tuple(refs)


def _check_roles(roles: list[Role]) -> None:
    leading = [role for role in roles if role in _LEADING]
    if len(leading) != 1:
        raise MalformedError(f"an artifact has exactly one blob of {', '.join(_LEADING)}, not {len(leading)}")
    kind, beside = _LEADING[leading[0]]
    if not beside.issuperset(roles):
        raise MalformedError(f"a {kind} has no blobs of {', '.join(sorted(set(roles) - beside))}")


def _blob_name(value: object) -> str:
    """Return a blob's name, which becomes a file's at the client: one plain component, never a path."""
    name = _text(value, "blob name", MAX_NAME_TEXT)
    if name.startswith(".") or not all(c.isascii() and (c.isalnum() or c in "._-") for c in name):
        raise MalformedError(f"a blob's name is one plain component, not {name[:80]!r}")
    return name


def _text(value: object, what: str, max_length: int) -> str:
    if not isinstance(value, str) or len(value) > max_length:
        raise MalformedError(f"{what} is text of at most {max_length} characters")
    return value


def _one_of(value: object, choices: tuple[str, ...], what: str) -> str:
    if not isinstance(value, str) or value not in choices:
        raise MalformedError(f"{what} is one of {', '.join(choices)}, not {value!r:.40}")
    return value


def _seconds(value: object) -> float:
    if not isinstance(value, float) or not math.isfinite(value) or value < 0:
        raise MalformedError(f"compile_s is a number of seconds, not {value!r:.40}")
    return value
