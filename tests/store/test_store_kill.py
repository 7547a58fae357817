from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compiler_daemon.store import Store
from tests.store.store_samples import ENVIRONMENT, assert_whole, config, found, sample

ROUNDS = 20

WRITER = """
import sys
from pathlib import Path
from tests.store.store_samples import ENVIRONMENT, config, put, sample
from compiler_daemon.store import Store

store = Store.open(config(Path(sys.argv[1]), max_bytes=int(sys.argv[3])))
for seed in range(int(sys.argv[2]), int(sys.argv[2]) + 100_000):
    put(store, sample(seed, key=f"key {seed % 5}", size=30_000))
    store.put_graph(ENVIRONMENT, f"key {seed}", b"graph %d" % seed, program="train.py")
    store.add_counts({"puts": 1})
    print(seed, flush=True)
"""


def killed_writer(root: Path, first: int, after_s: float, *, puts: int = 1, max_bytes: int = 2**30) -> list[int]:
    """Run a process that puts one artifact after another; kill it `after_s` seconds after the first `puts` of them.

    Return the seeds of all artifacts whose put had returned.
    """
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), str(first), str(max_bytes)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        assert process.stdout is not None
        seeds = [int(process.stdout.readline()) for _ in range(puts)]
        time.sleep(after_s)
        process.kill()
        return seeds + [int(line) for line in process.stdout if line.endswith("\n")]


@pytest.mark.timeout(120)
def test_nothing_whose_put_returned_is_lost_by_kills_and_nothing_half_is_seen(root: Path) -> None:
    chance = random.Random()
    returned: list[int] = []
    unfinished = 0
    for number in range(ROUNDS):
        seeds = killed_writer(root, number * 100_000, chance.uniform(0.0, 0.05))
        returned += seeds

        with Store.open(config(root)) as store:
            unfinished += store.scan_report.temporary_files + store.scan_report.adopted_blobs
            assert store.scan_report.index_set_aside == ""
            for seed in seeds:
                assert_whole(store, sample(seed, size=30_000, key=f"key {seed % 5}"), key=f"key {seed % 5}")
            keys = {row.key: row.graph for row in store.graphs()}
            assert all(store.get_graph(keys[f"key {seed}"]) == b"graph %d" % seed for seed in seeds)
            # Each kill so far may have left one artifact whose put had not returned.
            assert len(returned) <= len(store.artifacts()) <= len(returned) + number + 1
            assert store.counts()["puts"] >= len(returned)
            assert store.usage().quarantined == 0

    with Store.open(config(root)) as store:
        everything = [artifact for key in range(5) for artifact in store.find(ENVIRONMENT, f"key {key}", limit=10**6)]
        for artifact in everything:
            for blob in artifact.blobs:
                store.read_blob(blob)
        assert len(everything) == len(store.artifacts()) == store.usage().artifacts
        assert found(store, key="key 0")
    print(
        f"{len(returned)} puts returned, {unfinished} unfinished files found after {ROUNDS} kills"
    )  # pytest shows this if the test fails


@pytest.mark.timeout(120)
def test_kills_during_eviction_leave_whole_artifacts_within_the_limit(root: Path) -> None:
    chance = random.Random()
    limit = 400_000
    for number in range(5):
        seeds = killed_writer(root, number * 100_000, chance.uniform(0.0, 0.05), puts=8, max_bytes=limit)

        with Store.open(config(root, max_bytes=limit)) as store:
            kept = {row.digest for row in store.artifacts()}
            assert 3 <= len(kept) <= 6
            assert store.usage().bytes <= limit
            files = [path for kind in ("blobs", "artifacts") for path in (root / kind).rglob("*") if path.is_file()]
            assert sum(path.stat().st_size for path in files) == store.usage().bytes
            for seed in seeds[-3:]:
                assert_whole(store, sample(seed, size=30_000, key=f"key {seed % 5}"), key=f"key {seed % 5}")
            assert {digest for key in range(5) for digest in found(store, key=f"key {key}")} == kept
