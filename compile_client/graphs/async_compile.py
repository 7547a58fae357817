"""`async` mode: a graph runs eagerly until its artifact is there, and from then on as torch has loaded it.

Two steps follow a graph that left torch's compiler early (`compile_client.graphs.eager_fallback`). *Fetching* waits for
the daemon, in a thread, and ends with files where torch looks. *Loading* has torch compile the graph a second time: the
same call in the same contexts, so that torch finds the files, checks the key and loads. It runs in the same thread,
under the lock that torch itself takes for compiling, so a step that only computes does not wait for it.

Guarantees: every call computes the graph, eagerly or compiled, whole; a call never sees half a swap. What the daemon
cannot give is compiled by torch at the next call, where it would have been compiled without us. Nothing raises into
training that torch's own compile would not raise. At the end of the process no thread is left inside torch.

Not guaranteed: that random numbers are drawn in the same order before and after a swap. Eager and compiled graphs draw
differently; torch has that from its own.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import contextlib
import contextvars
import copy
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

_logger = logging.getLogger("compile_client")


class CompileContextSnapshot:
    """Keeps the contexts in which dynamo called its backend, for a second call of it."""

    def __init__(self, gm: torch.fx.GraphModule) -> None:
        from torch._guards import CompileContext, TracingContext

        tracing = TracingContext.try_get()
        self._tracing = copy.copy(tracing) if tracing is not None else None
        compiling = CompileContext.try_get()
        self._compiling = copy.copy(compiling) if compiling is not None else None
        self._settings = contextvars.copy_context()
        self._gm = gm
        # dynamo strips the nodes once its backend has returned.
        self._metas = [dict(node.meta) for node in gm.graph.nodes]
        self._attributes = dict(gm.__dict__)
        self._grad = torch.is_grad_enabled()
        self._autocast = [
            (device, torch.get_autocast_dtype(device))
            for device in torch._C._autocast_supported_devices()
            if torch.is_autocast_enabled(device)
        ]

    def call(self, compile_graph: Callable[[], Any]) -> Any:
        """Return what `compile_graph` returns in these contexts, under torch's lock."""
        from torch._dynamo.convert_frame import compile_lock

        with compile_lock:
            return self._settings.run(self._call, compile_graph)

    def _call(self, compile_graph: Callable[[], Any]) -> Any:
        from torch._guards import compile_context, tracing

        for node, meta in zip(self._gm.graph.nodes, self._metas, strict=True):
            node.meta.clear()
            node.meta.update(meta)
        self._gm.__dict__.clear()
        self._gm.__dict__.update(self._attributes)
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(self._grad))
            for device, dtype in self._autocast:
                stack.enter_context(torch.autocast(device, dtype))
            stack.enter_context(tracing(self._tracing))
            stack.enter_context(compile_context(self._compiling))
            return compile_graph()


class AsyncCompiledGraph:
    """Runs a graph eagerly until its artifact is loaded, and then that: what dynamo gets as the compiled function."""

    def __init__(
        self,
        *,
        eager: Callable[..., Any],
        load: Callable[[bool], Callable[..., Any] | None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """`load` has torch compile the graph: with False only from files, and None where they do not suffice."""
        self._eager = eager
        self._load = load
        self._on_failure = on_failure
        self._compiled: Callable[..., Any] | None = None
        self._compile_here = False
        self._lock = threading.Lock()

    def __call__(self, *args: Any) -> Any:
        """Compute the graph."""
        if self._compile_here:
            self._settle_here()
        compiled = self._compiled
        return self._eager(*args) if compiled is None else compiled(*args)

    @property
    def swapped(self) -> bool:
        """Whether it has changed over."""
        return self._compiled is not None

    def fetched(self, *, found: bool) -> None:
        """Load what the daemon has answered, in the background; `found` says that files are in place."""
        try:
            self._compiled = self._load(False) if found else None
        except Exception as error:  # noqa: BLE001 - counted; torch compiles at the next call
            self._on_failure(error)
        self._compile_here = self._compiled is None

    def _settle_here(self) -> None:
        """Compile at a call, once, as torch would have done before the first one."""
        with self._lock:
            if not self._compile_here:
                return
            self._compile_here = False
            try:
                self._compiled = self._load(True)
            except Exception as error:  # noqa: BLE001 - counted; eager is slower, and right
                self._on_failure(error)


class AsyncCompiler:
    """Fetches and loads graphs in threads.

    At most so many graphs are fetched at once; the others wait for their turn.
    """

    def __init__(self, max_in_flight: int) -> None:
        self._places = threading.BoundedSemaphore(max_in_flight)
        self._changed = threading.Condition()
        self._inside = 0
        self._closing = False
        self._begun: list[AsyncCompiledGraph] = []

    def start(self, fetch: Callable[[], bool], graph: AsyncCompiledGraph) -> None:
        """Fetch, then load, in a thread of its own."""
        self._begun.append(graph)
        threading.Thread(target=self._work, args=(fetch, graph), name="compile-client-swap", daemon=True).start()

    def close(self, timeout_s: float) -> int:
        """Let nothing begin any more, and wait until no thread is inside torch: it would not survive the interpreter.

        Returns how many graphs run eagerly still.
        """
        end = time.monotonic() + timeout_s
        with self._changed:
            self._closing = True
            while self._inside and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
        return sum(not graph.swapped for graph in self._begun)

    def _work(self, fetch: Callable[[], bool], graph: AsyncCompiledGraph) -> None:
        with self._places:
            if self._closing:
                return
            found = fetch()
        with self._entered() as may:
            if may:
                graph.fetched(found=found)

    @contextlib.contextmanager
    def _entered(self) -> Iterator[bool]:
        with self._changed:
            may = not self._closing
            self._inside += may
        try:
            yield may
        finally:
            with self._changed:
                self._inside -= may
                self._changed.notify_all()
