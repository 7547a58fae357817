"""A filter over system calls, for what Landlock does not see: sockets of every kind, modes and owners of files, other
processes' memory, the kernel's own affairs.

A list of what is refused, not of what is allowed: torch, compilers and Triton differ between machines in what they
call, and files are Landlock's. Refused calls fail with EPERM, as for a user who may not.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
from dataclasses import dataclass

_SET_SECCOMP, _FILTER = 22, 2
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_BITS, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4
_NEW_NAMESPACES = 0x7E020000
"""Every flag of `clone` that makes a namespace."""

_SOCKETPAIR, _CLONE, _CLONE3, _PRLIMIT = "socketpair", "clone", "clone3", "prlimit64"

_REFUSED: dict[str, tuple[int, int]] = {
    # Sockets: a pair is all that is left, and it needs none of these.
    "socket": (41, 198),
    "connect": (42, 203),
    "accept": (43, 202),
    "accept4": (288, 242),
    "bind": (49, 200),
    "listen": (50, 201),
    # What Landlock leaves to the file's owner, whom the worker runs as.
    "chmod": (90, -1),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, -1),
    "fchown": (93, 55),
    "lchown": (94, -1),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    "truncate": (76, 45),
    "utime": (132, -1),
    "utimes": (235, -1),
    "futimesat": (261, -1),
    "inotify_add_watch": (254, 27),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    # Other processes.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    # Keys, rings and programs in the kernel.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    # The machine: a daemon may run as root.
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "syslog": (103, 116),
    "iopl": (172, -1),
    "ioperm": (173, -1),
}
_LOOKED_INTO: dict[str, tuple[int, int]] = {
    _SOCKETPAIR: (53, 199),
    _CLONE: (56, 220),
    _CLONE3: (435, 435),
    _PRLIMIT: (302, 261),
}
"""Calls that are allowed with some arguments, or must seem unknown."""

NUMBERS = _REFUSED | _LOOKED_INTO
"""Of each call: on x86_64, on aarch64; -1 where there is none."""


@dataclass(frozen=True, slots=True)
class _Processor:
    column: int
    audit: int
    foreign_from: int
    """Numbers from here on belong to another way of calling; 0 where there is none."""


_PROCESSORS = {
    "x86_64": _Processor(column=0, audit=0xC000003E, foreign_from=0x40000000),
    "aarch64": _Processor(column=1, audit=0xC00000B7, foreign_from=0),
}


def is_known_here() -> bool:
    """Return whether this processor's system calls are known."""
    return platform.machine() in _PROCESSORS


def refuse() -> None:
    """Filter this thread's calls, and those of all that it starts, after `give_up_privileges`. Raises `OSError`."""
    program = _program(_PROCESSORS[platform.machine()])
    text = b"".join(struct.pack("=HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(text, len(text))
    # struct sock_fprog, with the padding that C puts before the pointer
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_SECCOMP, ctypes.c_ulong(_FILTER), header, 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"the system calls cannot be filtered: {os.strerror(number)}")


def _program(processor: _Processor) -> list[tuple[int, int, int, int]]:
    """Return the filter as instructions of the kernel's: operation, jump if so, jump if not, operand."""
    refuse, unknown = (_RETURN, 0, 0, _REFUSE | _EPERM), (_RETURN, 0, 0, _REFUSE | _ENOSYS)
    allow = (_RETURN, 0, 0, _ALLOW)
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, processor.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if processor.foreign_from:
        lines += [(_JUMP_AT_LEAST, 0, 1, processor.foreign_from), unknown]
    for numbers in _REFUSED.values():
        if numbers[processor.column] >= 0:
            lines += [(_JUMP_EQUAL, 0, 1, numbers[processor.column]), refuse]

    def look_into(name: str, *then: tuple[int, int, int, int]) -> None:
        lines.append((_JUMP_EQUAL, 0, len(then), _LOOKED_INTO[name][processor.column]))
        lines.extend(then)

    # Only streams: a pair of datagram sockets could still be told to whom to send.
    look_into(
        _SOCKETPAIR,
        (_LOAD, 0, 0, _argument(0)),
        (_JUMP_EQUAL, 0, 3, socket.AF_UNIX),
        (_LOAD, 0, 0, _argument(1)),
        (_AND, 0, 0, 0xFF),
        (_JUMP_EQUAL, 1, 0, socket.SOCK_STREAM),
        refuse,
        allow,
    )
    look_into(_CLONE, (_LOAD, 0, 0, _argument(0)), (_JUMP_BITS, 0, 1, _NEW_NAMESPACES), refuse, allow)
    # Its flags are in memory, where a filter cannot look; the C library then takes `clone`.
    look_into(_CLONE3, unknown)
    look_into(_PRLIMIT, (_LOAD, 0, 0, _argument(0)), (_JUMP_EQUAL, 1, 0, 0), refuse, allow)
    return [*lines, allow]


def _argument(number: int) -> int:
    """Return where the lower half of an argument stands; both processors are little-endian."""
    return 16 + 8 * number
