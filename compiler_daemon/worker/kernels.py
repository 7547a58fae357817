"""A worker's compiler of Triton kernels: a KernelSpec in, messages out, the last of them the artifact or why not.

No torch, no device, and nothing of Triton's frontend: the text is parsed by Triton's own parser and goes through the
stages of its backend for the target, in the same order and with the same options as `triton.compile` runs them. What
comes out is byte for byte what a compile in the trainer gives.
"""

# triton is not installed everywhere, and its types are partly invisible.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import triton
from triton._C.libtriton import get_cache_invalidating_env_vars, ir
from triton.backends.compiler import GPUTarget, Language
from triton.compiler.compiler import make_backend

from compile_torch.triton.environment import kernel_environment
from compile_torch.triton.metadata import portable_metadata
from compile_torch.triton.options import CannotTravelError, options_digest
from compile_wire.digest import digest_of
from compile_wire.environment import environment_id
from compile_wire.errors import MalformedError
from compile_wire.kernel.about import BINARIES, about_kernel
from compile_wire.kernel.spec import KernelSpec, decode_kernel
from compile_wire.manifest import BlobRef, Manifest, Role, encode_manifest
from compiler_daemon.worker.kernel_check import check_module
from compiler_daemon.worker.leftovers import Leftovers, process_probes
from compiler_daemon.worker.protocol import LAST

_logger = logging.getLogger(__name__)

Message = dict[str, Any]

_METADATA = "json"


class KernelCompiler:
    """Compiles the Triton kernels of this process, one job at a time."""

    def __init__(self) -> None:
        # The shell that started the daemon must not decide what a trainer's kernel becomes. A trainer that has set any
        # of these compiles by itself.
        for name in get_cache_invalidating_env_vars():
            os.environ.pop(name, None)
        self._environment = environment_id(kernel_environment())
        self.spent = False
        """Whether a kernel has left something behind: this process must take no other."""
        self._leftovers = Leftovers(process_probes())

    def wait_until_warm(self) -> None:
        """Return at once: a worker of kernels makes nothing beforehand."""

    def run(self, job_id: int, key: str, graph: bytes, *, replay: bool = False) -> Iterator[Message]:
        """Compile; yield progress, the blobs, and at last `done` or `refused`; `spent` where this process must end."""
        for message in self._answered(job_id, key, graph, replay=replay):
            if message["type"] in LAST and (left := self._leftovers.found()):
                _logger.warning("a kernel left behind: %s; this worker ends", ", ".join(left))
                message["spent"] = self.spent = True
            yield message

    def _answered(self, job_id: int, key: str, graph: bytes, *, replay: bool) -> Iterator[Message]:
        if not key:
            yield _refused(job_id, "UNSUPPORTED", "a kernel's key is computed in the trainer, and not here")
            return
        try:
            yield {"type": "progress", "id": job_id, "phase": "rebuilding"}
            spec = decode_kernel(graph)
            start = time.monotonic()
            yield {"type": "progress", "id": job_id, "phase": "compiling"}
            refs: list[BlobRef] = []
            binaries: dict[str, bytes] = {}
            metadata: dict[str, Any] = {}
            with _temporary_folder():
                # Each file goes as soon as it is made: the daemon's disk works while the next stage is compiled.
                for suffix, data in _compile(spec, metadata):
                    role: Role = "metadata" if suffix == _METADATA else "stage"
                    digest = digest_of(data)
                    refs.append(BlobRef(role=role, name=suffix, sha256=digest, size=len(data)))
                    if role == "stage":
                        binaries[suffix] = data if suffix in BINARIES else b""
                    yield {"type": "blob", "id": job_id, "sha256": digest, "data": data}
            seconds = time.monotonic() - start
            yield {"type": "progress", "id": job_id, "phase": "packing"}
            manifest = Manifest(
                key=key,
                environment=self._environment,
                guards=about_kernel(spec.name, metadata, binaries),
                graph=digest_of(graph),
                compile_s=seconds,
                origin="replay" if replay else "worker",
                blobs=tuple(refs),
            )
            yield {"type": "done", "id": job_id, "manifest": encode_manifest(manifest), "facts": b""}
        except (MalformedError, CannotTravelError) as error:
            yield _refused(job_id, "UNSUPPORTED", str(error))
        except _OptionsDifferError as error:
            yield _refused(job_id, "KEY_MISMATCH", str(error))
        except Exception as error:
            _logger.warning("compile failed", exc_info=True)
            yield _refused(job_id, "COMPILE_ERROR", f"{type(error).__name__}: {str(error)[:2000]}")


@contextlib.contextmanager
def _temporary_folder() -> Iterator[None]:
    """Give Triton, and the programs that it starts, a folder for their files that goes with the job.

    Triton leaves the text of a kernel behind where an assembler refuses it.
    """
    before, named = tempfile.tempdir, os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="kernel-") as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        try:
            yield
        finally:
            tempfile.tempdir = before
            if named is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = named


class _OptionsDifferError(Exception):
    """This Triton understands the options otherwise than the trainer's did."""


def _compile(spec: KernelSpec, metadata: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield the kernel's files: suffix and content. Triton's metadata is complete after the last."""
    target = GPUTarget(spec.backend, spec.arch, spec.warp_size)
    try:
        backend: Any = make_backend(target)
    except RuntimeError as error:
        raise MalformedError(f"there is no backend for {spec.backend}") from error
    # The architecture follows from the target alone: the digest then says whether the two belong together.
    options = backend.parse_options({name: value for name, value in spec.options.items() if name != "arch"})
    if options_digest(options) != spec.options_digest:
        raise _OptionsDifferError("options or libraries come out different here")

    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    module = _parsed(spec.ttir, context)
    check_module(module, spec.backend)
    stages: dict[str, Any] = {}
    backend.add_stages(stages, options, Language.TRITON)
    if next(iter(stages), "") != "ttir":
        raise MalformedError(f"the pipeline of {spec.backend} does not begin with ttir")
    metadata |= {"hash": "", "target": target, **vars(options), "triton_version": triton.__version__}
    yield "source", spec.source.encode()
    yield "ttir", spec.ttir.encode()
    for suffix, stage in list(stages.items())[1:]:
        module = stage(module, metadata)
        yield suffix, module if isinstance(module, bytes) else str(module).encode()
    yield _METADATA, portable_metadata(metadata)


def _parsed(text: str, context: Any) -> Any:
    """Parse text that came over the wire. MLIR's parser checks types and operations, and runs nothing.

    Text of a correct form can still make MLIR's passes abort, and the process with them: that is a lost worker, and
    after the second one the key is refused for a while.
    """
    if "tt.func public" not in text:
        raise MalformedError("the kernel's text has no public function")
    with tempfile.NamedTemporaryFile("w", suffix=".ttir", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        try:
            module = ir.parse_mlir_module(file.name, context)
        except RuntimeError as error:
            raise MalformedError("the kernel's text is no TTIR") from error
    module.context = context  # as Triton does: the module must not outlive it
    return module


def _refused(job_id: int, reason: str, message: str) -> Message:
    return {"type": "refused", "id": job_id, "reason": reason, "message": message, "fields": []}
