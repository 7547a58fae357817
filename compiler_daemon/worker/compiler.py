"""One worker's compiler: a GraphSpec in, messages out, the last of them the artifact or the reason why there is none.

It proves what it compiles: torch computes the key of the rebuilt graph, and only if that is the key that the trainer
asked for is anything compiled. A difference is an answer, too, with the parts of the key that differ.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch._dynamo import config as dynamo_config
from torch._dynamo.exc import TensorifyScalarRestartAnalysis
from torch._dynamo.utils import counters
from torch._functorch import config as functorch_config
from torch._functorch._aot_autograd import autograd_cache
from torch._functorch._aot_autograd.autograd_cache import AOTAutogradCache
from torch._inductor import codecache, compile_fx, cpu_vec_isa
from torch._inductor import config as inductor_config
from torch._subclasses.fake_tensor import UnsupportedOperatorException

from compile_torch.dtensors import inputs_for_key
from compile_torch.entries import guards_of, scrub, why_not_cacheable
from compile_torch.environment import process_environment
from compile_torch.kernels import SharedObjects
from compile_torch.key.components import encode_parts, key_parts
from compile_torch.key.key_parts import digests_of, full_key, gathered_parts
from compile_torch.key.sizes import install_float_guards
from compile_torch.key.state import apply_state, dynamo_patch, read_state
from compile_torch.library_operators import libraries_in
from compile_torch.objects import portable
from compile_torch.patches import Patches
from compile_torch.probes import Probes, probe_at_once
from compile_torch.versions import TorchVersion, torch_version
from compile_wire.digest import digest_of
from compile_wire.environment import environment_id
from compile_wire.errors import MalformedError
from compile_wire.facts import Facts, encode_facts
from compile_wire.graph.decode import decode_graph
from compile_wire.graph.spec import GraphSpec, Value, graph_digest
from compile_wire.manifest import BlobRef, Manifest, Origin, encode_manifest
from compiler_daemon.worker.builds import Builds
from compiler_daemon.worker.known_facts import read_known
from compiler_daemon.worker.leftovers import Leftovers, process_probes, torch_probes
from compiler_daemon.worker.libraries import import_named
from compiler_daemon.worker.protocol import LAST
from compiler_daemon.worker.ranks import as_rank, group_names, import_distributed
from compiler_daemon.worker.rebuild import rebuild
from compiler_daemon.worker.settings import functorch_patch, inductor_patch
from compiler_daemon.worker.texts import check_traced
from compiler_daemon.worker.translation import translated

_logger = logging.getLogger(__name__)

Message = dict[str, Any]


class _KeyDiffersError(BaseException):
    """The rebuilt graph has another key. Not an `Exception`: torch takes those for a reason to compile uncached."""


class _TextError(BaseException):
    """What was traced holds text that must not come into a source. Not an `Exception`, as above."""


class _KeyKnownError(BaseException):
    """The key was all that was asked for. Not an `Exception`, as above."""


@dataclass
class _Job:
    """Follows what torch does with the graph at hand."""

    key: str
    """That it must have; empty where the key is what is asked for."""
    spec: GraphSpec
    torch_key: str = ""
    found_key: str = ""
    entry: bytes = b""
    guards: str = ""
    why_not: str = ""
    parts: dict[str, Any] = field(default_factory=dict)
    """What of the key is ours."""
    recompute: Callable[[], tuple[str, list[str]]] = field(default=lambda: ("", []))
    """Compute torch's key again, for its parts; nothing before torch has computed it once."""
    libraries: list[Value] = field(default_factory=list)
    """Whose operators the graph names; see `gathered_parts`."""
    objects: dict[str, str] = field(default_factory=dict)
    meshes: list[Any] = field(default_factory=list)


class Compiler:
    """Compiles the graphs of this process, one job at a time."""

    def __init__(self) -> None:
        version = torch_version()
        assert version is not None
        self._version: TorchVersion = version
        self._job: _Job | None = None
        self._imported = False
        """Whether a library was imported for the graph at hand."""
        self._was_rank = False
        """Whether the graph at hand depends on the rank."""
        self._environment = environment_id(process_environment())
        self._known: Facts = Facts()
        self._probes = Probes(lambda: self._known.vec_isa)
        self._kernels = SharedObjects()
        patches = Patches()
        patches.replace(autograd_cache, "autograd_cache_key", self._keying)
        patches.replace(AOTAutogradCache, "_lookup", self._looking_up)
        patches.replace(AOTAutogradCache, "save", self._saving)
        patches.replace(AOTAutogradCache, "_write_to_local_cache", self._writing_entry)
        install_float_guards(patches)
        patches.replace(compile_fx, "fx_codegen_and_compile", self._lowering)
        patches.replace(codecache, "write", self._kernels.writing)
        patches.replace(cpu_vec_isa.VecISA, "check_build", self._probes.checking)
        # The daemon names one, in the worker's own folder.
        self._place = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or tempfile.mkdtemp(prefix="worker-"))
        self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._builds = Builds(self._place)
        self._builds.install(patches)
        self.spent = False
        """Whether a graph has left something behind: this process must take no other."""
        self.remember()

    def warm(self) -> None:
        """Get ready for the first job, beside whatever comes next."""
        self._builds.warm()

    def wait_until_warm(self) -> None:
        """Wait until it is ready, and what it made on the way is whole."""
        self._builds.wait_until_warm()

    def remember(self) -> None:
        """Take the process as it is now for what it is to be like after each job."""
        self._state = read_state()
        # Its own: torch's header may be under way, now or when a job ends, in a thread beside.
        own = (self._place, Path(tempfile.gettempdir()))
        self._leftovers = Leftovers({**process_probes(*own), **torch_probes()})

    def facts(self) -> Facts:
        """Return what this process knows of its environment; runs the probes of instruction sets where it must."""
        self._known = read_known(self._place, self._environment) or Facts()
        try:
            probe_at_once()
            cpu_vec_isa.valid_vec_isa_list()
        except Exception:
            _logger.warning("the instruction sets could not be probed", exc_info=True)
        return Facts(vec_isa=self._probes.seen)

    def run(self, job_id: int, key: str, graph: bytes, *, replay: bool = False) -> Iterator[Message]:
        """Compile; yield progress, the blobs, and at last `done` or `refused`.

        With `replay` the graph may be another torch's, and with an empty key only `keyed` comes: what its key is here.
        The last message says with `spent` that this process must do no more: the graph has left something behind, or it
        depends on the rank.
        """
        self._imported = self._was_rank = False
        try:
            for message in self._answered(job_id, key, graph, replay=replay):
                if message["type"] in LAST and (left := self._left(message)):
                    _logger.warning("a graph left behind: %s; this worker ends", ", ".join(left))
                    message["spent"] = self.spent = True
                if message["type"] in LAST and self._was_rank:
                    # torch's DTensors remember much by their mesh, which does not say which rank it was made on.
                    _logger.info("this worker has taken the part of a rank, and ends")
                    message["spent"] = self.spent = True
                yield message
        finally:
            self._job = None
            self._clean()

    def _answered(self, job_id: int, key: str, graph: bytes, *, replay: bool) -> Iterator[Message]:
        try:
            yield {"type": "progress", "id": job_id, "phase": "rebuilding"}
            spec = decode_graph(graph)
            job = _Job(key=key, spec=translated(spec) if replay else spec)
            start = time.monotonic()
            yield {"type": "progress", "id": job_id, "phase": "compiling"}
            self._compile(job)
            self._builds.finish()
            seconds = time.monotonic() - start
            if not job.entry:
                yield _refused(job_id, "UNCACHEABLE", job.why_not or "torch did not cache the graph")
                return
            yield {"type": "progress", "id": job_id, "phase": "packing"}
            yield from self._packed(job_id, job, graph, seconds, origin="replay" if replay else "worker")
        except MalformedError as error:
            yield _refused(job_id, "UNSUPPORTED", str(error))
        except TensorifyScalarRestartAnalysis:
            why = "torch gives it up to make constants of some of its numbers, and traces the program once more"
            yield _refused(job_id, "TRACED_AGAIN", why)
        except UnsupportedOperatorException as error:
            why = f"torch knows the operator {error.func} only by running it, and a worker runs no graph's operators"
            yield _refused(job_id, "UNSUPPORTED", why)
        except _TextError as error:
            yield _refused(job_id, "UNSUPPORTED", error.args[0])
        except _KeyKnownError as known:
            yield {"type": "keyed", "id": job_id, "key": known.args[0]}
        except _KeyDiffersError as error:
            yield _refused(job_id, "KEY_MISMATCH", error.args[0], fields=error.args[1:])
        except Exception as error:
            _logger.warning("compile failed", exc_info=True)
            yield _refused(job_id, "COMPILE_ERROR", f"{type(error).__name__}: {str(error)[:2000]}")

    def _left(self, answer: Message) -> list[str]:
        """Return what the job has left behind, once the settings that it brought are taken back: autocast, say, which
        torch notes in its dispatch keys, too.

        A library that was imported for a graph stays: trainers whose graphs are compiled with it have it, too. Where
        nothing came of it, nobody has shown that the library here is theirs.
        """
        torch.set_grad_enabled(True)  # a graph may end with it otherwise than it began, by right
        found = []
        try:
            apply_state(self._state)
        except (MalformedError, RuntimeError) as error:
            found.append(f"settings ({error})")
        found += self._leftovers.found()
        if self._imported and answer["type"] == "refused":
            found.append("libraries")
        return found

    def _compile(self, job: _Job) -> None:
        if job.spec.torch != str(torch.__version__):
            raise MalformedError(f"the graph was captured by torch {job.spec.torch}, this is {torch.__version__}")
        if import_named(job.spec):
            self._imported = True
            self.remember()
        if job.spec.ranks:
            self._was_rank = True
            if import_distributed():
                self.remember()
        counters.clear()
        with (
            functorch_config.patch(functorch_patch(job.spec.functorch)),
            inductor_config.patch(inductor_patch(job.spec.inductor)),
            dynamo_config.patch(dynamo_patch(job.spec.state)),
            self._kernels.recorded() as objects,
            as_rank(job.spec) as job.meshes,
        ):
            apply_state(job.spec.state)
            rebuilt = rebuild(job.spec, job.meshes)
            job.libraries = libraries_in(rebuilt.gm)
            context = torch._guards.TracingContext(rebuilt.fake_mode)
            job.objects = objects
            self._job = job
            with torch._guards.tracing(context):
                compile_fx.compile_fx(rebuilt.gm, rebuilt.inputs)

    def _packed(self, job_id: int, job: _Job, graph: bytes, seconds: float, *, origin: Origin) -> Iterator[Message]:
        names = list(job.objects)
        contents = [("entry", "", job.entry)]
        contents += [
            ("object", name, data)
            for name, data in zip(names, portable([job.objects[name] for name in names]), strict=True)
        ]
        refs = []
        for role, name, data in contents:
            digest = digest_of(data)
            refs.append(BlobRef(role=role, name=name, sha256=digest, size=len(data)))  # type: ignore[arg-type] # literals
            yield {"type": "blob", "id": job_id, "sha256": digest, "data": data}
        manifest = Manifest(
            key=job.key,
            environment=self._environment,
            guards=job.guards,
            graph=graph_digest(graph),
            compile_s=seconds,
            origin=origin,
            blobs=tuple(refs),
        )
        yield {
            "type": "done",
            "id": job_id,
            "manifest": encode_manifest(manifest),
            "facts": encode_facts(Facts(vec_isa=self._probes.seen)),
        }

    def _keying(self, original: Any) -> Any:
        def autograd_cache_key(gm: Any, inputs: Any, config: Any, *args: Any, **kwargs: Any) -> Any:
            met = inputs_for_key(inputs)
            if self._job is not None:
                # The trainer passed real tensors where we pass fakes, and torch reads this field off that.
                config = dataclasses.replace(config, dynamic_shapes=self._job.spec.dynamic_shapes)
                self._job.recompute = lambda: original(gm, met, config, *args, **kwargs)
            key, lines = original(gm, met, config, *args, **kwargs)
            if self._job is not None:
                self._job.parts = gathered_parts(
                    self._version, inputs, libraries=self._job.libraries, ranks=self._job.spec.ranks
                )
                key = full_key(key, self._job.parts)
            return key, lines

        return autograd_cache_key

    def _looking_up(self, original: Any) -> Any:
        def lookup(key: str, local: bool, remote: bool, args: Any, *rest: Any, **kwargs: Any) -> Any:
            job = self._job
            if job is None or job.torch_key:
                return None
            if not job.key:
                raise _KeyKnownError(key)
            if key != job.key:
                parts = key_parts(job.recompute) | digests_of(job.parts)
                raise _KeyDiffersError(f"the rebuilt graph has the key {key}, not {job.key}", *encode_parts(parts))
            job.torch_key = key
            return None

        return lookup

    def _lowering(self, original: Any) -> Any:
        def fx_codegen_and_compile(gm: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                check_traced(gm, group_names(self._job.spec) if self._job is not None else frozenset())
            except MalformedError as error:
                raise _TextError(str(error)) from error
            return original(gm, *args, **kwargs)

        return fx_codegen_and_compile

    def _saving(self, original: Any) -> Any:
        def save(key: str, entry: Any, *args: Any, **kwargs: Any) -> Any:
            if self._job is not None and key == self._job.torch_key:
                self._job.guards = guards_of(entry)
                self._job.why_not = why_not_cacheable(entry)
                if self._job.why_not:
                    return None
                scrub(entry)
            return original(key, entry, *args, **kwargs)

        return save

    def _writing_entry(self, original: Any) -> Any:
        def write(key: str, content: bytes) -> None:
            if self._job is not None and key == self._job.torch_key:
                self._job.entry = content

        return write

    def _clean(self) -> None:
        """Forget the graph: the next one must not see its modules, nor the process keep them."""
        self._builds.forget()
        for cache in (codecache.PyCodeCache, codecache.CppCodeCache, codecache.CppPythonBindingsCodeCache):
            cache.cache_clear()
        gc.collect()


def _refused(job_id: int, reason: str, message: str, *, fields: Any = ()) -> Message:
    return {"type": "refused", "id": job_id, "reason": reason, "message": message, "fields": list(fields)}
