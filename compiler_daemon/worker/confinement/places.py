"""What a worker may open: its interpreter, what that imports from, the toolchain, a few devices, and its own folder.

Landlock only knows what is allowed, so nothing that is hidden may lie below a place that is named here. A place above a
hidden one is left out; where it is the interpreter's own, there is no confinement, and the reason is said.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SETTINGS = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/ssl/openssl.cnf",  # of the `openssl` that torch calls
)
_MACHINE = (
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_GPU_DEVICES = ("nvidia*", "kfd", "dri")
_GPU_MACHINE = (
    "/proc/driver/nvidia",
    "/sys/module/amdgpu/version",
    "/sys/bus/pci",
    "/sys/devices",
    "/sys/class/drm",
    "/sys/class/kfd",
    "/opt/rocm",
)
_TOOLS = ("g++", "gcc", "c++", "cc", "clang++", "ld", "as", "strip", "openssl", "ptxas")
_TOOL_VARIABLES = ("CXX", "CC", "TRITON_PTXAS_PATH")
_FOLDER_VARIABLES = ("CUDA_HOME", "CUDA_PATH", "ROCM_PATH", "ROCM_HOME")


class CannotConfineError(Exception):
    """The sandbox cannot hold here; the text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Lists all paths that a confined worker may use."""

    read: Sequence[Path]
    """To read and execute."""
    own: Sequence[Path]
    devices: Sequence[Path]


def places(
    *, scratch: Path, readable: Iterable[Path], hidden: Sequence[Path], environ: Mapping[str, str] = os.environ
) -> Places:
    """Return what this process needs. `readable` is what the daemon adds, `hidden` what must stay out of reach.

    Raises `CannotConfineError` where interpreter or system cannot be had without something hidden.
    """
    shut = [Path(os.path.realpath(path)) for path in hidden]
    read = [_reachable(path, shut) for path in _interpreter()]
    read += [path for path in (*_imports(), *_toolchain(environ)) if not _uncovers(path, shut)]
    read += [_reachable(Path(path), shut) for path in SYSTEM]
    read += [Path(path) for path in (*_SETTINGS, *_MACHINE)]
    devices = [Path(path) for path in _DEVICES]
    if gpus := [path for pattern in _GPU_DEVICES for path in Path("/dev").glob(pattern)]:
        devices += gpus
        read += [Path(path) for path in _GPU_MACHINE]
    return Places(read=[*read, *readable], own=[scratch], devices=devices)


def _interpreter() -> Iterator[Path]:
    """Yield the interpreter's own folders; a virtual environment's, and those of what it was made from."""
    for name in {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}:
        yield Path(name)
    for name in {sys.executable, getattr(sys, "_base_executable", "") or sys.executable}:
        yield Path(name)
    # Of this project alone, wherever it is installed from: its folder may hold other things.
    for package in ("compiler_daemon", "compile_wire", "compile_torch", "compile_client"):
        yield from _folders_of(package)


def _folders_of(package: str) -> Iterator[Path]:
    for entry in sys.path:
        if os.path.isfile(os.path.join(entry, package, "__init__.py")):
            yield Path(entry, package)
            yield from Path(entry).glob(f"{package}-*.dist-info")
            return


def _imports() -> Iterator[Path]:
    """Yield where imports are looked for beside the prefixes: user site-packages, and what is installed for editing."""
    for entry in sys.path:
        if os.path.isabs(entry):
            yield Path(entry)
    for finder in sys.meta_path:
        # setuptools' way of installing for editing: a finder that knows the folder of each package
        mapping: Any = getattr(sys.modules.get(getattr(finder, "__module__", "")), "MAPPING", {})
        for folder in mapping.values() if isinstance(mapping, dict) else ():
            yield Path(str(folder))


def _toolchain(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield compilers and what they bring along, where they are not the system's."""
    named = [word for name in _TOOL_VARIABLES for word in environ.get(name, "").split()[:1]]
    for tool in (*named, *_TOOLS):
        if found := shutil.which(tool, path=environ.get("PATH")):
            target = Path(os.path.realpath(found))
            yield from (Path(found), target)
            if target.parent.name == "bin":
                yield target.parent.parent
    for name in _FOLDER_VARIABLES:
        if os.path.isabs(environ.get(name, "")):
            yield Path(environ[name])


def _reachable(path: Path, shut: Sequence[Path]) -> Path:
    if _uncovers(path, shut):
        raise CannotConfineError(f"{path} is needed, and what must stay hidden lies below it: use another --dir")
    return path


def _uncovers(path: Path, shut: Sequence[Path]) -> bool:
    real = Path(os.path.realpath(path))
    return real == Path("/") or any(hidden.is_relative_to(real) for hidden in shut)
