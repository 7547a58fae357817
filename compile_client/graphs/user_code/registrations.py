"""What a program registers with torch's dispatcher from Python: noted as it happens, because torch keeps no list.

A kernel that a program gives to an operator may run while a graph is compiled: what it does is then part of the graph.
Noting it costs next to nothing. Only what torch itself registers is left out.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

_kernels: dict[str, dict[str, Any]] = defaultdict(dict)
_unseen: list[tuple[str, str, Any]] = []
"""Operator, key and function of what says that it is torch's own, and may hold the user's all the same."""
_replaced: list[tuple[Any, Any]] = []
"""torch's function and ours, while ours stands in its place."""


def watch() -> None:
    """Note from now on what is registered. Idempotent. Nothing is imported for it: torch is being imported."""
    import torch

    if not _replaced:
        original = torch.library.Library.impl
        _replaced.append((original, _noting(original)))
        torch.library.Library.impl = _replaced[0][1]  # type: ignore[method-assign] # with the same arguments


def unwatch() -> None:
    """Note no more; what was noted stays. What somebody else has put there meanwhile is left alone."""
    import torch

    if _replaced:
        original, ours = _replaced.pop()
        if torch.library.Library.impl is ours:
            torch.library.Library.impl = original  # type: ignore[method-assign] # torch's own


def kernels_of(name: str) -> list[tuple[str, Any]]:
    """Return (dispatch key, function) of what was registered for an operator, "namespace::name" without overload."""
    return list(_kernels.get(name, {}).items())


def overridden(namespaces: frozenset[str]) -> Iterator[tuple[str, str, Any]]:
    """Yield (operator, dispatch key, function) of the user's kernels for operators in torch's own namespaces."""
    # Imported here: noting begins in every process that imports torch.
    from compile_client.graphs.user_code.library_code import is_librarys

    noted = _unseen[:]
    _unseen.clear()
    for name, key, function in noted:
        if not is_librarys(function):
            _kernels[name][key] = function
    for name, kernels in list(_kernels.items()):
        if name.partition("::")[0] in namespaces:
            for key, function in kernels.items():
                if not is_librarys(function):
                    yield name, key, function


def _noting(original: Callable[..., Any]) -> Callable[..., Any]:
    def impl(library: Any, op_name: Any, fn: Any, dispatch_key: str = "", *args: Any, **kwargs: Any) -> Any:
        _note(library, op_name, fn, dispatch_key)
        return original(library, op_name, fn, dispatch_key, *args, **kwargs)

    return impl


def _note(library: Any, op_name: Any, function: Any, dispatch_key: str) -> None:
    name = op_name if isinstance(op_name, str) else getattr(op_name, "_name", "")
    space, _, plain = name.rpartition("::")
    space = space or str(getattr(library, "ns", ""))
    key = dispatch_key or str(getattr(library, "dispatch_key", ""))
    full = f"{space}::{plain.partition('.')[0]}"
    if space in {"aten", "prims"} and is_torchs(function):
        _unseen.append((full, key, function))  # thousands, nearly all of them torch's own: looked at when they matter
    else:
        _kernels[full][key] = function


def is_torchs(function: Any) -> bool:
    """Whether a function is of one of torch's modules; it may hold the user's all the same."""
    module = getattr(function, "__module__", None) or ""
    return module.partition(".")[0] in {"torch", "functorch"}
