"""torch's cache entries before they are saved: what must not be cached, and what must not travel."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pickle
import re
from typing import Any

from compile_torch.objects import torch_directory, without_directory

_GRAPH_TEXTS = ("aot_joint_graph_str", "aot_forward_graph_str", "aot_backward_graph_str")
_CODE_TEXTS = (
    "runnable_graph_str",
    "inductor_post_grad_graph_str",
    "inductor_provenance_mapping_str",
    "inductor_provenance_stack_traces_str",
)

_KERNEL_ORIGIN = re.compile(r"^((?:#|//) Original path: ).*/", re.MULTILINE)
"""What torch writes above a Triton kernel of the user's own."""


def why_not_cacheable(entry: Any) -> str:
    """Return why an entry must not be cached although torch would; empty where it may be.

    torch replays views of inputs that a graph returns. A recorded view that has sizes or an order (`view`, `expand`,
    `permute`, ...) comes out of the pickle with those numbers in memory that has been given back: sooner or later the
    view is made with other numbers. (Run on torch 2.13: another process, static shapes, `x.view(2, -1).flatten(1)`.)
    Nor are they there to be read before that: a process that asked such a view for its numbers was ended by signal 11.
    """
    metadata = getattr(entry, "runtime_metadata", None)
    for output in getattr(metadata, "output_info", None) or ():
        recorded = getattr(output, "view_meta_sequence", None)
        for view in getattr(recorded, "sequence", None) or ():
            if _has_lists(type(view)):
                kind = type(view).__name__.removesuffix("_ViewMeta")
                return f"an output is a view of an input ({kind}), which this torch does not restore reliably"
    return ""


def _has_lists(view: type) -> bool:
    """Return whether the numbers of a kind of view include lists, by its signature; also where that cannot be read."""
    _, arrow, parts = (getattr(getattr(view, "as_tuple", None), "__doc__", None) or "").partition("->")
    return not arrow or "list[" in parts or "Sequence[" in parts


def scrub(entry: Any) -> None:
    """Remove the texts that an entry carries for logs: they quote source lines, and name files and directories.

    Directories are also taken out of the graph's code and out of its Triton kernels; what runs is not touched.
    """
    for name in _GRAPH_TEXTS:
        if hasattr(entry, name):
            setattr(entry, name, None)
    metadata: Any = getattr(entry, "runtime_metadata", None)
    if getattr(metadata, "tangent_source_stack_traces", None):
        metadata.tangent_source_stack_traces = None  # for an error's message, which then names no line
    for side in ("compiled_fw", "compiled_bw"):
        code = getattr(getattr(entry, side, None), "result", None)
        if code is not None:
            _scrub_code(code)


def _scrub_code(code: Any) -> None:
    for name in _CODE_TEXTS:
        if isinstance(getattr(code, name, None), str):
            setattr(code, name, "")
    if isinstance(getattr(code, "cache_linemap", None), list):
        code.cache_linemap = []
    if isinstance(getattr(code, "source_code", None), str):
        code.source_code = _KERNEL_ORIGIN.sub(r"\1", code.source_code)
    bundle = getattr(code, "_triton_bundle", None)
    if kernels := getattr(bundle, "kernel_artifacts", None):
        kernels[:] = [_without_directories(kernel) for kernel in kernels]
    for launched in getattr(bundle, "static_autotuners", None) or ():
        _at_home_anywhere(launched.kernel)


class _InCache:
    """A path that becomes one in the cache of the process that unpickles it: the pickle calls functions of torch's."""

    def __init__(self, *parts: str) -> None:
        self._parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        from torch._inductor.runtime.cache_dir_utils import cache_dir

        return (os.path.join, (_InCache(), *self._parts)) if self._parts else (cache_dir, ())


def _at_home_anywhere(tuner: Any) -> None:
    """Have a kernel that torch launches statically keep what it finds out in the cache of the process that runs it.

    torch keeps the file that the kernel was read from, and beside it the best of several configurations, once they were
    timed. Both are paths of the process that compiled it: where that was on another machine, the first call would fail.
    """
    for holder, name in ((getattr(tuner, "fn", None), "file_name"), (tuner, "filename")):
        if isinstance(path := getattr(holder, name, None), str):
            setattr(holder, name, _InCache(*path.split(os.sep)[-2:]))  # torch's own layout: a folder, and a file
    kept: Any = getattr(getattr(tuner, "save_cache_hook", None), "__self__", None)
    if getattr(kept, "local_cache", None):
        backend, path = kept.local_cache
        if isinstance(path, str):
            kept.local_cache = (backend, _InCache(*path.split(os.sep)[-2:]))


def _without_directories(kernel: Any) -> Any:
    """Overwrite, in all files of a Triton kernel, the directories of the sources that it is made of."""
    files = [dataclasses.replace(file, payload=_elsewhere(file.payload)) for file in kernel.artifacts]
    return dataclasses.replace(kernel, artifacts=files)


def _elsewhere(data: bytes) -> bytes:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    # torch's file with the kernel, what torch brings along for kernels, and Triton's own library
    directories = [cache_dir(), torch_directory()]
    if (triton := importlib.util.find_spec("triton")) is not None and triton.origin:
        directories.append(os.path.dirname(triton.origin))
    for directory in directories:
        data = without_directory(data, directory)
    return data


def scrubbed(content: bytes) -> bytes:
    """Return an entry that this very process has saved, without those texts."""
    entry = pickle.loads(content)  # noqa: S301 - bytes that torch made in this process a moment ago
    scrub(entry)
    return pickle.dumps(entry)


def guards_of(entry: Any) -> str:
    """Return the guard expression that torch will evaluate before it uses the entry; empty where there is none."""
    return getattr(entry, "guards_expr", None) or ""
