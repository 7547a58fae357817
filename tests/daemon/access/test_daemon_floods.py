"""A daemon under floods of a few seconds each stays small and goes on answering others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.flood_samples import FLOODS, Noticed, Scene, flooded

MOST_MIB = 300.0
MOST_MS = 200.0
MOST_PER_S = 1000.0
"""Ten times as many fill every place between two looks of a daemon that shares two cores with them, and how many of the
others are turned away then says how fast this machine is: `tools/floods.py` counts it."""


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="floods-") as folder, flooded(Path(folder) / "d") as made:
        yield made


@pytest.fixture(scope="module")
def quiet(scene: Scene) -> dict[str, Noticed]:
    """Measure the daemon without a flood, because this machine does other things, too."""
    return {name: scene.run(name, 2.0) for name in FLOODS if name.startswith("quiet")}


@pytest.mark.parametrize("flood", [name for name in FLOODS if not name.startswith("quiet")])
def test_a_flood_costs_neither_memory_nor_other_clients_answers(
    scene: Scene, quiet: dict[str, Noticed], flood: str
) -> None:
    before = quiet["quiet, new connections" if FLOODS[flood][1] else "quiet"]

    noticed = scene.run(flood, 4.0, per_s=MOST_PER_S)

    assert noticed.attempts > 0
    assert noticed.calls > 10
    assert noticed.rss_mib < MOST_MIB, noticed
    # With so few calls the slowest percent shows what else the machine does; `tools/floods.py` looks at that.
    assert noticed.p90_ms < max(MOST_MS, 10 * before.p99_ms), (noticed, before)
    assert noticed.failed <= noticed.calls // 10, noticed
    assert noticed.environments_kib < 64
