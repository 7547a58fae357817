"""What a job has left behind in this process: compared after each one with how the process began.

A graph may change torch's state while it is traced. dynamo's own graphs put it back; a worker in which something else
stayed would refuse or compile the next graph under it, so that it takes no other: its answer goes out, and it ends.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import functools
import logging
import os
import sysconfig
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_logger = logging.getLogger(__name__)

Probe = Callable[[], object]

_OWN_THREADS = (
    *("MainThread", "builds", "stands-back", "ThreadPoolExecutor"),
    # Of the pool of processes that compile Triton's kernels. The one that puts the pool to rest ends by itself.
    *("InductorSubproc", "subproc_worker_timer"),
    # Of a progress bar that torch makes, and does not show, where that package is installed.
    "tqdm_monitor",
)
"""Beginnings of the names of threads that we and torch's compiler start."""

_SET_BY_TORCH = frozenset(
    "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR TRITON_CACHE_DIR TRITON_PTXAS_PATH TRITON_LIBDEVICE_PATH "
    "KMP_DUPLICATE_LIB_OK CUDA_HOME TORCH_WARM_POOL".split()
)
"""Variables by which torch's compiler tells its own parts something."""


class Leftovers:
    """Compares the state that the process had when this was made with the state that it has later."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes: dict[str, Probe] = {}
        self._before: dict[str, object] = {}
        for name, probe in probes.items():
            try:
                self._before[name] = probe()
                self._probes[name] = probe
            except (AttributeError, ImportError, TypeError) as error:
                _logger.warning("what a graph leaves of its %s is not seen: torch has changed (%s)", name, error)

    @property
    def watched(self) -> frozenset[str]:
        """The names of what is compared."""
        return frozenset(self._probes)

    def found(self) -> list[str]:
        """Return in words what is not as it was."""
        found = []
        for name, probe in self._probes.items():
            now, before = self._now(probe), self._before[name]
            if now != before:
                found.append(name + _which(before, now))
        return found

    @staticmethod
    def _now(probe: Probe) -> object:
        try:
            return probe()
        except Exception as error:  # noqa: BLE001 - a state in which torch cannot even be asked is another one
            return error


def _which(before: object, now: object) -> str:
    """Return the names that differ, for the log, where what has changed is a map or a list of names."""
    if isinstance(before, dict) and isinstance(now, dict):
        return f" ({', '.join(sorted({name for name, _ in before.items() ^ now.items()}))})"
    if isinstance(before, list) and isinstance(now, list):
        gone, new = set(before) - set(now), set(now) - set(before)
        return (
            f" ({', '.join([*sorted(map(str, new)), *(f'no more: {name}' for name in sorted(map(str, gone)))])[:300]})"
        )
    return ""


def process_probes(*own: Path) -> dict[str, Probe]:
    """Return what any worker compares. What it has open in its `own` folders is its compilers' work, under way."""
    folders = tuple(f"{os.path.realpath(folder)}{os.sep}" for folder in own)
    return {
        "environment variables": lambda: {n: v for n, v in os.environ.items() if n not in _SET_BY_TORCH},
        "working directory": os.getcwd,
        "threads": _strange_threads,
        "open files": lambda: [path for path in _open_files() if not path.startswith(folders)],
        "warnings' filters": _filters,
    }


def torch_probes() -> dict[str, Probe]:
    """Return what a worker of graphs compares besides. Asked one by one: what another torch does not have is told."""
    import torch
    from torch.autograd import forward_ad
    from torch.nn.modules import module
    from torch.overrides import _get_current_function_mode_stack
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

    c = torch._C
    return {
        "functorch's stack": lambda: (
            c._functorch.maybe_current_level(),
            c._functorch.peek_interpreter_stack() is None,
        ),
        "functorch's leave to change inputs": _asked(c._functorch, "get_inplace_requires_grad_allowed"),
        "autocast": _autocast,
        "saved tensors' hooks": lambda: (
            c._autograd._saved_tensors_hooks_is_enabled(),
            c._autograd._saved_tensors_hooks_get_disabled_error_message(),
            c._autograd._top_saved_tensors_default_hooks(True) is None,
        ),
        "function modes": lambda: len(_get_current_function_mode_stack()),
        "dispatch modes": lambda: len(_get_current_dispatch_mode_stack()),
        "dispatch keys": lambda: {
            "included": str(c._dispatch_tls_local_include_set()),
            "excluded": str(c._dispatch_tls_local_exclude_set()),
        },
        "forward derivatives": lambda: (forward_ad._current_level, c._is_fwd_grad_enabled()),
        "inference mode": torch.is_inference_mode_enabled,
        "autograd's threads and views": lambda: (c._is_multithreading_enabled(), c._is_view_replay_enabled()),
        "functionalization": _asked(c, "_functionalization_reapply_views_tls"),
        "hooks of all modules": lambda: (
            len(module._global_forward_hooks),
            len(module._global_forward_pre_hooks),
            len(module._global_backward_hooks),
        ),
        "anomaly mode": torch.is_anomaly_enabled,
        # Which kernels of attention are on is set anew with each job; these two are not.
        "attention's kernels": lambda: (c._get_overrideable_sdp_enabled(), c._get_sdp_priority_order()),
    }


def _asked(of: Any, name: str) -> Probe:
    """Return a probe that calls torch's function by its name: a missing one must not keep a worker from starting."""

    def ask() -> object:
        return getattr(of, name)()

    return ask


def _autocast() -> object:
    """Return how deep autocast is nested; a device's dtype is set anew with each job."""
    import torch

    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


def _strange_threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if not thread.name.startswith(_OWN_THREADS))


@functools.cache
def _packages() -> tuple[str, ...]:
    """Return the folders of the interpreter's own modules and of installed packages."""
    paths = sysconfig.get_paths()
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({f"{os.path.realpath(paths[name])}{os.sep}" for name in names})


def _open_files() -> list[str]:
    """Return the paths of open files; sockets and pipes are those of compilers under way.

    Nor is anything of installed packages one of them: torch has threads that import while a graph begins or ends.
    """
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the one that the folder itself was read by
            continue
        if target.startswith("/") and not target.startswith(("/dev/", "/proc/", *_packages())):
            found.append(target)
    return sorted(found)


def _filters() -> object:
    return [(action, category, line) for action, _, category, _, line in warnings.filters]
