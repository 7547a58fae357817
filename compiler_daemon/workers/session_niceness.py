"""How nice a worker's whole session is: whether a training beside it goes first.

Where the kernel shares the processors out among sessions first (`sched_autogroup`, which most distributions switch on),
a process's niceness counts within its session only: a worker, which has a session of its own, would have as much of a
core as the trainer in the next terminal, however nice it is. And the niceness of a process can only be raised without
rights, while that of a session can be taken back when somebody comes to wait for the worker.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

_TRIES, _PAUSE_S = 6, 0.05
"""Without rights the kernel takes one change in a tenth of a second, of the whole machine's sessions."""


def set_session_niceness(leader: int, niceness: int) -> None:
    """Make the session that this process leads so nice; nothing happens where the kernel does not group by session."""
    place = Path(f"/proc/{leader}/autogroup")
    for left in reversed(range(_TRIES)):
        try:
            place.write_text(str(niceness))
        except BlockingIOError:
            if left:
                time.sleep(_PAUSE_S)
        except OSError:
            return
        else:
            return


def session_niceness(leader: int, processes: Path = Path("/proc")) -> int | None:
    """Return how nice the session is that this process leads; None where the kernel does not group by session.

    A process whose session is as old as the machine has no group, and its file is empty.
    """
    with contextlib.suppress(OSError, ValueError):
        _, _, niceness = (processes / str(leader) / "autogroup").read_text().rpartition(" ")
        return int(niceness)
    return None
