"""The trainer's side of dynamo's two functions that are replaced where traces may be skipped.

_compile               dynamo is about to trace a function: a stored trace may take its place
  build_guards         dynamo has traced it, and makes its guards: they and the bytecode are recorded
_compile               it returns: what was recorded is published
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch._dynamo.cache_size import exceeds_recompile_limit
from torch._dynamo.types import wrap_guarded_code

from compile_client.traces.errors import NotSkippedError
from compile_client.traces.load import Called
from compile_client.traces.skipping import Attempt, Skipping

if TYPE_CHECKING:
    from compile_client.graphs.graph_compile import GraphCompile
    from compile_client.graphs.installer import Installer
    from compile_client.session.client import DaemonClient
    from compile_torch.versions import TorchVersion


class TraceHooks:
    """Stands between dynamo and the stored traces in one process. Its methods wrap dynamo's functions."""

    def __init__(self, client: DaemonClient, installer: Installer, version: TorchVersion) -> None:
        self._client = client
        self._skipping = Skipping(client, installer, version)
        self._local = threading.local()

    def wrap_compile(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `convert_frame._compile`."""
        signature = inspect.signature(original)

        @functools.wraps(original)
        def compile_frame(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            attempt: Attempt | None = None
            served = None
            with self._client.report.guarding("it is traced"):
                attempt, served = self._begin(given)
            if served is not None:
                return wrap_guarded_code(served)
            before, self._local.attempt = self._current(), attempt
            try:
                result = original(*args, **kwargs)
            finally:
                self._local.attempt = before
            if attempt is not None and getattr(result, "guarded_code", None) is not None:
                with self._client.report.guarding("its trace is not kept"):
                    self._skipping.finish(attempt)
            return result

        return compile_frame

    def wrap_build_guards(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `DynamoOutput.build_guards`."""

        @functools.wraps(original)
        def build_guards(output: Any, code: Any, *args: Any, **kwargs: Any) -> Any:
            made = original(output, code, *args, **kwargs)
            attempt = self._current()
            if attempt is not None and attempt.key and attempt.called.code is code:
                with self._client.report.guarding("its trace is not kept"):
                    graph = output.tracer_output.output_graph
                    self._skipping.record(attempt, graph, output.bytecode, made.guard_manager)
            return made

        return build_guards

    def graph_compiled(self, name: Any, graph: GraphCompile) -> None:
        """Note the key of a graph that torch has just compiled, or why nothing may be served by that key alone."""
        attempt = self._current()
        if attempt is None or not isinstance(name, str):
            return
        if why_not := graph.only_here:
            attempt.graphs[name] = NotSkippedError("graph", why_not)
        elif graph.is_kept and graph.key:
            attempt.graphs[name] = graph.key

    def _begin(self, given: dict[str, Any]) -> tuple[Attempt | None, Any]:
        size = given["cache_size"]
        if exceeds_recompile_limit(size, given["compile_id"])[0]:
            return None, None
        called = Called(
            code=given["code"],
            scope=given["globals"],
            local=given["locals"],
            closure=given["closure"],
            cache_entries=given["cache_entries"],
            compile_id=given["compile_id"],
        )
        return self._skipping.begin(
            called,
            given["compiler_fn"],
            given["hooks"],
            one_graph=given["one_graph"],
            export=given["export"],
            package=given.get("package"),
        )

    def _current(self) -> Attempt | None:
        return getattr(self._local, "attempt", None)
