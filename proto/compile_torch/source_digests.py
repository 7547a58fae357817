"""torch's and Triton's digests of their own sources, remembered by what the file system says of these files.

Both are in every key, and to compute them all sources are read: most of what the first graph of a warm start waits for.
So they are kept in a private file beside the daemon's secret, each under a digest of the path, size, number and times
of every file that its computation could read, or find missing. A file that is edited, replaced, added or removed makes
another one, and the digest is computed as torch does it.

An edit is seen although size and time of modification are as before, because the time of change is in it, which nobody
sets. Nothing is remembered where that time cannot be believed: where it is so late that torch may have read the file
before, has whole seconds only, as in images whose times were all set alike, or comes from a file system that is not
this machine's own: over a network it is what was so some seconds ago. Python itself believes less: it takes a source
for unchanged by its size and its seconds, and imports what it had compiled before.

Whoever can write the file could write the secret, and have this process run code. Workers never read it: each
computes both, and where one finds another environment than its client has said, the daemon removes the file.

Nothing is raised: what cannot be remembered is computed.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Any

from compile_wire.endpoint.private_files import DIGESTS_NAME, check_private_directory, read_private, write_private
from compile_wire.errors import EndpointError

_MAX_KEPT = 6
"""Of both kinds, those written last: a Triton's takes 7 KiB, and a private file has at most 64."""
_SECOND_NS = 1_000_000_000
_COARSE_NS = 2 * _SECOND_NS
"""File systems tell times apart by some milliseconds, at worst by two seconds."""
_MAX_FILES = 50_000
_FORM = 1
_LOCAL_FILE_SYSTEMS = frozenset({"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"})
_UNLISTED_DEVICES = frozenset({"bcachefs", "btrfs", "overlay"})
"""Their files may tell of a device that no mount has; whatever else is mounted tells of its own."""


@dataclass(frozen=True, slots=True)
class HashedPackage:
    """A package of whose sources torch computes a digest."""

    name: str
    version: str
    """Where the digest has it from the module and not from a file."""
    root: Path
    compute: Any
    """torch's function. It computes once, and `compute.set` gives it the result."""

    def files(self) -> tuple[str, int] | None:
        """Return the digest of what the file system says of its files, and when the last of them was changed.

        None where the file system cannot tell changes.
        """
        said = hashlib.sha256(repr((_FORM, sys.version, all_suffixes(), self.version, str(self.root))).encode())
        latest = count = 0
        devices = set()
        for path, status in _files(self.root):
            count += 1
            changed_ns = status.st_ctime_ns
            if count > _MAX_FILES or changed_ns % _SECOND_NS == 0:
                return None
            latest = max(latest, changed_ns)
            devices.add(status.st_dev)
            times = f"{status.st_mtime_ns} {changed_ns}"
            line = f"{path}\0{status.st_dev} {status.st_ino} {status.st_size} {times}\n"
            said.update(line.encode("utf-8", "surrogateescape"))
        return (said.hexdigest(), latest) if count and _all_local(devices, self.root) else None


@contextlib.contextmanager
def remembered_digests(
    directory: Path, since_ns: int | None, packages: Iterable[HashedPackage] | None = None
) -> Iterator[None]:
    """Give torch the digests that `directory` remembers for its files; at the end, remember those that torch computed.

    `since_ns` is a time before torch can have computed any, in nanoseconds since the epoch: only digests of files that
    were not changed after it are remembered, and none where it is None. The packages are torch, and Triton where there
    is one. The directory must be this user's alone.
    """
    computed: list[tuple[HashedPackage, str]] = []
    path = directory / DIGESTS_NAME
    # ValueError: of `find_spec`, for a stand-in that a program has put where Triton would be.
    with contextlib.suppress(OSError, EndpointError, ImportError, ValueError):
        check_private_directory(directory)
        kept = _read(path)
        for package in torch_and_triton() if packages is None else packages:
            files = package.files()
            if files is None:
                continue
            name, changed_ns = f"{package.name} {files[0]}", files[1]
            if name in kept:
                _give(package, kept[name])
            elif since_ns is not None and changed_ns < since_ns - _COARSE_NS:
                computed.append((package, name))
    yield
    if computed:
        with contextlib.suppress(OSError, EndpointError):
            _remember(path, computed)


def torch_and_triton() -> Iterator[HashedPackage]:
    """Find torch, and Triton where there is one; neither where torch cannot be given a digest."""
    import torch
    from torch._inductor import codecache

    functions: list[tuple[str, Callable[[], Any] | None]] = [
        ("torch", codecache.torch_key),
        ("triton", getattr(codecache, "triton_key", None)),
    ]
    for name, compute in functions:
        spec = importlib.util.find_spec(name)
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        if len(places) == 1 and compute is not None and hasattr(compute, "set"):
            version = str(torch.__version__) if name == "torch" else ""
            yield HashedPackage(name, version, Path(places[0]), compute)


def _all_local(devices: set[int], root: Path) -> bool:
    """Whether this machine alone can change files of these devices, so that it hears of a change at once."""
    kinds: dict[str, str] = {}
    above: dict[str, str] = {}
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        # "36 35 98:0 /in/it /mounted/here rw,noatime shared:1 - ext3 /dev/root rw"; a later mount hides an earlier one.
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()[0]
        kinds[fields[2]] = above[fields[4]] = kind
    place = next((str(parent) for parent in (root.resolve(), *root.resolve().parents) if str(parent) in above), "")
    unlisted = above.get(place, "")
    found = {kinds.get(f"{os.major(device)}:{os.minor(device)}", "") for device in devices}
    if "" in found and unlisted in _UNLISTED_DEVICES:
        found.discard("")
    return found <= _LOCAL_FILE_SYSTEMS


def _files(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield each file in the packages under `root`, and what the file system says of it.

    Packages, and the folders in them that are none: there lie Triton's library and a few sources that torch reads, too.
    """
    waiting = [(str(root), True)]
    while waiting:
        folder, in_package = waiting.pop()
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        # Files of a package and of folders in it; a folder in such a folder only where it is a package again.
        is_package = any(entry.name.startswith("__init__.") for entry in entries)
        if not is_package and not in_package:
            continue
        for entry in entries:
            if entry.is_dir():
                if entry.name != "__pycache__":
                    waiting.append((entry.path, is_package))
                continue
            try:
                status = entry.stat()
            except FileNotFoundError:  # a link to nowhere
                continue
            yield entry.path, status


def _give(package: HashedPackage, value: str) -> None:
    # RuntimeError: torch has computed it already, for a graph before this client was switched on.
    with contextlib.suppress(RuntimeError, ValueError):
        package.compute.set(bytes.fromhex(value) if package.name == "torch" else value)


def _remember(path: Path, computed: list[tuple[HashedPackage, str]]) -> None:
    kept = _read(path)
    for package, name in computed:
        value = package.compute()
        text = value.hex() if isinstance(value, bytes) else value
        # Looked at once more: a file may have been edited while all were read.
        files = package.files()
        if isinstance(text, str) and files is not None and name == f"{package.name} {files[0]}":
            kept.pop(name, None)
            kept[name] = text
    newest = dict(list(kept.items())[-_MAX_KEPT:])
    write_private(path, json.dumps({"form": _FORM, "digests": newest}).encode())


def _read(path: Path) -> dict[str, str]:
    """Return what is remembered; nothing where there is no such file, or others could have written it."""
    try:
        document = json.loads(read_private(path))
    except (OSError, EndpointError, ValueError, RecursionError):
        return {}
    if not isinstance(document, dict) or document.get("form") != _FORM:
        return {}
    digests = document.get("digests")
    if not isinstance(digests, dict):
        return {}
    return {name: value for name, value in digests.items() if isinstance(name, str) and isinstance(value, str)}
