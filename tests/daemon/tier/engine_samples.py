from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from compiler_daemon.tier.address import TierAddress
from tests.daemon.daemon_process import wait_until


@dataclass(frozen=True)
class Place:
    """The address of a test's tier, and the variables that are needed to reach it."""

    address: TierAddress
    environ: Mapping[str, str] = field(default_factory=dict)


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process while the block lasts; wait first until each of its threads has stopped."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: all(_stands(task) for task in Path(f"/proc/{pid}/task").iterdir()), what="it stands")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _stands(task: Path) -> bool:
    return "\nState:\tT" in (task / "status").read_text()
