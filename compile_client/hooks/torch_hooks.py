"""The trainer's side of each replaced function: what happens to a graph on its way through torch.

compile_fx           a graph begins: it is counted, and compiled under the daemon's settings if one is there
  _lookup            torch knows the key. Its own cache has it: nothing of ours runs. Else the daemon is asked, what it
                     sends is put where torch looks, and torch looks again
                     Compile-only: the graph is handed over, and torch is left here; see `graphs.eager_fallback`
  save, _write...    torch compiled by itself: the entry is kept for publishing
compile_fx           the graph ends: the outcome is counted; what was compiled here is published in the background
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch._dynamo.exc import TensorifyScalarRestartAnalysis

from compile_client.errors import InternalError
from compile_client.graphs.async_compile import AsyncCompiledGraph, AsyncCompiler, CompileContextSnapshot
from compile_client.graphs.eager_fallback import (
    NotLoadedError,
    RunEagerly,
    code_name,
    compile_or_run_eagerly,
    run_eager,
)
from compile_client.graphs.graph_compile import GraphCompile
from compile_client.graphs.installer import Installer
from compile_client.graphs.outcome import GraphState, Reason
from compile_client.graphs.rounds import process_rounds
from compile_client.graphs.user_code.ranks import meshes_without_hashes, ranks_of, why_ranks_compile_together
from compile_client.graphs.user_code.search import UserCode, user_code_of
from compile_client.graphs.verification import Sampling
from compile_client.hooks.collector import graph_was_compiled
from compile_client.reporting.process_report import program_name
from compile_client.session.process import process_client
from compile_torch.dtensors import inputs_for_key
from compile_torch.entries import guards_of, why_not_cacheable
from compile_torch.kernels import SharedObjects
from compile_torch.messages import replace_messages
from compile_torch.probes import Probes
from compile_torch.settings import daemon_settings
from compile_wire import tracing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compile_client.hooks.trace_hooks import TraceHooks
    from compile_torch.versions import TorchVersion


_LAST_LOAD_S = 10.0
"""The end of a process waits so long for a thread that loads, or compiles, inside torch."""


class TorchHooks:
    """Stands between torch's compiler and the daemon in one process. Its methods wrap torch's functions."""

    def __init__(self, version: TorchVersion) -> None:
        tracing.set_up("compile-client")
        self.client = process_client()
        self.installer = Installer()
        self.objects = SharedObjects(self.installer.place)
        self.probes = Probes(self._known_probes)
        self._version = version
        self._sampling = Sampling(self.client.config.verify)
        self._local = threading.local()
        self.traces = self._trace_hooks(version)
        self._listeners: tuple[Any, Any] | None = None
        self._background = AsyncCompiler(self.client.config.ahead_in_flight)
        self.client.before_close(self._finish_async_graphs)

    def _trace_hooks(self, version: TorchVersion) -> TraceHooks | None:
        """Return the hooks for traces where they are asked for, and this torch is one that they were run with."""
        config = self.client.config
        if not config.skip_trace or config.warm or config.asynchronous:
            return None
        from compile_torch.versions_traced import unsupported_trace_reasons

        if found := unsupported_trace_reasons():
            self.client.report.trace_said(f"every function is traced: {'; '.join(found)}", aloud=True)
            return None
        from compile_client.hooks.trace_hooks import TraceHooks

        return TraceHooks(self.client, self.installer, version)

    def wrap_compile_fx(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `compile_fx`. It calls itself again by its global name, so only the outermost call begins a graph."""

        @functools.wraps(original)
        def compile_fx(gm: Any, example_inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if self._current() is not None or not isinstance(gm, torch.fx.GraphModule):
                return original(gm, example_inputs, *args, **kwargs)
            name = gm.meta.get("backend_id")
            graph = self._begin(gm, example_inputs)
            if self.client.config.warm:
                process_rounds(self.client.config.warm_steps).new_graph()
            if graph is not None and self.client.config.warm and not graph.served and graph.can_run_uncompiled:
                # Compile-only, and nobody to compile: logged and counted already.
                graph.skip_uncompiled()
                return run_eager(gm, process_rounds(self.client.config.warm_steps))
            if graph is None:
                return original(gm, example_inputs, *args, **kwargs)

            def compile_graph() -> Any:
                return original(gm, example_inputs, *args, **kwargs)

            if self.client.config.asynchronous and graph.served:
                again = functools.partial(original, gm)  # not the inputs: they would live as long as the graph waits
                self._local.async_graph = self._async_graph(graph, gm, lambda: again(graph.fakes, *args, **kwargs))
            try:
                compiled, seconds = self._compiled(graph, lambda: compile_or_run_eagerly(compile_graph))
            except TensorifyScalarRestartAnalysis:
                self.client.counters.count_traced_again()
                raise
            if not isinstance(compiled, AsyncCompiledGraph):
                self._finish(graph, seconds)
                if self.traces is not None:
                    self.traces.graph_compiled(name, graph)
            return compiled

        return compile_fx

    def _compiled(self, graph: GraphCompile, compile_graph: Callable[[], Any]) -> tuple[Any, float]:
        """Have torch compile a graph of ours; return the result and the seconds that it took."""
        start = time.monotonic()
        self._local.graph = graph
        try:
            with contextlib.ExitStack() as stack:
                if graph.served:
                    stack.enter_context(tracing.span("graph", program=program_name()))
                    stack.enter_context(daemon_settings())
                    stack.enter_context(graph.recording())
                return compile_graph(), time.monotonic() - start
        finally:
            self._local.graph = None
            graph_was_compiled()

    def _async_graph(
        self, graph: GraphCompile, gm: torch.fx.GraphModule, compile_graph: Callable[[], Any]
    ) -> AsyncCompiledGraph:
        """Return what can stand for the graph while the daemon is asked; nothing is asked yet."""
        snapshot = CompileContextSnapshot(gm)

        def load(here: bool) -> Any:
            graph.begin_load(files_only=not here)
            try:
                compiled, seconds = snapshot.call(lambda: self._compiled(graph, compile_graph))
            except NotLoadedError:
                return None
            self._finish(graph, seconds)
            return compiled

        def on_failure(error: Exception) -> None:
            self.client.report.failed(InternalError.of(error), "the graph runs eagerly")

        return AsyncCompiledGraph(eager=run_eager(copy.copy(gm)), load=load, on_failure=on_failure)

    def wrap_lookup(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `AOTAutogradCache._lookup`."""

        @functools.wraps(original)
        def lookup(
            key: str, local: bool, remote: bool, args: Any, cache_info: Any, aot_config: Any, *rest: Any, **kwargs: Any
        ) -> Any:
            def ask_torch() -> Any:
                return original(key, local, remote, args, cache_info, aot_config, *rest, **kwargs)

            graph = self._current()
            if graph is not None and graph.files_only:
                found = ask_torch() if key == graph.key else None
                if found is None:
                    why = "torch finds nothing" if key == graph.key else "its key has changed"
                    graph.compiled_here(Reason("not_loaded", why))
                    self.client.counters.count_refusal("not_loaded")
                    raise NotLoadedError
                return found
            if graph is None or graph.key is not None:
                return ask_torch()
            graph.key = key
            if self.client.config.warm and (run := self._compile_in_background(graph, args, aot_config)) is not None:
                raise RunEagerly(run)
            found = ask_torch()
            if found is not None:
                graph.outcome.state = GraphState.LOCAL_HIT
                return found
            if not graph.served:
                return None
            if (
                self.client.config.asynchronous
                and (async_graph := self._start_async_fetch(graph, args, aot_config)) is not None
            ):
                raise RunEagerly(async_graph)
            served = None
            with self.client.report.guarding():
                found = graph.lookup_or_compile(ask_torch, args, aot_config)
                served = None if found is not None and graph.verify_instead(found, self._sampling) else found
            return served

        return lookup

    def wrap_cache_key(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `autograd_cache_key`: what torch leaves out of the key is put into it, for its own cache as for ours.

        A graph that is compiled a second time has the key that it had at first.
        """

        @functools.wraps(original)
        def autograd_cache_key(mod: Any, example_inputs: Any, config: Any, *args: Any, **kwargs: Any) -> Any:
            graph = self._current()
            if graph is not None and graph.dynamic_shapes is not None:
                # torch reads this off real inputs, and the second time it is given fakes.
                config = dataclasses.replace(config, dynamic_shapes=graph.dynamic_shapes)
            if graph is None or not graph.served:
                return original(mod, example_inputs, config, *args, **kwargs)
            with meshes_without_hashes(example_inputs):
                key, lines = original(mod, inputs_for_key(example_inputs), config, *args, **kwargs)
            return graph.full_key(key, example_inputs), lines

        return autograd_cache_key

    def wrap_save(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `AOTAutogradCache.save`: an entry that could not be restored is not saved, here or anywhere."""

        @functools.wraps(original)
        def save(key: str, entry: Any, remote: bool, *args: Any, **kwargs: Any) -> Any:
            graph = self._current()
            if graph is not None and graph.served and graph.key == key:
                graph.guards = guards_of(entry)
                if graph.compare(entry):
                    return None
                if reason := why_not_cacheable(entry):
                    graph.compiled_here(Reason("uncacheable", reason))
                    return None
            return original(key, entry, remote, *args, **kwargs)

        return save

    def wrap_write_entry(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `AOTAutogradCache._write_to_local_cache`."""

        @functools.wraps(original)
        def write(key: str, content: bytes) -> Any:
            graph = self._current()
            if graph is not None and graph.key == key and not graph.installing:
                graph.entry = content
            return original(key, content)

        return write

    def wrap_cpp_build(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `CppBuilder.build`: each call runs the C++ compiler."""

        @functools.wraps(original)
        def build(builder: Any, *args: Any, **kwargs: Any) -> Any:
            self.client.counters.count_cpp_build()
            return original(builder, *args, **kwargs)

        return build

    def count_triton(self) -> None:
        """Have triton, where there is one, tell of each kernel that it compiles."""
        try:
            from triton import knobs
        except ImportError:
            return
        before = knobs.compilation.listener

        def listener(*args: Any, **kwargs: Any) -> None:
            if not kwargs.get("cache_hit", False):
                self.client.counters.count_triton_compile()
            if before is not None:
                before(*args, **kwargs)

        knobs.compilation.listener = listener
        self._listeners = (listener, before)

    def stop_counting_triton(self) -> None:
        """Put triton's listener back, unless somebody else has set another meanwhile."""
        if self._listeners is None:
            return
        from triton import knobs

        ours, before = self._listeners
        if knobs.compilation.listener is ours:
            knobs.compilation.listener = before
        self._listeners = None

    def _finish_async_graphs(self) -> None:
        """Let no thread stay inside torch at the end of the process, and count what still runs eagerly."""
        for _ in range(self._background.close(_LAST_LOAD_S)):
            self.client.counters.count_deferred()

    def _current(self) -> GraphCompile | None:
        return getattr(self._local, "graph", None)

    def _known_probes(self) -> Mapping[str, bool]:
        return self.client.facts().vec_isa

    def _begin(self, gm: torch.fx.GraphModule, example_inputs: Any) -> GraphCompile | None:
        graph = None
        with self.client.report.guarding():
            number = self.client.counters.count_graph()
            self.client.report.forget_failure()
            served = not torch.compiler.config.force_disable_caches and self.client.available()
            if served:
                replace_messages(gm)
            user_code = user_code_of(gm, example_inputs) if served else UserCode()
            ranks = ranks_of(gm, example_inputs, user_code.digest) if served else []
            if ranks and (why := why_ranks_compile_together()):
                user_code = UserCode(why_not_shared=user_code.why_not_shared or why)
            begun = GraphCompile(
                gm,
                example_inputs,
                client=self.client,
                installer=self.installer,
                objects=self.objects,
                version=self._version,
                served=served and not user_code.why_not_shared,
                user_code=user_code.digest,
                ranks=ranks,
                code=code_name() if self.client.config.warm else "",
                number=number,
            )
            if user_code.why_not_shared:
                begun.compiled_here(Reason("not_shared", user_code.why_not_shared))
                self.client.counters.count_refusal("not_shared")
            graph = begun
        return graph

    def _compile_in_background(self, graph: GraphCompile, args: Any, aot_config: Any) -> Callable[..., Any] | None:
        """Return what to run instead of compiling, in compile-only mode; None where torch goes on."""
        run = None
        with self.client.report.guarding():
            run = graph.compile_in_background(args, aot_config)
        return run

    def _start_async_fetch(self, graph: GraphCompile, args: Any, aot_config: Any) -> AsyncCompiledGraph | None:
        """Have the graph fetched in the background, in `async` mode; None where it goes its ordinary way."""
        async_graph: AsyncCompiledGraph | None = getattr(self._local, "async_graph", None)
        self._local.async_graph = None
        fetch = None
        with self.client.report.guarding():
            fetch = graph.start_async_fetch(args, aot_config)
        if fetch is not None and async_graph is not None:
            self._background.start(fetch, async_graph)
            return async_graph
        return None

    def _finish(self, graph: GraphCompile, seconds: float) -> None:
        with self.client.report.guarding():
            graph.finish(seconds)
