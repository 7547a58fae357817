"""One graph on its way through torch: what was asked of the daemon, and with what outcome."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from compile_client.errors import InstallError
from compile_client.graphs.eager_fallback import can_run_eagerly, is_static, run_eager
from compile_client.graphs.outcome import GraphOutcome, GraphState, Reason
from compile_client.graphs.rounds import process_rounds
from compile_client.graphs.source_lines import origin_of_named
from compile_client.graphs.verification import Sampling, chooses_by_measuring, code_differences, other_differences
from compile_client.transport.messages import TRACED_AGAIN, Artifact, CompileRequest, LocalCompile, Part, Refusal
from compile_torch.key.components import differing_parts, key_parts
from compile_torch.key.key_parts import digests_of, full_key, gathered_parts
from compile_torch.library_operators import libraries_in
from compile_torch.versions import TorchVersion
from compile_wire import tracing
from compile_wire.digest import digest_of
from compile_wire.errors import MalformedError

if TYPE_CHECKING:
    import torch

    from compile_client.graphs.installer import Installer
    from compile_client.session.client import DaemonClient
    from compile_client.session.request import GraphRequest
    from compile_torch.kernels import SharedObjects
    from compile_wire.digest import Digest
    from compile_wire.graph.spec import Value

_MAX_COMPILES = 3
"""How often the daemon is asked for another compile because the guards of what it sent did not hold."""


class GraphCompile:
    """Leads one graph through torch's compile: asks the daemon, loads its answer, or has torch compile.

    Used by the one thread that compiles it.
    """

    def __init__(
        self,
        gm: torch.fx.GraphModule,
        example_inputs: Any,
        *,
        client: DaemonClient,
        installer: Installer,
        objects: SharedObjects,
        version: TorchVersion,
        served: bool,
        user_code: str = "",
        ranks: Sequence[Value] = (),
        code: str = "",
        number: int,
    ) -> None:
        self.outcome = GraphOutcome(gm, client, number=number, code=code)
        self.served = served
        """Whether a daemon was there when the graph began."""
        self.key: str | None = None
        """torch's key with ours in it, once torch has computed it."""
        self.entry: bytes | None = None
        """What torch saved after compiling here."""
        self.guards = ""
        self.installing = False
        self.files_only = False
        """Whether torch is to load what was fetched, and not to compile."""
        self.fakes: list[Any] | None = None
        self.dynamic_shapes: bool | None = None
        """What torch's configuration had at the first call, and must have again for a second one with fakes."""
        self._gm = gm
        self._inputs = example_inputs
        self._client = client
        self._installer = installer
        self._objects = objects
        self._version = version
        self._code = code
        self._user_code = user_code
        self._ranks = ranks
        holds = next(gm.parameters(), None) is not None or next(gm.buffers(), None) is not None
        self._holds = "tensors are part of it" if holds else ""
        self._key_parts: dict[str, Any] = {}
        self._served_entry: Any = None
        self._measured = False
        """Whether torch chose by measuring when `_served_entry` was found."""
        self._disputed: tuple[Digest, ...] = ()
        self._cannot_install = False
        self._spec: bytes | None = None
        self._cannot_capture = False
        self._recorded: dict[str, str] = {}
        self._hits_before = _torch_hits()
        self._began_ns = time.time_ns()
        if served and not version.key_before_passes:
            self._capture(dynamic_shapes=False)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Note the objects that the graph loads meanwhile."""
        with self._objects.recorded() as recorded:
            self._recorded = recorded
            yield

    def lookup_or_compile(self, ask_torch: Callable[[], Any], args: Sequence[Any], aot_config: Any) -> Any:
        """Try to make torch's lookup succeed; return its answer, None for a miss.

        `args` are the fake inputs and `aot_config` the configuration that torch computed its key from.
        """
        assert self.key is not None
        self.outcome.store_key = self.key
        tracing.passed("key", self._began_ns, key=self.key)
        request = self._client.begin_graph(self.key)
        start = time.monotonic()
        try:
            return self._query_daemon(request, ask_torch, args, aot_config)
        finally:
            self.outcome.asking_s = time.monotonic() - start

    def full_key(self, torch_key: str, args: Sequence[Any]) -> str:
        """Return the key that torch is to go on with: its own, and what it leaves out.

        The parts are those of the first time: a graph that is compiled again, in another thread, has the same.
        """
        if not self._key_parts:
            self._key_parts = gathered_parts(
                self._version,
                args,
                user_code=self._user_code,
                libraries=libraries_in(self._gm),
                ranks=self._ranks,
            )
        return full_key(torch_key, self._key_parts)

    def verify_instead(self, found: Any, sampling: Sampling) -> bool:
        """Whether torch is to compile the graph here all the same; what was served is kept, to be compared."""
        if not self.outcome.served or not sampling.draws():
            return False
        self._served_entry = found[0]
        self._measured = chooses_by_measuring()
        return True

    def compare(self, own: Any) -> bool:
        """Compare what torch has made with what was served, if anything; return whether the served one is to stay."""
        artifact = self.outcome.artifact
        if self._served_entry is None or artifact is None:
            return False
        code, other = code_differences(self._served_entry, own), other_differences(self._served_entry, own)
        if code and not other and self._measured:
            self._client.counters.count_unsettled()
            self.outcome.differing = []
            return True
        differing = self.outcome.differing = [*code, *other]
        self._client.counters.count_verified(same=not differing)
        if not differing:
            return True
        self._disputed = (artifact.digest,)
        self._installer.remove(self.key or "")
        return False

    @property
    def is_kept(self) -> bool:
        """Whether a cache has it now, or will have it once it was published: its key alone says what it is."""
        stored = self.outcome.state in (GraphState.LOCAL_HIT, GraphState.STORED, GraphState.COMPILED_BY_DAEMON)
        return bool(self.key) and self.served and (stored or self.entry is not None)

    @property
    def only_here(self) -> str:
        """Why the graph means something in this process alone; empty where its key says all of it."""
        if self._user_code:
            return "the user's code runs while it is compiled"
        if self._key_parts.get("libraries"):
            return "a library's code runs while it is compiled"
        if any(isinstance(value, (list, tuple, dict)) for value in self._inputs):
            return "lists or dicts are among its inputs"
        return self._holds

    @property
    def can_run_uncompiled(self) -> bool:
        """Whether it can run without having been compiled.

        Not where it depends on the rank: what one rank runs must send what the others wait for, in the same order.
        """
        return not self._ranks and can_run_eagerly(self._gm, self._inputs)

    def compile_in_background(self, args: Sequence[Any], aot_config: Any) -> Callable[..., Any] | None:
        """Have the graph compiled in the background; return what to run instead, None where torch must go on.

        torch goes on where the daemon cannot be asked (not to be carried: it is compiled here and published), and where
        sizes are symbolic: loading an artifact then adds its guards to dynamo's, and without them dynamo would go on
        with fewer graphs than the trainers to come.
        """
        assert self.key is not None
        if not self.served or not self.can_run_uncompiled or not is_static(args):
            return None
        spec = self._capture(dynamic_shapes=bool(getattr(aot_config, "dynamic_shapes", False)))
        if spec is None:
            return None
        self.outcome.store_key = self.key
        self.outcome.state = GraphState.DEFERRED
        self._client.background.ask(self.key, self._code, spec)
        return run_eager(self._gm, process_rounds(self._client.config.warm_steps))

    def start_async_fetch(self, args: Sequence[Any], aot_config: Any) -> Callable[[], bool] | None:
        """Get ready to be fetched in the background: return what does it, None where torch must go on at once.

        From now on the (fake) inputs of torch's key stand for the trainer's, which are not kept alive.

        The returned function may run in any thread and does not touch torch. It returns whether files are in place.
        """
        assert self.key is not None
        if not self.can_run_uncompiled or not is_static(args):
            return None
        spec = self._capture(dynamic_shapes=bool(getattr(aot_config, "dynamic_shapes", False)))
        self.outcome.store_key = self.key
        self.fakes, self._inputs = list(args), list(args)
        self.dynamic_shapes = bool(getattr(aot_config, "dynamic_shapes", False))
        return functools.partial(self._fetch_artifact, self.key, spec)

    def _fetch_artifact(self, key: str, spec: bytes | None) -> bool:
        request = self._client.begin_graph(key)
        for artifact in request.lookup():
            if self._install(artifact):
                self.outcome.serve(artifact, compiled=False)
        if not self.outcome.served and spec is None:
            self._client.counters.count_refusal("not_carried")
        elif not self.outcome.served and spec is not None:
            answer = request.compile(CompileRequest(kind="graph", key=key, payload=spec, background=True))
            if isinstance(answer, Refusal):
                self.compiled_here(Reason(answer.reason, answer.message))
            elif answer is not None and self._install(answer):
                self.outcome.serve(answer, compiled=True)
        return self.outcome.served

    def skip_uncompiled(self) -> None:
        """Leave a graph uncompiled, in compile-only mode, since no daemon can have it."""
        self.outcome.skipped()

    def _query_daemon(
        self, request: GraphRequest, ask_torch: Callable[[], Any], args: Sequence[Any], aot_config: Any
    ) -> Any:
        assert self.key is not None
        have: list[Digest] = []
        with tracing.span("lookup"):
            stored = request.lookup()
        for artifact in stored:
            have.append(artifact.digest)
            found = self._install_and_load(artifact, ask_torch, compiled=False)
            if found is not None or self._cannot_install:
                return found
            self.outcome.tried.append(artifact)
        spec = self._capture(dynamic_shapes=bool(getattr(aot_config, "dynamic_shapes", False)))
        if spec is None:
            self._client.counters.count_refusal("not_carried")
            return None
        for _ in range(_MAX_COMPILES):
            with tracing.span("wait"):
                answer = request.compile(CompileRequest(kind="graph", key=self.key, payload=spec, have=tuple(have)))
            if isinstance(answer, Refusal) and answer.reason != TRACED_AGAIN:
                self._explain(answer, aot_config, args)
            if answer is None or isinstance(answer, Refusal):
                return None
            if answer.digest in have:
                break
            have.append(answer.digest)
            found = self._install_and_load(answer, ask_torch, compiled=True)
            if found is not None or self._cannot_install:
                return found
        # Never without a word: a cache that quietly does not work looks like one that works.
        self._client.counters.count_refusal("not_loaded")
        self.compiled_here(Reason("not_loaded", "torch accepts nothing of what the daemon has for this key"))
        return None

    def compiled_here(self, reason: Reason) -> None:
        """Log why torch compiles the graph in this process although a daemon is there, and remember it."""
        self.outcome.explain(reason, self.key or "")

    def finish(self, seconds: float) -> None:
        """Report the graph's outcome once torch is done with it, after so many seconds in all; publish what is new.

        Raises `InstallError` where torch could not load what the daemon had sent.
        """
        compiled = self.outcome.finish(
            seconds, loaded=_torch_hits() > self._hits_before, uncacheable=self.key is None and self.served
        )
        if compiled and self.entry is not None and self.outcome.store_key and self._client.may_publish():
            self._publish(max(0.0, seconds - self.outcome.asking_s))

    def begin_load(self, *, files_only: bool) -> None:
        """Get ready for torch to compile the graph a second time: from what was fetched, or as without a daemon."""
        self.files_only = files_only
        self._hits_before = _torch_hits()
        if not files_only:
            self.outcome.compile_here()

    def _install(self, artifact: Artifact) -> bool:
        """Put an artifact's files where torch looks; return whether that went well."""
        assert self.key is not None
        self.installing = True
        try:
            with tracing.span("install"):
                damaged = self._installer.install(artifact, self.key)
        except InstallError as error:
            # The daemon's other artifacts would find no room either, and have it compile for nothing.
            self._cannot_install = True
            self._client.report.failed(error)
            return False
        finally:
            self.installing = False
        if damaged:
            failure = InstallError(f"{len(damaged)} installed files were not what they must be, as {damaged[0]}")
            self._client.report.failed(failure, "they are put right")
        return True

    def _install_and_load(self, artifact: Artifact, ask_torch: Callable[[], Any], *, compiled: bool) -> Any:
        if not self._install(artifact):
            return None
        with tracing.span("load"):
            found = ask_torch()
        if found is not None:
            self.outcome.serve(artifact, compiled=compiled)
        return found

    def _explain(self, refusal: Refusal, aot_config: Any, args: Sequence[Any]) -> None:
        """Say why the daemon will not: in its words, and for another key with the parts of the key that differ."""
        why = refusal.message
        if refusal.reason == "key_mismatch" and self._version.key_before_passes:
            from torch._functorch._aot_autograd.autograd_cache import autograd_cache_key

            ours = key_parts(lambda: autograd_cache_key(self._gm, args, aot_config))
            ours.pop("fx_kwargs[boxed_forward_device_index]", None)  # a box that torch fills in later
            ours |= digests_of(self._key_parts)
            why = (
                f"its key comes out different in {', '.join(differing_parts(ours, refusal.fields)) or 'no known part'}"
            )
        elif refusal.fields:
            why += f" ({'; '.join(refusal.fields)})"
        if (origin := origin_of_named(self._gm, why)) and origin not in why:
            why += f", at {origin}"
        self.compiled_here(Reason(refusal.reason, why))

    def _capture(self, *, dynamic_shapes: bool) -> bytes | None:
        from compile_client.graphs.capture import CannotCarryError, capture
        from compile_client.graphs.user_code.ranks import check_as_keyed

        if self._spec is None and not self._cannot_capture:
            try:
                if self._ranks:
                    check_as_keyed(self._gm, self._key_parts.get("ranks", []))
                with tracing.span("capture"):
                    self._spec = capture(self._gm, self._inputs, dynamic_shapes=dynamic_shapes, ranks=self._ranks)
            except (CannotCarryError, MalformedError) as error:
                self._cannot_capture = True
                self.compiled_here(Reason("not_carried", str(error)))
            else:
                self.outcome.spec = digest_of(self._spec)
        return self._spec

    def _publish(self, seconds: float) -> None:
        from compile_torch.entries import scrubbed
        from compile_torch.objects import portable

        assert self.key is not None
        assert self.entry is not None
        names = list(self._recorded)
        objects = portable([self._recorded[name] for name in names])
        self._client.publish_later(
            LocalCompile(
                key=self.outcome.store_key,
                guards=self.guards,
                compile_s=seconds,
                parts=(
                    Part("entry", "", scrubbed(self.entry)),
                    *(Part("object", name, data) for name, data in zip(names, objects, strict=True)),
                ),
                graph=self._spec,
                disputed=self._disputed,
            )
        )


def _torch_hits() -> int:
    """Return how many graphs torch has loaded from its cache: a lookup may succeed and the loading still fail."""
    from torch._dynamo.utils import counters

    return int(counters["aot_autograd"]["autograd_cache_hit"])
