"""Doing something right after a module was imported, without importing it."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

_logger = logging.getLogger("compile_client")


def after_import(target: str, action: Callable[[], object]) -> None:
    """Call `action` as soon as `target` has been imported; at once where it is already.

    Its failure is logged, not raised. A second call for a target that is still waited for does nothing.
    """
    module = sys.modules.get(target)
    if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
        _run(action)
    elif not any(isinstance(finder, _AfterImport) and finder.target == target for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(target, action))


def forget_import(target: str) -> None:
    """Wait for `target` no more."""
    sys.meta_path[:] = [
        finder for finder in sys.meta_path if not (isinstance(finder, _AfterImport) and finder.target == target)
    ]


def _run(action: Callable[[], object]) -> None:
    try:
        action()
    except Exception:
        _logger.warning("the compile client is off: it failed to install", exc_info=True)


class _AfterImport:
    """A finder that finds nothing by itself: it acts when the target has been imported."""

    def __init__(self, target: str, action: Callable[[], object]) -> None:
        self.target = target
        self._action = action

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != self.target:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._action)  # type: ignore[assignment] # delegates to the one it wraps
        return spec


class _Loader:
    """Runs the module's own loader, then acts."""

    def __init__(self, loader: Any, action: Callable[[], object]) -> None:
        self._loader = loader
        self._action = action

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _run(self._action)
