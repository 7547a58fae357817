"""Where the client touches torch: eight functions, replaced when inductor is first imported.

`compile_fx`, `AOTAutogradCache._lookup`, `.save` and `._write_to_local_cache` see a graph on its way; `codecache.write`
and `_precompile_header` see its kernels; `VecISA.check_build` and `CppBuilder.build` see what torch does by itself.
Whatever the client does, torch's own function decides: ours may make it find something, and nothing else.

Guarantees: nothing is replaced unless all signatures are as known; `uninstall` puts everything back; no exception of
ours reaches torch, and none of torch's is swallowed.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from compile_client.graphs.user_code.registrations import unwatch, watch
from compile_client.hooks.collector import hold_collector, release_collector
from compile_client.hooks.import_hook import after_import, forget_import
from compile_client.hooks.triton_hooks import arm_kernels, uninstall_kernels
from compile_client.session.process import existing_client, torch_is_imported

if TYPE_CHECKING:
    from compile_client.hooks.torch_hooks import TorchHooks
    from compile_client.reporting.summary import Summary
    from compile_torch.patches import Patches

_TARGET = "torch._inductor.compile_fx"
_TRACER = "torch._dynamo.convert_frame"
_WAITING = "_waits_for_the_first_trace"

_logger = logging.getLogger("compile_client")
_lock = threading.RLock()
_patches: Patches | None = None
_hooks: TorchHooks | None = None
_put_off = False
"""Whether inductor's modules are imported late."""


def arm() -> None:
    """Install as soon as inductor is imported; at once where it is already. Python's collector waits meanwhile."""
    torch_is_imported()
    hold_collector(os.environ)
    watch()
    if os.environ.get("TORCH_COMPILE_CLIENT_SKIP_TRACE"):
        _import_late()
        after_import(_TRACER, _install_before_tracing)
    after_import(_TARGET, install)
    arm_kernels()


def install() -> bool:
    """Replace the functions; return whether they are replaced. Idempotent."""
    global _patches, _hooks  # noqa: PLW0603 - one process has one torch
    with _lock:
        if _patches is not None:
            return True
        from torch._inductor import compile_fx as compile_fx_module

        if _patches is not None:  # importing it was what `_AfterImport` waits for
            return True
        from compile_client.hooks.late_modules import when_run
        from compile_torch.versions import torch_version, unsupported_reasons

        _leave_tracer()
        version = torch_version()
        late = _put_off and when_run(compile_fx_module, _install_compile_fx)
        found = unsupported_reasons(compiles=not late)
        if found or version is None:
            _logger.warning("the compile client stays off: %s. torch compiles as always.", "; ".join(found))
            return False
        from torch._functorch._aot_autograd import autograd_cache
        from torch._functorch._aot_autograd.autograd_cache import AOTAutogradCache
        from torch._inductor import codecache, cpu_vec_isa
        from torch._inductor.cpp_builder import CppBuilder

        from compile_client.hooks.lazy_backward import install_lazy_backward
        from compile_client.hooks.torch_hooks import TorchHooks
        from compile_torch.key.sizes import install_float_guards
        from compile_torch.patches import Patches

        # Kept when the client is switched off and on again: the counters are the process's.
        hooks = _hooks = _hooks or TorchHooks(version)
        patches = Patches()
        if not late:
            patches.replace(compile_fx_module, "compile_fx", hooks.wrap_compile_fx)
        patches.replace(autograd_cache, "autograd_cache_key", hooks.wrap_cache_key)
        patches.replace(AOTAutogradCache, "_lookup", hooks.wrap_lookup)
        patches.replace(AOTAutogradCache, "save", hooks.wrap_save)
        patches.replace(AOTAutogradCache, "_write_to_local_cache", hooks.wrap_write_entry)
        install_float_guards(patches)
        install_lazy_backward(patches)
        patches.replace(codecache, "write", hooks.objects.writing)
        patches.replace(codecache, "_precompile_header", hooks.objects.precompiling)
        patches.replace(cpu_vec_isa.VecISA, "check_build", hooks.probes.checking)
        patches.replace(CppBuilder, "build", hooks.wrap_cpp_build)
        if hooks.traces is not None:
            from torch._dynamo import convert_frame

            patches.replace(convert_frame, "_compile", hooks.traces.wrap_compile)
            patches.replace(convert_frame.DynamoOutput, "build_guards", hooks.traces.wrap_build_guards)
        hooks.count_triton()
        _patches = patches
        watch()
        arm_kernels()
        return True


def _install_before_tracing() -> None:
    """Install before torch traces, too: it may trace a function before it imports what it compiles with."""
    from torch._dynamo import convert_frame

    original = convert_frame._compile

    @functools.wraps(original)
    def first(*args: Any, **kwargs: Any) -> Any:
        _leave_tracer()
        install()
        return convert_frame._compile(*args, **kwargs)

    setattr(first, _WAITING, original)
    with _lock:
        if _patches is None:
            convert_frame._compile = first


def _leave_tracer() -> None:
    """Put dynamo's own function back where the first trace was waited for."""
    convert_frame: Any = sys.modules.get(_TRACER)
    original = getattr(getattr(convert_frame, "_compile", None), _WAITING, None)
    if original is not None:
        convert_frame._compile = original


def _import_late() -> None:
    """Where traces may be skipped, what inductor compiles with is imported when something is compiled."""
    global _put_off  # noqa: PLW0603 - one process, one client
    from compile_client.config import ClientConfig
    from compile_client.hooks.late_modules import NAME, put_off

    config = ClientConfig.from_environment(os.environ)
    if config.skip_trace and NAME not in config.without and not config.warm and not config.asynchronous:
        put_off()
        _put_off = True


def _install_compile_fx() -> None:
    """Replace `compile_fx`, which was imported late and is needed now."""
    from torch._inductor import compile_fx

    from compile_torch.versions import unsupported_compile_reasons

    with _lock:
        if _patches is None or _hooks is None:
            return
        if found := unsupported_compile_reasons():
            _logger.warning("the compile client is off from here on: %s. torch compiles as always.", "; ".join(found))
            uninstall()
            return
        _patches.replace(compile_fx, "compile_fx", _hooks.wrap_compile_fx)


def uninstall() -> None:
    """Put everything back. What torch has compiled stays valid."""
    global _patches  # noqa: PLW0603 - as above
    release_collector()
    with _lock:
        forget_import(_TARGET)
        forget_import(_TRACER)
        _leave_tracer()
        if _put_off:
            from compile_client.hooks.late_modules import stop_putting_off

            stop_putting_off()
        uninstall_kernels()
        if _patches is not None:
            _patches.undo()
            _patches = None
            unwatch()
            if _hooks is not None:
                _hooks.stop_counting_triton()


def counters() -> dict[str, Any]:
    """Return the process's counters; empty where the client was never on."""
    client = existing_client()
    return dict(client.counters.as_dict()) if client is not None else {}


def summary() -> Summary:
    """Return the counters as a person reads them."""
    from compile_client.reporting.summary import Summary

    client = existing_client()
    counts = counters()
    return Summary(client.counters.line(ended=False) if client is not None else "", counts)


def compile_with_daemon(
    gm: Any, example_inputs: Sequence[Any], *, mode: str | None = None, options: dict[str, Any] | None = None
) -> Callable[..., Any]:
    """Compile as inductor would, with the client on: the backend "daemon"."""
    import torch

    install()
    compiled: Any = torch._TorchCompileInductorWrapper(mode, options, None)(gm, example_inputs)
    return compiled  # type: ignore[no-any-return] # what inductor returns for dynamo's graph is callable
