"""Four modules of inductor's that are imported without being run, until something needs what is in them.

`compile_fx`, `graph`, `select_algorithm` and `decomposition` are what inductor compiles with. Loading a compiled graph
asks each of them for one thing, which does not need them: the settings as they are, a hook that nobody has set, a
handful of torch's own functions, and the name of a function that is called in a compile. A process that traces nothing
needs no more of them.

Guarantees: a late module is the module: the same object, in the same place, run by its own loader as soon as anything
is set on it, or asked of it; but for four lines of torch's, which alone get something else (`_STAND_INS`). Where torch
takes for granted that another module of inductor's was imported by these, it is imported when it is asked for. Modules
that were run before are left alone, and so is every torch but those named here.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import pkgutil
import re
import sys
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from typing import Any

NAME = "imports"
"""In `TORCH_COMPILE_CLIENT_WITHOUT`."""
COMPILE_FX = "torch._inductor.compile_fx"
_PACKAGE = "torch._inductor"

_RUN_WITH = ("2.13.0", "2.14.1", "2.15.0")
_KERNELS = ("mm", "addmm", "bmm", "baddbmm", "convolution")
"""What the namespace of kernels has under these names is torch's function of that name."""
_NAMESPACES = frozenset({"aten", "inductor", "_quantized", "prims", "mkldnn", "mkl"})
"""Of operators that are there without inductor's modules."""
_OPERATOR = re.compile(r"torch\.ops\.(\w+)")
_logger = logging.getLogger("compile_client")
_here = threading.local()


def put_off() -> None:
    """Import the four late from now on, where they were not imported yet."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def stop_putting_off() -> None:
    """Import as always. Modules that are late by now stay so until they are needed."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]


def when_run(module: types.ModuleType, action: Callable[[], object]) -> bool:
    """Have `action` called when a late module has been run; return False where it was run already."""
    if type(module) is not _LateModule:
        return False
    object.__getattribute__(module, "_late").actions.append(action)
    return True


class _Finder:
    """Finds the four, and has them run late."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name not in _STAND_INS or getattr(_here, "finding", False):
            return None
        if str(getattr(sys.modules.get("torch"), "__version__", "")).partition("+")[0] not in _RUN_WITH:
            return None
        _here.finding = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            _here.finding = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment] # delegates to the one it wraps
        return spec


class _Loader:
    """Makes a late module."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _LateModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        vars(sys.modules[_PACKAGE]).setdefault("__getattr__", _submodule)
        object.__setattr__(module, "_late", _Late(self._loader))
        object.__setattr__(module, "__loader__", self._loader)
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader


def _submodule(name: str) -> types.ModuleType:
    """Return a module of inductor's that `compile_fx` would have imported by now."""
    full = f"{_PACKAGE}.{name}"
    if _is_special(name) or importlib.util.find_spec(full) is None:
        raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}")
    return importlib.import_module(full)


class _Late:
    """How a late module is run, and what is done then."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.actions: list[Callable[[], object]] = []
        self.lock = threading.RLock()
        self.running = False


class _LateModule(types.ModuleType):
    """A module that was imported and not run. What Python's imports set on it is there; all else has it run."""

    def __getattr__(self, name: str) -> Any:
        if _is_special(name):
            raise AttributeError(name)  # asked by imports, and by whoever looks through all modules
        if (stand_in := _STAND_INS[self.__name__].get(name)) is not None and not self._late.running:
            asking = sys._getframe(1)
            if stand_in.is_asked_by(asking) and (made := stand_in.make(self, asking)) is not None:
                return made
        _run(self)
        if type(self) is _LateModule:  # its own circular import
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} yet")
        return getattr(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        if not _is_special(name):
            _run(self)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        _run(self)
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        _run(self)
        return list(self.__dict__)


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _run(module: types.ModuleType) -> None:
    """Run a late module, once. Other threads wait; its own circular imports see what is there so far, as always."""
    late: _Late | None = module.__dict__.get("_late")
    if late is None:
        return
    with late.lock:
        if late.running or type(module) is not _LateModule:
            return
        late.running = True
        try:
            late.loader.exec_module(module)
        finally:
            late.running = False
        del module.__dict__["_late"]
        object.__setattr__(module, "__class__", types.ModuleType)
        for action in late.actions:
            try:
                action()
            except Exception:
                _logger.warning("the compile client does not see what is compiled from here on", exc_info=True)


def _settings(module: types.ModuleType, _asking: types.FrameType) -> Any:
    """Return what `torch.compile` asks for the settings as they are; those of a mode are made by the module."""

    def get_patched_config_dict(config_patches: Any = None) -> Any:
        if config_patches:
            _run(module)
            return module.get_patched_config_dict(config_patches)
        from torch._inductor import config

        return config.get_config_copy()

    return get_patched_config_dict


class _Table:
    """Stands for `select_decomp_table`, which compiled graphs name for their next compile. Pickled it is that again."""

    def __init__(self, module: types.ModuleType, _asking: types.FrameType) -> None:
        self._module = module

    def __call__(self) -> Any:
        return self._module.select_decomp_table()

    def __reduce__(self) -> Any:
        return pkgutil.resolve_name, (f"{self._module.__name__}:select_decomp_table",)


class _NoHook:
    """Stands for `GraphLowering` while it is not there: nobody can have set its hook for tests."""

    save_output_code = None


def _kernels(module: types.ModuleType, asking: types.FrameType) -> _Kernels | None:
    """Return what generated code gets; None where it calls operators that inductor's modules may have registered."""
    with open(asking.f_code.co_filename, encoding="utf-8") as file:
        found = set(_OPERATOR.findall(file.read()))
    return _Kernels(module) if found <= _NAMESPACES else None


class _Kernels:
    """Stands for `extern_kernels` in code that was generated before."""

    def __init__(self, module: types.ModuleType) -> None:
        import torch

        self._module = module
        for name in _KERNELS:
            setattr(self, name, getattr(torch, name))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module.extern_kernels, name)
        setattr(self, name, found)
        return found


@dataclass(frozen=True, slots=True)
class _StandIn:
    """What one line of torch's gets without having the module run."""

    module: str
    """The one in which the line is, or the beginning of its name where it ends with a dot."""
    function: str
    make: Callable[[types.ModuleType, types.FrameType], Any]
    """Returns None where the module has to be run after all."""

    def is_asked_by(self, frame: types.FrameType) -> bool:
        module = frame.f_globals.get("__name__", "")
        fits = module.startswith(self.module) if self.module.endswith(".") else module == self.module
        return fits and frame.f_code.co_name == self.function


_STAND_INS = {
    COMPILE_FX: {"get_patched_config_dict": _StandIn("torch", "get_compiler_config", _settings)},
    "torch._inductor.decomposition": {
        "select_decomp_table": _StandIn("torch._inductor.codecache", "iterate_over_candidates", _Table)
    },
    "torch._inductor.graph": {
        "GraphLowering": _StandIn("torch._inductor.codecache", "cache_hit_post_compile", lambda *_: _NoHook)
    },
    "torch._inductor.select_algorithm": {
        "extern_kernels": _StandIn("torch._inductor.runtime.compile_tasks.", "<module>", _kernels)
    },
}
