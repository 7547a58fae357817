"""Landlock: the kernel refuses files, sockets' ports and signals that were not named beforehand. For good, and for all
that is started later.

Three system calls, and no library: a worker's interpreter is the client's, so that whatever it needs would have to be
installed there (decision 0011).
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

OLDEST_ABI = 2
"""Before this (Linux 5.19) nothing can be moved from one folder to another, which compilers and torch's caches do."""

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every processor
_ASK_VERSION = 1
_RULE_PATH = 1
_NO_NEW_PRIVILEGES = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIRECTORY = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHARACTER_DEVICE, _MAKE_SOCKET, _MAKE_BLOCK_DEVICE = 1 << 6, 1 << 9, 1 << 11
_REFER, _TRUNCATE, _DEVICE_CONTROL = 1 << 13, 1 << 14, 1 << 15
_UP_TO_ABI = {1: (1 << 13) - 1, 2: _REFER, 3: _TRUNCATE, 5: _DEVICE_CONTROL}
"""What each version can refuse, beside what the ones before can."""
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _DEVICE_CONTROL
"""What a rule about a file, and not a folder, may speak of."""

_READ = _EXECUTE | _READ_FILE | _READ_DIRECTORY
_OWN = ~(_EXECUTE | _MAKE_CHARACTER_DEVICE | _MAKE_SOCKET | _MAKE_BLOCK_DEVICE | _DEVICE_CONTROL)
_DEVICE = _READ_FILE | _WRITE_FILE | _DEVICE_CONTROL

_TCP_FROM_ABI, _BIND_AND_CONNECT = 4, 0b11
_SCOPES_FROM_ABI, _ABSTRACT_SOCKETS_AND_SIGNALS = 6, 0b11


def abi() -> int:
    """Return the version of Landlock that this kernel has; 0 where it has none, or it is switched off."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, _syscall(_CREATE_RULESET, None, 0, _ASK_VERSION))


def restrict(*, read: Iterable[Path], own: Iterable[Path], devices: Iterable[Path]) -> None:
    """Leave this thread, and all it starts, with these paths: to read and execute, to do anything with, to talk to.

    No TCP, and from version 6 on no signals to, and no abstract sockets of, processes outside. What is not there is
    left out. Raises `OSError`.
    """
    version = abi()
    handled = 0
    for since, rights in _UP_TO_ABI.items():
        handled |= rights if since <= version else 0
    attributes = struct.pack("=Q", handled)
    if version >= _TCP_FROM_ABI:
        attributes += struct.pack("=Q", _BIND_AND_CONNECT)
    if version >= _SCOPES_FROM_ABI:
        attributes += struct.pack("=Q", _ABSTRACT_SOCKETS_AND_SIGNALS)
    ruleset = _checked(_syscall(_CREATE_RULESET, attributes, len(attributes), 0), "landlock_create_ruleset")
    try:
        for rights, paths in ((_READ, read), (_OWN, own), (_DEVICE, devices)):
            for path in paths:
                _allow(ruleset, path, rights & handled)
        give_up_privileges()
        _checked(_syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def give_up_privileges() -> None:
    """Keep every program that is started from now on from gaining rights by it. Raises `OSError`."""
    _checked(_libc().prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "prctl")


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # nothing is lost: it cannot be opened
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, place)
        _checked(_syscall(_ADD_RULE, ruleset, _RULE_PATH, rule, 0), f"landlock_add_rule for {path}")
    finally:
        os.close(place)


def _syscall(number: int, *arguments: bytes | int | None) -> int:
    passed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return int(_libc().syscall(ctypes.c_long(number), *passed))


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
