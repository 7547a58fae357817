"""The trainer's side of Triton's kernels: what happens between the key of a kernel and its files.

get_cache_key      Triton knows what it will compile, and computes the key: noted
cache manager      files are there: nothing of ours runs. Else the daemon is asked, what it sends is put where Triton
  get_group        looks, and is Triton's hit. On a miss the kernel is lowered to text and a worker compiles it
  put_group        Triton compiled by itself: the files are published in the background

Nothing here raises into Triton, except what Triton's own frontend has to say about a kernel, which Triton then says.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from compile_client.errors import InstallError, InternalError
from compile_client.kernels.kernel_record import KernelRecord
from compile_client.kernels.lowering import KernelRequest, lowered, plain_name, store_key, why_not_kept
from compile_client.session.process import kernel_client
from compile_client.transport.messages import Artifact, CompileRequest, LocalCompile, Part, Refusal
from compile_torch.triton.metadata import local_metadata, portable_metadata, read_metadata
from compile_torch.triton.options import LIBRARIES, CannotTravelError
from compile_wire.digest import digest_of
from compile_wire.errors import MalformedError
from compile_wire.kernel.about import BINARIES, about_kernel, about_timings
from compile_wire.kernel.environment import TUNING_PREFIX

if TYPE_CHECKING:
    from compile_client.session.client import DaemonClient
    from compile_client.session.request import GraphRequest
    from compile_torch.triton.versions import TritonVersion
    from compile_wire.manifest import Manifest

_SUFFIX = re.compile(r"[a-z0-9]{1,16}", re.ASCII)
_METADATA = "json"
_MAX_TIMINGS_BYTES = 4 * 2**20

_logger = logging.getLogger("compile_client")


class Kernels:
    """Asks the daemon for one process's Triton kernels. Safe to use from several threads: each compiles its own."""

    def __init__(self, version: TritonVersion) -> None:
        self._version = version
        self._local = threading.local()

    def wrap_cache_key(self, original: Callable[..., str]) -> Callable[..., str]:
        """Wrap `get_cache_key`, as `triton.compile` calls it."""

        def get_cache_key(src: Any, backend: Any, backend_options: Any, env_vars: Any) -> str:
            text = original(src, backend, backend_options, env_vars=env_vars)
            self._local.request = None
            with guarded():
                key = hashlib.sha256(text.encode()).hexdigest()
                self._local.request = KernelRequest(
                    source=src,
                    backend=backend,
                    options=backend_options,
                    env_vars=dict(env_vars),
                    key=key,
                    manager_key=base64.b32encode(bytes.fromhex(key)).decode().rstrip("="),
                    store_key=store_key(key, (src, backend, backend_options, env_vars), self._version),
                )
            return text

        return get_cache_key

    def daemon_compiles(self) -> bool:
        """Whether a daemon is there that compiles what this process needs."""
        with guarded():
            client = kernel_client()
            return client.available() and client.may_publish()
        return False

    def requested(self, manager_key: str) -> KernelRequest | None:
        """Return the kernel that a cache manager was made for; None where it is for something else.

        With an inspection hook, the manager's key is not the one that was noted: such kernels stay here.
        """
        request: KernelRequest | None = getattr(self._local, "request", None)
        if request is None or request.manager_key != manager_key:
            return None
        self._local.request = None
        from triton import knobs

        hooked = knobs.runtime.add_stages_inspection_hook is not None
        return None if hooked and not self._version.hook_in_key else request

    def serve(self, request: KernelRequest, manager: Any, filename: str) -> dict[str, str] | None:
        """Return the kernel's files, put where Triton looks; None where Triton has to compile."""
        self._local.record = None
        with guarded():
            record = KernelRecord(request.store_key, plain_name(request.source.name))
            self._local.record = record
            if group := self._asked(request, record, manager, filename):
                return group
            kernel_client().counters.count_kernel("here")
        self._local.started = time.monotonic()  # what was waited for until here is not what a compile takes
        return None

    def _asked(
        self, request: KernelRequest, record: KernelRecord, manager: Any, filename: str
    ) -> dict[str, str] | None:
        client = kernel_client()
        client.report.forget_failure()
        if why := why_not_kept(request):
            self._here(client, record, "not_carried", why)
            return None
        asked = client.begin_graph(request.store_key)
        for artifact in asked.lookup():
            if group := self._installed(client, request, manager, filename, artifact):
                record.asked(client)
                client.counters.count_kernel("hits", artifact.manifest.compile_s)
                record.tell(client, "hit", saved_s=artifact.manifest.compile_s)
                return group
        record.asked(client)
        if asked.ended:
            return None
        if not client.may_publish():
            record.here("read_only", "a compile by the daemon needs the right to publish")
            return None
        outcome = self._by_daemon(client, request, record, asked)
        group = self._installed(client, request, manager, filename, outcome) if outcome else None
        record.asked(client)
        if group:
            client.counters.count_kernel("by_daemon")
            record.tell(client, "compiled_by_daemon")
        return group

    def compiled(self, request: KernelRequest, filename: str, group: dict[str, str]) -> None:
        """Publish what Triton has compiled here, in the background."""
        seconds = time.monotonic() - getattr(self._local, "started", time.monotonic())
        record: KernelRecord | None = getattr(self._local, "record", None)
        self._local.record = None
        with guarded():
            client = kernel_client()
            if record is not None and record.key == request.store_key:
                record.tell(client, "compiled_here", spent_s=seconds)
            if why_not_kept(request) or not client.may_publish():
                return
            stem = filename.removesuffix(f".{_METADATA}")
            files: dict[str, bytes] = {}
            for file_name, path in group.items():
                suffix = file_name.removeprefix(f"{stem}.")
                if not _SUFFIX.fullmatch(suffix):
                    return
                with open(path, "rb") as file:
                    files[suffix] = file.read()
            if not any(binary in files for binary in BINARIES):
                return
            metadata, name = read_metadata(files.pop(_METADATA)), plain_name(request.source.name)
            try:
                parts = [Part("stage", suffix, data) for suffix, data in files.items()]
                parts.append(Part("metadata", _METADATA, portable_metadata(metadata)))
            except MalformedError as error:
                client.report.compiled_locally(request.store_key, "not_published", str(error), kernel=name)
                return
            about = about_kernel(name, metadata, files)
            client.publish_later(
                LocalCompile(key=request.store_key, guards=about, compile_s=seconds, parts=tuple(parts))
            )

    def serve_timings(self, manager: Any, filename: str) -> str | None:
        """Return the file with an autotuned kernel's timings, where somebody has measured them; else None."""
        with guarded():
            client = kernel_client()
            for artifact in client.begin_graph(_timings_key(manager.key)).lookup():
                if artifact.manifest.kind != "timings":
                    continue
                (blob,) = artifact.manifest.blobs
                path: str = manager.place(filename, artifact.blobs[blob.sha256])
                client.counters.count_tuning(hit=True)
                return path
            client.counters.count_tuning(hit=False)
        return None

    def timed(self, manager_key: str, filename: str, data: str | bytes) -> None:
        """Publish what Triton has measured, in the background."""
        with guarded():
            client = kernel_client()
            content = data.encode() if isinstance(data, str) else data
            if client.may_publish() and len(content) <= _MAX_TIMINGS_BYTES:
                client.publish_later(
                    LocalCompile(
                        key=_timings_key(manager_key),
                        guards=about_timings(plain_name(filename.partition(".")[0]), content),
                        compile_s=0.0,
                        parts=(Part("timings", _METADATA, content),),
                    )
                )

    def _by_daemon(
        self,
        client: DaemonClient,
        request: KernelRequest,
        record: KernelRecord,
        asked: GraphRequest,
    ) -> Artifact | None:
        """Have a worker compile it; None where it is better compiled here."""
        try:
            spec = lowered(request)
        except (CannotTravelError, MalformedError) as error:
            client.counters.count_kernel_refusal("not_carried")
            self._here(client, record, "not_carried", str(error))
            return None
        except Exception:
            # Triton's frontend does not like the kernel: it will say so again where the user can see it.
            _logger.debug("a kernel could not be lowered", exc_info=True)
            return None
        record.spec = digest_of(spec)
        outcome = asked.compile(CompileRequest(kind="kernel", key=request.store_key, payload=spec))
        if isinstance(outcome, Refusal):
            self._here(client, record, outcome.reason, outcome.message)
            return None
        return outcome

    def _installed(
        self, client: DaemonClient, request: KernelRequest, manager: Any, filename: str, artifact: Artifact
    ) -> dict[str, str] | None:
        """Put the files of a verified artifact where Triton looks; None where they are not what was asked for."""
        try:
            stem = filename.removesuffix(f".{_METADATA}")
            files = {blob.name: artifact.blobs[blob.sha256] for blob in artifact.manifest.blobs}
            _check_kernel(artifact.manifest, request.backend.binary_ext)
            libraries = getattr(request.options, LIBRARIES, None)
            metadata = local_metadata(files.pop(_METADATA), key=request.key, libraries=libraries)
            group = {f"{stem}.{suffix}": manager.place(f"{stem}.{suffix}", data) for suffix, data in files.items()}
            group[filename] = manager.place(filename, metadata)
            installed: dict[str, str] | None = manager.place_group(filename, group)
        except (InstallError, MalformedError, OSError) as error:
            client.report.failed(
                error if isinstance(error, InstallError) else InstallError(f"a kernel of the daemon: {error}")
            )
            return None
        return installed

    @staticmethod
    def _here(client: DaemonClient, record: KernelRecord, reason: str, why: str) -> None:
        record.here(reason, why)
        client.report.compiled_locally(record.key, reason, why, kernel=record.name)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """As the client's `guarding`, also where it is the making of the client that fails."""
    try:
        yield
    except Exception as error:
        _logger.debug("a fault of the compile client", exc_info=True)
        with contextlib.suppress(Exception):
            kernel_client().report.failed(InternalError.of(error))


def _check_kernel(manifest: Manifest, binary: str) -> None:
    """Raise `InstallError` where it is no kernel with this kind of binary, or a file's name is none of Triton's."""
    suffixes = [blob.name for blob in manifest.blobs]
    if manifest.kind != "kernel" or not all(_SUFFIX.fullmatch(suffix) for suffix in suffixes):
        raise InstallError("an artifact of the daemon is no kernel")
    if len(set(suffixes)) != len(suffixes) or not {binary, _METADATA} <= set(suffixes):
        raise InstallError(f"a kernel of the daemon has no {binary}, or some file twice")


def _timings_key(manager_key: str) -> str:
    """Return the key of timings: Triton's, which has no device in it, and the device that they were measured on."""
    return f"{TUNING_PREFIX}{hashlib.sha256(f'{manager_key}-{device_name()}'.encode()).hexdigest()}"


def device_name() -> str:
    """Return the model of the current device; empty without one, or where another library drives it."""
    import sys

    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return f"{properties.name} {properties.multi_processor_count}"
