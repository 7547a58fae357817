"""Operators of well-known libraries that a worker may compile: a closed list, with the module that declares each.

An operator that no torch registers by itself exists only where its library was imported. For those on this list a
worker imports that library's own module, from the environment that it shares with the trainer and under its
confinement. What such an operator adds to a graph (the shapes that come out, its formula for a backward, its rules for
autocast) is in a few of the library's files; their digest is part of a graph's key (`libraries`), so that a worker
whose files are others comes to another key, and compiles nothing.

A digest says what was loaded only while the files are those that were imported. So one that has changed since this
process began, or since the library was imported here, has no digest.

torch is imported inside the functions, because both ends share this list and neither may pay for it at import.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from compile_wire.errors import MalformedError
from compile_wire.graph.spec import Value


@dataclass(frozen=True, kw_only=True, slots=True)
class Library:
    """Names a library's operators, and where they come from."""

    package: str
    """What it is imported as, and the namespace of its operators."""
    module: str
    """Whose import declares them."""
    files: tuple[str, ...]
    """Patterns, below the package's folder, of the files that say all that a compile asks of its operators."""
    operators: frozenset[str]
    """Those that a graph may name: their arguments are tensors, numbers and flags."""
    inner: frozenset[str] = frozenset()
    """Those that only the library's own formulas name."""


_LIBRARIES = (
    Library(
        package="transformers",
        module="transformers.integrations.moe",
        files=("integrations/moe.py",),
        operators=frozenset({"grouped_mm_fallback"}),
        inner=frozenset({"grouped_mm_fallback_backward"}),
    ),
    Library(
        package="torchvision",
        module="torchvision",
        files=("extension.py", "_meta_registrations.py", "_autograd_registrations.py", "_C*.so"),
        operators=frozenset({"nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d"}),
        inner=frozenset(
            "_roi_align_backward _roi_pool_backward _ps_roi_align_backward _ps_roi_pool_backward "
            "_deform_conv2d_backward".split()
        ),
    ),
)
LIBRARIES = {library.package: library for library in _LIBRARIES}
"""By package."""

_imported_at: dict[str, float] = {}
"""When a library was imported by `import_library`; any other was imported at some time after this process began."""


def library_of(target: Any) -> Library | None:
    """Return the library whose operator a node of a graph calls; None for any other target."""
    import torch

    if isinstance(target, torch._ops.OpOverload):
        name = target._name
    elif isinstance(target, torch._ops.OpOverloadPacket):
        name = target._qualified_op_name
    else:
        return None
    return library_of_name(name)


def library_of_name(name: str) -> Library | None:
    """Return the library of "namespace::operator", with or without an overload; None for all others."""
    space, _, operator = name.partition("::")
    library = LIBRARIES.get(space)
    return library if library is not None and operator.partition(".")[0] in library.operators else None


def import_library(library: Library) -> bool:
    """Import what declares a library's operators; return whether that was still to be done.

    Raises `MalformedError`, in words for people, where that fails or its files cannot be told.
    """
    new = library.module not in sys.modules
    if new:
        began = time.time()
        try:
            importlib.import_module(library.module)
        except Exception as error:  # whatever a library does when it is imported
            why = f"{type(error).__name__}: {str(error)[:200]}"
            raise MalformedError(f"{library.module} cannot be imported by a worker ({why})") from error
        _imported_at[library.package] = began
    if not library_digest(library):
        raise MalformedError(f"files of {library.package} have changed since a worker imported them")
    return new


def library_digest(library: Library) -> str:
    """Return a digest of the version and the files of a library that is loaded.

    Empty where it is not loaded, where a file cannot be read, and where one is newer than what was imported.
    """
    found = sorted(library_files(library))
    if not found:
        return ""
    since = _imported_at.get(library.package, _began)
    digest = hashlib.sha256(_version(library.package).encode())
    try:
        for path in found:
            found_as = path.stat()
            if found_as.st_ctime >= since:
                return ""
            digest.update(path.name.encode() + b"\0" + _digest(path, found_as.st_ctime_ns, found_as.st_size))
    except OSError:
        return ""
    return digest.hexdigest()


def library_files(library: Library) -> Iterator[Path]:
    """Yield the files of a library that is loaded by which its operators are what they are."""
    home = getattr(sys.modules.get(library.package), "__file__", None)
    if home is not None:
        folder = Path(os.path.realpath(home)).parent
        for pattern in library.files:
            yield from folder.glob(pattern)


def libraries_in(gm: Any) -> list[Value]:
    """Return ["l", package, digest] of each library whose operators a graph module or its bodies name."""
    import torch

    named = {
        library.package: library
        for module in gm.modules()
        if isinstance(module, torch.fx.GraphModule)
        for node in module.graph.nodes
        if node.op == "call_function" and (library := library_of(node.target)) is not None
    }
    return [["l", package, library_digest(library)] for package, library in sorted(named.items())]


@functools.lru_cache(64)
def _digest(path: Path, _changed_ns: int, _size: int) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _process_began() -> float:
    """Return when this process began, in seconds of the wall clock; a hundredth earlier at most."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)


_began = _process_began()
"""Of the process that imported this first: one forked from it later has what was imported before."""
