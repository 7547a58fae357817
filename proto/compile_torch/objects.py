"""Names of compiled objects that hold in every virtual environment.

torch names a shared object by a hash of its source and of the compiler's full command line, and that line holds the
absolute include and library paths of Python and of torch. The same kernel therefore has another name in another virtual
environment, container or home directory, although the bytes would be the same. Here an object is named by source and
command line with those prefixes replaced; what the prefixes lead to (Python, torch, compiler) is in the environment.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

_SUFFIX = ".so"
_STRIP_AT_ONCE = 500  # far below the longest command line
_STRIP_TIMEOUT_S = 60.0


def object_name(source: str | bytes, command: str) -> str:
    """Return the relocatable name of the object that is built from `source` by `command` (torch's hashed text)."""
    text = source.encode() if isinstance(source, str) else source
    mac = hashlib.sha256(b"compile-daemon object v1\0")
    for part in (_relocated(text.strip()), _relocated(command.encode())):
        mac.update(len(part).to_bytes(8, "big") + part)
    return f"k{mac.hexdigest()}{_SUFFIX}"


def object_path(source_path: str) -> str:
    """Return where torch (2.11 to 2.15) looks for the object of the source at `source_path`: beside it."""
    return os.path.splitext(source_path)[0] + _SUFFIX


def portable(paths: Sequence[str]) -> list[bytes]:
    """Return the objects' bytes without the paths of the machine that built them.

    Debug sections are stripped where there is a `strip`. What is left stands in the texts of assertions: the names of
    torch's header and, in kernels made of templates, of the source. Their directories are overwritten, in the same
    length. The code is not touched.
    """
    return [
        without_directory(without_directory(data, torch_directory()), os.path.dirname(path))
        for path, data in zip(paths, _stripped(paths), strict=True)
    ]


def without_directory(data: bytes, directory: str) -> bytes:
    """Overwrite a directory where it begins a path, in the same length: a binary stays whole."""
    there = os.path.join(directory, "").encode()
    return data.replace(there, b"." + b"/" * (len(there) - 1))


def _stripped(paths: Sequence[str]) -> list[bytes]:
    program = shutil.which("strip")
    if program is None or not paths:
        return [Path(path).read_bytes() for path in paths]
    with tempfile.TemporaryDirectory(prefix="compile-daemon-") as folder:
        copies = [shutil.copyfile(path, os.path.join(folder, f"{i}{_SUFFIX}")) for i, path in enumerate(paths)]
        for start in range(0, len(copies), _STRIP_AT_ONCE):
            some = copies[start : start + _STRIP_AT_ONCE]
            subprocess.run([program, "--strip-debug", *some], check=True, capture_output=True, timeout=_STRIP_TIMEOUT_S)
        return [Path(copy).read_bytes() for copy in copies]


def _relocated(text: bytes) -> bytes:
    for prefix, name in _prefixes():
        text = text.replace(prefix, name)
    return text


def torch_directory() -> str:
    """Return where torch is installed."""
    import torch

    return os.path.dirname(torch.__file__)


@functools.cache
def _prefixes() -> tuple[tuple[bytes, bytes], ...]:
    """Return the prefixes with their names, the longest first: one may lie inside another."""
    paths = sysconfig.get_paths()
    found: dict[str, str] = {}
    for name, path in (
        ("torch", torch_directory()),
        ("include", paths["include"]),
        ("platinclude", paths["platinclude"]),
        ("libdir", sysconfig.get_config_var("LIBDIR") or ""),
        ("purelib", paths["purelib"]),
        ("platlib", paths["platlib"]),
        ("prefix", sys.prefix),
        ("base", sys.base_prefix),
    ):
        if len(path) > 1:
            found.setdefault(path, name)
            found.setdefault(os.path.realpath(path), name)
    ordered = sorted(found.items(), key=lambda item: len(item[0]), reverse=True)
    return tuple((path.encode(), f"@{name}@".encode()) for path, name in ordered)
