"""Compiled graphs by their keys alone: from torch's own cache, or from the daemon by way of it."""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch._functorch._aot_autograd.autograd_cache import AOTAutogradCache
from torch._inductor import config as inductor_config
from torch._inductor.cudagraph_utils import BoxedDeviceIndex
from torch._inductor.utils import BoxedBool

from compile_client.traces.errors import NotSkippedError
from compile_torch.settings import daemon_settings

if TYPE_CHECKING:
    from compile_client.graphs.installer import Installer
    from compile_client.session.client import DaemonClient


def loaded_graph(
    key: str, compiler: Any, client: DaemonClient, installer: Installer
) -> tuple[Callable[..., Any], float]:
    """Return what runs the graph of that key, and the seconds that its compile once took, where that is known.

    It is loaded as torch loads an entry of its own cache. Raises `NotSkippedError` where nobody has it.
    """
    with _as_compiled(compiler):
        entry, saved_s = _entry(key), 0.0
        if entry is None:
            for artifact in client.begin_graph(key).lookup():
                installer.install(artifact, key)
                if (entry := _entry(key)) is not None:
                    saved_s = artifact.manifest.compile_s
                    break
        if entry is None:
            raise NotSkippedError("no_graph", f"nobody has its graph {key[:8]} by now")
        if entry.guards_expr:
            raise NotSkippedError("dynamic", f"its graph {key[:8]} has guards on sizes")
        compiled = entry.wrap_post_compile(
            [],
            entry.sanitized_aot_config,
            {
                "cudagraphs": BoxedBool(False),
                "boxed_forward_device_index": BoxedDeviceIndex(None),
                "compile_region_name": compiler.name,
            },
        )

    def forward(*arguments: Any) -> Any:
        return compiled(list(arguments))

    # The wrapper's own: what dynamo puts around each graph that it calls.
    disable: Any = torch._dynamo.disable
    return disable(forward, reason="do not trace Dynamo-compiled graph"), saved_s


def _entry(key: str) -> Any:
    found = AOTAutogradCache._lookup(key, True, False, [], {}, None)
    return found[0] if found is not None else None


@contextlib.contextmanager
def _as_compiled(compiler: Any) -> Iterator[None]:
    """Set up what torch has set up around the loading of an entry of its cache."""
    from torch._dynamo import compiled_autograd
    from torch._guards import TracingContext, tracing
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    context = TracingContext(FakeTensorMode(shape_env=ShapeEnv()))
    with (
        daemon_settings(),
        inductor_config.patch(compiler.config),
        tracing(context),
        compiled_autograd._disable(),
    ):
        yield
