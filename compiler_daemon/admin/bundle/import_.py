"""`import`: a bundle into a daemon, verified whole before anything of it is stored; what is there stays as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from compile_wire.digest import Digest
from compile_wire.environment import check_environment, environment_id
from compile_wire.errors import WireError
from compile_wire.kernel.environment import is_kernel_environment
from compile_wire.limits import MAX_MANIFEST_BYTES
from compile_wire.manifest import Manifest, decode_manifest
from compiler_daemon.admin.bundle import Bundle, Packed
from compiler_daemon.admin.bundle.preflight import Fields, Preflight, judge
from compiler_daemon.admin.inventory.calls import InventoryClient
from compiler_daemon.errors import BundleError

_INTERPRETER_S = 180.0
"""Importing torch from a cold network disk takes most of a minute."""

_ENVIRONMENT_CODE = (
    "import json; from compile_torch.environment import process_environment; "
    "print(json.dumps(dict(process_environment())))"
)
_KERNELS_CODE = (
    "import json; from compile_torch.triton.environment import kernel_environment; "
    "print(json.dumps(dict(kernel_environment())))"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """An artifact of a bundle, its manifest read."""

    packed: Packed
    manifest: Manifest
    graph: Digest | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """Counts what an import did."""

    imported: int
    present: int
    """Of those chosen: what was there already."""
    passed_over: int
    """What does not fit this machine."""
    bytes: int
    """Of blobs that were new."""


class Importer:
    """Imports one bundle. Verifies its signature and every item when it is made; raises `BundleError`."""

    def __init__(self, client: InventoryClient, bundle: Bundle, *, secret: bytes) -> None:
        bundle.verify_signature(secret)
        bundle.verify_items()
        self._client = client
        self._bundle = bundle
        graphs = {(one.environment, one.key): one.graph for one in bundle.index.requests}
        try:
            self._entries = [self._entry(packed, graphs) for packed in bundle.index.artifacts]
        except WireError as error:
            raise BundleError(f"the bundle holds something else than artifacts: {error}") from error

    @cached_property
    def preflight(self) -> Preflight:
        """Which entries fit this machine, and why the others do not."""
        return judge([entry.packed.environment for entry in self._entries], self._bundle.index.environments, self._here)

    def missing_bytes(self, *, everything: bool) -> int:
        """Return how much room the import needs: what of its blobs is not stored yet."""
        sizes = {blob.sha256: blob.size for entry in self._chosen(everything) for blob in entry.manifest.blobs}
        return sum(sizes[digest] for digest in self._client.missing(list(sizes)))

    def run(self, *, everything: bool, progress: Callable[[int, int], None]) -> Imported:
        """Import what fits this machine, or everything."""
        chosen = self._chosen(everything)
        imported = moved = 0
        for number, entry in enumerate(chosen, 1):
            new, size = self._bring(entry)
            imported += new
            moved += size
            progress(number, len(chosen))
        return Imported(
            imported=imported,
            present=len(chosen) - imported,
            passed_over=len(self._entries) - len(chosen),
            bytes=moved,
        )

    @cached_property
    def _here(self) -> Mapping[Digest, Fields]:
        """Return the environments of this machine: the daemon's, and the interpreter's own where it matters."""
        here: dict[Digest, Fields] = {
            environment: view.fields for environment, view in self._client.environments().items() if view.served
        }
        asked = self._bundle.index.environments
        unknown = [asked[entry.packed.environment] for entry in self._entries if entry.packed.environment not in here]
        for code, of_kernels in ((_ENVIRONMENT_CODE, False), (_KERNELS_CODE, True)):
            needed = any(is_kernel_environment(fields) == of_kernels for fields in unknown)
            if needed and (own := own_environment(code)):
                here[environment_id(own)] = own
        return here

    def _chosen(self, everything: bool) -> Sequence[Entry]:
        return [entry for entry in self._entries if everything or entry.packed.environment in self._here]

    def _entry(self, packed: Packed, graphs: Mapping[tuple[Digest, str], Digest]) -> Entry:
        manifest = decode_manifest(self._bundle.read(packed.manifest, max_bytes=MAX_MANIFEST_BYTES))
        if manifest.environment != packed.environment:
            raise BundleError("the bundle gives an artifact another environment than its own")
        for blob in manifest.blobs:
            if self._bundle.size(blob.sha256) != blob.size:
                raise BundleError(f"the bundle lacks blob {blob.sha256[:12]} of artifact {packed.manifest[:12]}")
        graph = graphs.get((manifest.environment, manifest.key))
        return Entry(packed=packed, manifest=manifest, graph=graph if manifest.graph in ("", graph) else None)

    def _bring(self, entry: Entry) -> tuple[bool, int]:
        sizes = {blob.sha256: blob.size for blob in entry.manifest.blobs}
        moved = 0
        for digest in self._client.missing(list(sizes)):
            self._client.import_blob(digest, sizes[digest], self._bundle.chunks(digest))
            moved += sizes[digest]
        if entry.graph is not None:
            self._client.import_blob(entry.graph, self._bundle.size(entry.graph) or 0, self._bundle.chunks(entry.graph))
        packed = entry.packed
        new = self._client.import_artifact(
            self._bundle.index.environments[packed.environment],
            self._bundle.read(packed.manifest, max_bytes=MAX_MANIFEST_BYTES),
            graph=entry.graph or "",
            program=packed.program,
        )
        return new, moved


def own_environment(code: str = _ENVIRONMENT_CODE) -> Fields | None:
    """Return the environment of a process of this interpreter; None where nothing in it says so in time."""
    # A process of its own: neither torch nor Triton is imported here. Without the client, which a trainer's would have.
    environ = {**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    try:
        said = subprocess.run(
            [sys.executable, "-P", "-c", code],
            capture_output=True,
            text=True,
            timeout=_INTERPRETER_S,
            check=True,
            env=environ,
        ).stdout
        fields = json.loads(said.splitlines()[-1])
        check_environment(fields)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError, AttributeError, TypeError):
        return None
    return {str(name): str(value) for name, value in fields.items()}
