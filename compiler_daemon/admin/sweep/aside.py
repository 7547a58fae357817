"""A trainer whose files stay away: what it writes below its own directory goes into a layer that ends with it.

    python -I -S aside.py LAYER COMMAND...

The process makes a mount namespace of its own, lays an empty layer (overlayfs, in the folder LAYER) over the current
directory, and becomes COMMAND. The trainer reads what it has just written, as always; nobody else ever sees it. Only
where the kernel lets this user do it, as root or in a user namespace; where it does not, exit code 126 and a sentence.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_REFUSED = 126
_TRY_S = 20.0


def launcher(layer: Path) -> list[str]:
    """Return what a command is put behind, so that its files stay away."""
    return [sys.executable, "-I", "-S", __file__, os.fspath(layer)]


def why_not(directories: Iterable[Path], folder: Path) -> str:
    """Return why files of trainers that run in `directories` cannot be kept away; empty where they can. Tries it.

    Layers are to be in `folder`.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for directory in sorted(directories):
        layer = Path(tempfile.mkdtemp(prefix="try-", dir=folder))
        try:
            command = [*launcher(layer), sys.executable, "-I", "-S", "-c", ""]
            done = subprocess.run(
                command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TRY_S, check=False
            )
            if done.returncode:
                said = done.stderr.decode(errors="replace").strip().splitlines()
                return said[-1] if said else f"exit code {done.returncode}"
        except OSError as error:
            return f"{directory}: {error.strerror}"
        except subprocess.TimeoutExpired:
            return f"it takes more than {_TRY_S:g} s"
        finally:
            remove(layer)
    return ""


def remove(layer: Path) -> None:
    """Remove a layer that nothing uses any more; the kernel leaves a folder in it that nobody may look into."""
    with contextlib.suppress(OSError):
        (layer / "work" / "work").chmod(0o700)
    shutil.rmtree(layer, ignore_errors=True)


def main(arguments: list[str]) -> None:
    """Lay the layer, and become the command."""
    layer, command = Path(arguments[0]), arguments[1:]
    try:
        _lay(Path.cwd(), layer)
    except OSError as error:
        sys.stderr.write(f"{error.strerror}\n")
        raise SystemExit(_REFUSED) from None
    try:
        os.execvp(command[0], command)  # noqa: S606  # what the user asked for, without a shell
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}\n")
        raise SystemExit(_REFUSED + isinstance(error, FileNotFoundError)) from None


def _lay(directory: Path, layer: Path) -> None:
    """Lay a layer over the current directory, for this process and its children."""
    if layer.resolve().is_relative_to(directory):
        raise OSError(0, f"the daemon's directory is below {directory}")
    if any(letter in f"{directory}{layer}" for letter in ":,\\"):
        raise OSError(0, "a comma, a colon or a backslash is in the name of a directory")
    own = _enter_namespace()
    for name in ("files", "work"):
        (layer / name).mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={directory},upperdir={layer / 'files'},workdir={layer / 'work'}"
    _mount("overlay", directory, "overlay", 0, f"{options},userxattr" if own else options)
    os.chdir(directory)  # the one that was current is the one below


def _enter_namespace() -> bool:
    """Enter a mount namespace, and with it a user namespace where this user must; return whether it had to."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    own = bool(libc.unshare(_CLONE_NEWNS))
    if own:
        if libc.unshare(_CLONE_NEWNS | _CLONE_NEWUSER):
            raise OSError(ctypes.get_errno(), "the kernel allows no namespaces to this user")
        try:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        except OSError as error:
            raise OSError(error.errno, "the kernel lets this user have no namespace with its own number") from error
    _mount("none", Path("/"), "", _MS_REC | _MS_PRIVATE, "")
    return own


def _mount(source: str, target: Path, kind: str, flags: int, options: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = (source, os.fspath(target), kind or None, options or None)
    encoded = [None if word is None else word.encode() for word in words]
    if libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]):
        number = ctypes.get_errno()
        raise OSError(number, f"no layer can be laid over {target}: {os.strerror(number)}")


if __name__ == "__main__":
    main(sys.argv[1:])
