"""One graph on its way through torch: what was asked of the daemon, and what came of it."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from compile_client.errors import InstallError, MismatchError
from compile_client.graphs.eager_fallback import can_run_eagerly, eagerly, is_static
from compile_client.graphs.source_lines import origin_of_named
from compile_client.graphs.verification import Sampling, differences
from compile_client.session.background_compiles import GraphRow, Outcome
from compile_client.transport.messages import Artifact, CompileRequest, LocalCompile, Part, Refusal
from compile_client.transport.records import GraphNote
from compile_client.transport.records import Outcome as RunOutcome
from compile_torch.key.components import differing_parts, key_parts
from compile_torch.key.key_parts import digests_of, full_key, gathered_parts
from compile_torch.versions import TorchVersion
from compile_wire import tracing
from compile_wire.digest import digest_of
from compile_wire.errors import MalformedError

if TYPE_CHECKING:
    import torch

    from compile_client.graphs.installer import Installer
    from compile_client.session.client import DaemonClient
    from compile_client.session.request import GraphRequest
    from compile_torch.kernels import Kernels
    from compile_wire.digest import Digest

_MAX_COMPILES = 3
"""How often the daemon is asked for another compile because the guards of what it sent did not hold."""


class Graph:
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
        kernels: Kernels,
        version: TorchVersion,
        served: bool,
        user_code: str = "",
        code: str = "",
        number: int,
    ) -> None:
        self._number = number
        self._user_code = user_code
        self._key_parts: dict[str, Any] = {}
        self._begun = time.monotonic()
        self.served = served
        """Whether a daemon was there when the graph began."""
        self.key: str | None = None
        """torch's key with ours in it, once torch has computed it."""
        self.local_hit = False
        self.entry: bytes | None = None
        """What torch saved after compiling here."""
        self.guards = ""
        self.installing = False
        self.files_only = False
        """Whether torch is to load what was fetched, and not to compile."""
        self.fakes: list[Any] | None = None
        self.dynamic_shapes: bool | None = None
        """What torch's configuration said at the first call, and for a second one with fakes must say again."""
        self._deferred = False
        self._served_entry: Any = None
        self._differing: list[str] | None = None
        """What verification found; None where the graph was not verified, or not yet."""
        self._disputed: tuple[Digest, ...] = ()
        self._code = code
        self._gm = gm
        self._inputs = example_inputs
        self._client = client
        self._installer = installer
        self._kernels = kernels
        self._version = version
        self._used: tuple[Artifact, bool] | None = None
        self._cannot_install = False
        self._store_key = ""
        self._asking_s = 0.0
        self._tried: list[Artifact] = []
        self._why = ("", "")
        self._spec: bytes | None = None
        self._why_not = ""
        self._why_here = ""
        self._objects: dict[str, str] = {}
        self._hits_before = _torch_hits()
        self._began_ns = time.time_ns()
        if served and not version.key_before_passes:
            self._capture(dynamic_shapes=False)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Note the objects that the graph loads meanwhile."""
        with self._kernels.recorded() as objects:
            self._objects = objects
            yield

    def serve(self, ask_torch: Callable[[], Any], args: Sequence[Any], aot_config: Any) -> Any:
        """Try to make torch's lookup succeed; return its answer, None for a miss.

        `args` are the fake inputs and `aot_config` the configuration that torch computed its key from.
        """
        assert self.key is not None
        self._store_key = self.key
        tracing.passed("key", self._began_ns, key=self._store_key)
        request = self._client.begin_graph(self._store_key)
        start = time.monotonic()
        try:
            return self._ask(request, ask_torch, args, aot_config)
        finally:
            self._asking_s = time.monotonic() - start

    def full_key(self, torch_key: str, args: Sequence[Any]) -> str:
        """Return the key that torch is to go on with: its own, and what it leaves out.

        The parts are those of the first time: a graph that is compiled again, in another thread, has the same.
        """
        if not self._key_parts:
            self._key_parts = gathered_parts(self._version, args, user_code=self._user_code)
        return full_key(torch_key, self._key_parts)

    def verify_instead(self, found: Any, sampling: Sampling) -> bool:
        """Whether torch is to compile the graph here all the same; what was served is kept, to be compared."""
        if self._used is None or not sampling.draws():
            return False
        self._served_entry = found[0]
        return True

    def compare(self, own: Any) -> bool:
        """Compare what torch has made with what was served, if anything; return whether the served one is to stay."""
        if self._served_entry is None or self._used is None:
            return False
        self._differing = differences(self._served_entry, own)
        self._client.counters.count_verified(same=not self._differing)
        if not self._differing:
            return True
        self._disputed = (self._used[0].digest,)
        self._installer.remove(self.key or "")
        return False

    @property
    def can_be_deferred(self) -> bool:
        """Whether it can run without having been compiled."""
        return can_run_eagerly(self._gm, self._inputs)

    def defer(self, args: Sequence[Any], aot_config: Any) -> Callable[..., Any] | None:
        """Have the graph compiled in the background; return what to run instead, None where torch must go on.

        torch goes on where the daemon cannot be asked (not to be carried: it is compiled here and published), and where
        sizes are symbolic: loading an artifact then adds its guards to dynamo's, and without them dynamo would go on
        with fewer graphs than the trainers to come.
        """
        assert self.key is not None
        if not self.served or not self.can_be_deferred or not is_static(args):
            return None
        spec = self._capture(dynamic_shapes=bool(getattr(aot_config, "dynamic_shapes", False)))
        if spec is None:
            return None
        self._store_key = self.key
        self._deferred = True
        self._client.background.ask(self._store_key, self._code, spec)
        return eagerly(self._gm)

    def leave(self, args: Sequence[Any], aot_config: Any) -> Callable[[], bool] | None:
        """Get ready to be fetched in the background: return what does it, None where torch must go on at once.

        From now on the (fake) inputs of torch's key stand for the trainer's, which are not kept alive.

        The returned function may run in any thread and does not touch torch. It returns whether files are in place.
        """
        assert self.key is not None
        if not self.can_be_deferred or not is_static(args):
            return None
        spec = self._capture(dynamic_shapes=bool(getattr(aot_config, "dynamic_shapes", False)))
        self._store_key = self.key
        self.fakes, self._inputs = list(args), list(args)
        self.dynamic_shapes = bool(getattr(aot_config, "dynamic_shapes", False))
        return functools.partial(self._fetch, spec)

    def _fetch(self, spec: bytes | None) -> bool:
        request = self._client.begin_graph(self._store_key)
        for artifact in request.lookup():
            if self._place(artifact):
                self._used = (artifact, False)
        if self._used is None and spec is None:
            self._client.counters.count_refusal("not_carried")
        elif self._used is None and spec is not None:
            outcome = request.compile(self._compile_request(spec, background=True))
            if isinstance(outcome, Refusal):
                self.why_here(outcome.reason, outcome.message)
            elif outcome is not None and self._place(outcome):
                self._used = (outcome, True)
        return self._used is not None

    def _compile_request(self, spec: bytes, have: Sequence[Digest] = (), *, background: bool = False) -> CompileRequest:
        return CompileRequest(kind="graph", key=self._store_key, payload=spec, have=tuple(have), background=background)

    def lose(self) -> None:
        """Compile-only, and no daemon can have it: the graph is not compiled."""
        self._client.counters.count_deferred()
        self._note("lost", 0.0, self._why[1] or "no daemon answers, or torch's caches are switched off")

    def _note(self, outcome: Outcome, seconds: float, why: str = "") -> None:
        if not self._client.config.warm:
            return
        self._client.background.note(
            GraphRow(key=self._store_key, code=self._code, outcome=outcome, seconds=seconds, why=why)
        )

    def _ask(self, request: GraphRequest, ask_torch: Callable[[], Any], args: Sequence[Any], aot_config: Any) -> Any:
        have: list[Digest] = []
        with tracing.span("lookup"):
            found_there = request.lookup()
        for artifact in found_there:
            have.append(artifact.digest)
            if (found := self._try(artifact, ask_torch, compiled=False)) is not None or self._cannot_install:
                return found
            self._tried.append(artifact)
        spec = self._capture(dynamic_shapes=bool(getattr(aot_config, "dynamic_shapes", False)))
        if spec is None:
            self._client.counters.count_refusal("not_carried")
            return None
        for _ in range(_MAX_COMPILES):
            with tracing.span("wait"):
                outcome = request.compile(self._compile_request(spec, have))
            if isinstance(outcome, Refusal):
                self._explain(outcome, aot_config, args)
            if outcome is None or isinstance(outcome, Refusal):
                return None
            if outcome.digest in have:
                break
            have.append(outcome.digest)
            if (found := self._try(outcome, ask_torch, compiled=True)) is not None or self._cannot_install:
                return found
        # Never without a word: a cache that quietly does not work looks like one that works.
        self._client.counters.count_refusal("not_loaded")
        self.why_here("not_loaded", "torch accepts nothing of what the daemon has for this key")
        return None

    def why_here(self, reason: str, why: str) -> None:
        """Say why torch compiles the graph in this process although a daemon is there, and remember it."""
        self._why = (reason, why)
        self._client.report.compiled_locally(self.key or "", reason, why)

    def end(self, seconds: float) -> None:
        """torch is done with the graph, after so many seconds in all: count what came of it, publish what is new."""
        report = self._client.counters
        if self._deferred:
            report.count_deferred()
            return
        loaded = _torch_hits() > self._hits_before
        if self._used is not None and self._differing == []:
            loaded = True  # torch compiled it once more, and it is the same
        if self.local_hit and loaded:
            report.count_local_hit()
            self._note("local", 0.0)
            self._remember("hit_local")
        elif self._used is not None and loaded:
            artifact, compiled = self._used
            if compiled:
                report.count_daemon_compile()
                self._remember("compiled_by_daemon")
            else:
                report.count_hit(artifact.manifest.compile_s)
                self._remember("hit", saved_s=artifact.manifest.compile_s)
            self._note("compiled" if compiled else "there", artifact.manifest.compile_s)
        else:
            report.count_local_compile()
            self._note("here", max(0.0, seconds - self._asking_s), self._why_here or self._why_not)
            if self.key is None and self.served:
                report.count_refusal("uncacheable")
                self._why = ("uncacheable", "torch has no key for it, and caches it nowhere")
            mismatch = (
                MismatchError(f"graph {self._store_key[:8]} was served with {'; '.join(self._differing)}")
                if self._differing
                else None
            )
            if mismatch is not None:
                self._client.report.failed(
                    mismatch,
                    "torch's own compile is used, and the artifact is taken out of the store"
                    if self._client.may_publish()
                    else "torch's own compile is used; who may publish can take the artifact out: `rm`",
                )
                self._why = (mismatch.reason, str(mismatch))
                self._used = None
            elif self._used is not None:
                self._why = ("install", "torch could not load an artifact of the daemon's, and compiled by itself")
            self._remember("compiled_here", spent_s=max(0.0, seconds - self._asking_s))
            if self._used is not None:
                raise InstallError(self._why[1])
            if self.entry is not None and self._store_key and self._client.may_publish():
                self._publish(max(0.0, seconds - self._asking_s))

    def _remember(self, outcome: RunOutcome, *, saved_s: float = 0.0, spent_s: float = 0.0) -> None:
        """Remember what came of the graph, for `explain`."""
        reason, message = self._why if outcome == "compiled_here" else ("", "")
        if outcome == "compiled_here" and not reason:
            reason, message = self._client.report.last_failure() or ("not_served", "it is compiled without the daemon")
        if self._tried and not message:
            guards = next((artifact.manifest.guards for artifact in self._tried if artifact.manifest.guards), "")
            message = f"these guards did not hold: {guards}" if guards else "torch accepted none of what is stored"
        if reason and (origin := origin_of_named(self._gm, message)) and origin not in message:
            message = f"{message}, at {origin}"
        self._client.remember_graph(
            GraphNote(
                number=self._number,
                key=self._store_key,
                outcome=outcome,
                reason=reason,
                message=message,
                tried=len(self._tried),
                waited_s=self._asking_s,
                saved_s=saved_s,
                spent_s=spent_s,
                graph=digest_of(self._spec) if self._spec is not None else None,
                begun=self._begun,
            )
        )

    def begin_load(self, *, files_only: bool) -> None:
        """torch is about to compile the graph a second time: from what was fetched, or as without a daemon."""
        self.files_only = files_only
        self._hits_before = _torch_hits()
        if not files_only:
            self._used = None

    def _place(self, artifact: Artifact) -> bool:
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
            trouble = InstallError(f"{len(damaged)} installed files were not what they must be, as {damaged[0]}")
            self._client.report.failed(trouble, "they are put right")
        return True

    def _try(self, artifact: Artifact, ask_torch: Callable[[], Any], *, compiled: bool) -> Any:
        if not self._place(artifact):
            return None
        with tracing.span("load"):
            found = ask_torch()
        if found is not None:
            self._used = (artifact, compiled)
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
        self._why_here = f"{refusal.reason}: {why}"
        self.why_here(refusal.reason, why)

    def _capture(self, *, dynamic_shapes: bool) -> bytes | None:
        from compile_client.graphs.capture import CannotCarryError, capture

        if self._spec is None and not self._why_not:
            try:
                with tracing.span("capture"):
                    self._spec = capture(self._gm, self._inputs, dynamic_shapes=dynamic_shapes)
            except (CannotCarryError, MalformedError) as error:
                self._why_not = str(error)
                self.why_here("not_carried", self._why_not)
        return self._spec

    def _publish(self, seconds: float) -> None:
        from compile_torch.entries import scrubbed
        from compile_torch.objects import portable

        assert self.key is not None
        assert self.entry is not None
        names = list(self._objects)
        objects = portable([self._objects[name] for name in names])
        self._client.publish_later(
            LocalCompile(
                key=self._store_key,
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
    """How many graphs torch has loaded from its cache so far: a lookup may succeed and the loading still fail."""
    from torch._dynamo.utils import counters

    return int(counters["aot_autograd"]["autograd_cache_hit"])
