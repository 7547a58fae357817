from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from compiler_daemon import metrics
from compiler_daemon.insight.status import DaemonStatus


class SlowStore:
    """A store whose writes wait until the test lets the disk go on."""

    def __init__(self) -> None:
        self.saved: dict[str, int] = {metrics.LOOKUPS: 10}
        self.writing = threading.Event()
        self.disk = threading.Event()

    def usage(self) -> Any:
        return SimpleNamespace(artifacts=0, blobs=0, bytes=0, max_bytes=1)

    def counts(self) -> dict[str, int]:
        return dict(self.saved)

    def add_counts(self, counts: dict[str, int]) -> None:
        self.writing.set()
        assert self.disk.wait(20)
        for name, amount in counts.items():
            self.saved[name] += amount


class NoPool:
    queued = 0

    def sandbox(self) -> str:
        return ""

    async def views(self) -> list[Any]:
        return []


def test_a_total_never_falls_while_counts_are_being_saved(tmp_path: Path) -> None:
    store, counters = SlowStore(), metrics.Counters()
    stand_ins: dict[str, Any] = {"store": store, "pool": NoPool(), "single_flight": SimpleNamespace(quarantined=list)}

    async def look_meanwhile() -> int:
        status = DaemonStatus(**stand_ins, counters=counters, directory=tmp_path)
        counters.add(metrics.LOOKUPS, 3)
        saving = asyncio.create_task(status.save())
        await asyncio.to_thread(store.writing.wait, 20)
        looking = asyncio.create_task(status.snapshot())
        await asyncio.wait([looking], timeout=0.1)  # a snapshot that does not wait for the disk has ended by now
        store.disk.set()
        await saving
        return (await looking).counters[metrics.LOOKUPS]

    assert asyncio.run(look_meanwhile()) == 13
