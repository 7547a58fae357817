"""Both ends of a graph's way in one process: captured as in a trainer, then rebuilt and traced as in a worker."""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch._dynamo import config as dynamo_config
from torch._dynamo.exc import TensorifyScalarRestartAnalysis
from torch._dynamo.symbolic_convert import TensorifyState
from torch._functorch import config as functorch_config
from torch._functorch._aot_autograd import autograd_cache
from torch._functorch._aot_autograd.autograd_cache import AOTAutogradCache
from torch._inductor import compile_fx
from torch._inductor import config as inductor_config

from compile_client.graphs.capture import capture
from compile_torch.key.key_parts import full_key, gathered_parts
from compile_torch.key.state import apply_state, dynamo_patch, numbers_made_constants, read_state
from compile_torch.patches import Patches
from compile_torch.settings import daemon_settings
from compile_torch.versions import torch_version
from compile_wire.graph.decode import decode_graph
from compiler_daemon.worker.rebuild import rebuild
from compiler_daemon.worker.settings import functorch_patch, inductor_patch
from compiler_daemon.worker.texts import check_traced


class UncacheableError(Exception):
    """torch has no key for the graph; the text is its reason."""


class KeyDiffersError(Exception):
    """The rebuilt graph has another key than the captured one."""


class _EnoughError(BaseException):
    """All that was wanted is known. Not an `Exception`: torch swallows those."""


def captured(gm: torch.fx.GraphModule, inputs: Any) -> tuple[bytes, str]:
    """Return the graph as bytes and its key; raise `UncacheableError`, or what `capture` raises."""
    version = torch_version()
    assert version is not None
    found: dict[str, Any] = {}

    def keying(original: Any) -> Any:
        def autograd_cache_key(module: Any, given: Any, config: Any, *rest: Any, **named: Any) -> Any:
            try:
                key = original(module, given, config, *rest, **named)[0]
            except Exception as error:
                found["error"] = UncacheableError(f"{type(error).__name__}: {error}")
                raise _EnoughError from error
            found["key"] = full_key(key, gathered_parts(version, given))
            try:
                found["spec"] = capture(gm, inputs, dynamic_shapes=config.dynamic_shapes)
            except Exception as error:  # noqa: BLE001 - raised again below, past torch
                found["error"] = error
            raise _EnoughError

        return autograd_cache_key

    patches = Patches()
    patches.replace(autograd_cache, "autograd_cache_key", keying)
    try:
        with daemon_settings():
            compile_fx.compile_fx(gm, inputs)
    except _EnoughError:
        pass
    finally:
        patches.undo()
    if "error" in found:
        raise found["error"]
    if "spec" not in found:
        raise UncacheableError("torch asked for no key")
    return found["spec"], found["key"]


def taken(data: bytes, key: str) -> None:
    """Rebuild a graph and trace it as a worker does; raise what one would refuse it for."""
    if traced_key(data) != key:
        raise KeyDiffersError("the rebuilt graph has another key")


def traced_key(data: bytes) -> str:
    """Rebuild a graph and trace it as a worker does, up to where inductor lowers it; return its key there."""
    spec, before, keys = decode_graph(data), read_state(), []
    version = torch_version()
    assert version is not None

    def keying(original: Any) -> Any:
        def autograd_cache_key(gm: Any, inputs: Any, config: Any, *rest: Any, **named: Any) -> Any:
            config = dataclasses.replace(config, dynamic_shapes=spec.dynamic_shapes)
            torch_key, lines = original(gm, inputs, config, *rest, **named)
            keys.append(full_key(torch_key, gathered_parts(version, inputs)))
            return torch_key, lines

        return autograd_cache_key

    def lowering(_: Any) -> Any:
        def fx_codegen_and_compile(gm: Any, *_: Any, **__: Any) -> Any:
            check_traced(gm)
            raise _EnoughError

        return fx_codegen_and_compile

    patches = Patches()
    patches.replace(autograd_cache, "autograd_cache_key", keying)
    patches.replace(AOTAutogradCache, "_lookup", lambda _: lambda *_, **__: None)
    patches.replace(compile_fx, "fx_codegen_and_compile", lowering)
    constants: list[str] = []
    try:
        with (
            functorch_config.patch(functorch_patch(spec.functorch)),
            inductor_config.patch(inductor_patch(spec.inductor)),
            dynamo_config.patch(dynamo_patch(spec.state)),
        ):
            apply_state(spec.state)
            rebuilt = rebuild(spec)
            with torch._guards.tracing(torch._guards.TracingContext(rebuilt.fake_mode)):
                compile_fx.compile_fx(rebuilt.gm, rebuilt.inputs)
    except _EnoughError:
        return str(keys[0])
    except TensorifyScalarRestartAnalysis:
        constants = numbers_made_constants()
        raise
    finally:
        patches.undo()
        apply_state(before)
        for name in constants:  # dynamo traces the program again, and would come here with the same graph forever
            TensorifyState.specialize(name)
    raise KeyDiffersError("the rebuilt graph was never lowered")
