"""A worker confines itself before it imports torch or reads a job: to files it needs, and to no network at all.

The daemon says in a variable what the worker's own folder is and what must stay hidden; without the variable nothing
happens. What the worker did it says in its hello. Nobody's graph has been near the process by then, so that its word is
the daemon's own code speaking.
"""

from __future__ import annotations

import json
import os
import pwd
import threading
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from compiler_daemon.worker.confinement import landlock, system_calls
from compiler_daemon.worker.confinement.places import SYSTEM, CannotConfineError, places

VARIABLE = "COMPILER_DAEMON_CONFINE"


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Says how a worker is to confine itself, as the daemon tells it."""

    scratch: Path
    """The worker's own folder."""
    readable: tuple[Path, ...] = ()
    """Beside what its interpreter needs."""
    hidden: tuple[Path, ...] = ()
    """Beside the home."""

    def encode(self) -> str:
        """Return it as a variable's text."""
        lists = {"readable": [str(path) for path in self.readable], "hidden": [str(path) for path in self.hidden]}
        return json.dumps({"scratch": str(self.scratch), **lists})

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return what `encode` was given."""
        told: dict[str, Any] = json.loads(text)
        return cls(
            scratch=Path(told["scratch"]),
            readable=tuple(map(Path, told["readable"])),
            hidden=tuple(map(Path, told["hidden"])),
        )


def why_not() -> str:
    """Say why no worker can be confined on this machine; nothing where one can."""
    version = landlock.abi()
    if not version:
        return "this kernel has no Landlock, or has it switched off"
    if version < landlock.OLDEST_ABI:
        return f"this kernel's Landlock is of version {version}, and {landlock.OLDEST_ABI} is the first that will do"
    if not system_calls.is_known_here():
        return "the system calls of this processor are not known"
    return ""


def in_words() -> str:
    """Say what holds a worker that is confined."""
    return f"Landlock version {landlock.abi()}, system calls filtered, no network"


def confine(environ: MutableMapping[str, str] = os.environ) -> str:
    """Confine this process as the daemon ordered; return nothing, or why it is not confined.

    Threads that there are already would stay free, so it is called before any is started.
    """
    text = environ.pop(VARIABLE, "")
    if not text:
        return "nobody asked for it"
    order = Order.decode(text)
    if reason := why_not():
        return reason
    if threading.active_count() > 1 or len(os.listdir("/proc/self/task")) > 1:
        return "there are threads already"
    hidden = [*order.hidden, *_homes()]
    try:
        found = places(scratch=order.scratch, readable=order.readable, hidden=hidden, environ=environ)
        user = pwd.getpwuid(os.getuid()).pw_name
        landlock.restrict(read=found.read, own=found.own, devices=found.devices)
        system_calls.refuse()
    except (CannotConfineError, OSError, KeyError) as error:
        return str(error)
    # What asks for the user's name would look into files that are out of reach by now; what asks for the home gets one.
    environ.setdefault("USER", user)
    environ["HOME"] = str(order.scratch)
    return ""


def _homes() -> list[Path]:
    homes = [Path.home()]
    with suppress(KeyError):
        homes.append(Path(pwd.getpwuid(os.getuid()).pw_dir))
    # An account of the system's may have /usr/sbin for a home, where nothing of its own is.
    return [home for home in homes if home != Path("/") and not any(home.is_relative_to(place) for place in SYSTEM)]
