"""Where the client touches Triton: three functions, one class, replaced when Triton's compiler is first imported; and
where it touches what inductor keeps of its own timings: two methods of `AutotuneCache`.

`get_cache_key`, as `triton.compile` calls it, sees what is to be compiled; the cache manager is asked right afterwards
whether there is a compiled kernel. Two of the autotuner's functions tell which candidates it will time. Triton's own
variables for this (TRITON_CACHE_MANAGER) are not used: they are inherited by every process that this one starts, and
Triton fails in those that cannot import the class.

Guarantees: nothing is replaced unless Triton is a version known and all signatures are as known; a cache manager that
the user has chosen stays, and so does a user's choice about timings of autotuned kernels; `uninstall_kernels` puts
everything back; Triton is never imported here.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from compile_client.hooks.import_hook import after_import, forget_import

if TYPE_CHECKING:
    from compile_torch.patches import Patches

_TARGET = "triton.compiler.compiler"
_WINNERS = "torch._inductor.runtime.autotune_cache"
_MANAGER = "manager_class"
_TIMINGS, _TIMINGS_VARIABLE = "cache", "TRITON_CACHE_AUTOTUNING"

_logger = logging.getLogger("compile_client")
_lock = threading.RLock()
_patches: Patches | None = None
_winners: Patches | None = None
_manager: type[Any] | None = None
_said: set[str] = set()


def arm_kernels() -> None:
    """Install when Triton's compiler, and inductor's cache of winners, have been imported; at once where they are."""
    after_import(_TARGET, install_kernels)
    after_import(_WINNERS, install_winners)


def install_kernels() -> bool:
    """Replace both; return whether they are replaced. Idempotent. Triton must have been imported."""
    global _patches, _manager  # noqa: PLW0603 - one process has one Triton
    with _lock:
        if _patches is not None:
            return True
        from triton import knobs
        from triton.compiler import compiler
        from triton.runtime.autotuner import Autotuner

        from compile_torch.patches import Patches
        from compile_torch.triton.versions import triton_version, unsupported_reasons

        version = triton_version()
        found = unsupported_reasons()
        if not found and knobs.cache.manager_class is not None:
            found = ["TRITON_CACHE_MANAGER names another cache manager, which stays"]
        if found or version is None:
            # Asked again when inductor is imported, which may come after Triton: logged once all the same.
            if (words := "; ".join(found)) not in _said:
                _said.add(words)
                _logger.warning("kernels are not served: %s. Triton compiles as always.", words)
            return False
        from compile_client.kernels.autotune_precompile import Tuning
        from compile_client.kernels.cache_manager import make_manager
        from compile_client.kernels.kernel_compile import Kernels

        kernels = Kernels(version)
        patches = Patches()
        patches.replace(compiler, "get_cache_key", kernels.wrap_cache_key)
        tuning = Tuning(kernels.daemon_compiles)
        patches.replace(Autotuner, "prune_configs", tuning.pruning)
        patches.replace(Autotuner, "_bench", tuning.timing)
        _manager = make_manager(kernels)
        # Not assigned: Triton would write it into the environment of every process that is started from here.
        vars(knobs.cache)[_MANAGER] = _manager
        if _TIMINGS_VARIABLE not in os.environ:
            # Without files of timings, Triton measures in every process again.
            vars(knobs.autotuning)[_TIMINGS] = True
        _patches = patches
        return True


def install_winners() -> bool:
    """Replace what reads and writes the winners of inductor's timings; return whether it is replaced. Idempotent.

    Apart from the rest: processes in which torch compiles kernels import this and no compiler of graphs.
    """
    global _winners  # noqa: PLW0603 - one process has one torch
    with _lock:
        if _winners is not None:
            return True
        from compile_torch.patches import Patches
        from compile_torch.versions import unsupported_winner_reasons

        if found := unsupported_winner_reasons():
            _logger.warning("what inductor has timed is not kept: %s", "; ".join(found))
            return False
        from torch._inductor.runtime.autotune_cache import AutotuneCache

        from compile_client.kernels.autotune_winners import wrap_read, wrap_save

        patches = Patches()
        patches.replace(AutotuneCache, "_read", wrap_read)
        patches.replace(AutotuneCache, "save", wrap_save)
        _winners = patches
        return True


def uninstall_kernels() -> None:
    """Put all of it back. What Triton has compiled stays valid."""
    global _patches, _winners  # noqa: PLW0603 - as above
    forget_import(_TARGET)
    forget_import(_WINNERS)
    with _lock:
        if _winners is not None:
            _winners.undo()
            _winners = None
        if _patches is None:
            return
        from triton import knobs

        _patches.undo()
        _patches = None
        if vars(knobs.cache).get(_MANAGER) is _manager:
            del vars(knobs.cache)[_MANAGER]
        if _TIMINGS_VARIABLE not in os.environ:
            vars(knobs.autotuning).pop(_TIMINGS, None)
