"""A tier that hangs, lies or is full of junk costs a daemon's trainers a little time, and never gives a wrong byte."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benches.harness.redis_server import RedisServer, redis_running
from compile_wire.manifest import manifest_digest
from compile_wire.v1 import compiler_daemon_pb2 as pb
from tests.daemon.tier.node_samples import Node, started

_DAMAGES = 500


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_running(tmp_path) as server:
        yield server


def lookups(node: Node, keys: list[str]) -> list[float]:
    """Look each key up; return how long each lookup took."""
    took = []
    for key in keys:
        begun = time.monotonic()
        node.lookup(key)
        took.append(time.monotonic() - begun)
    return took


def test_a_tier_that_hangs_costs_a_lookup_its_budget_once_and_then_nothing(tmp_path: Path, redis: RedisServer) -> None:
    (node,) = one = [Node(tmp_path / "a", f"unix://{redis.path}")]
    with contextmanager(started)(one):
        node.compiled("here", b"ok")
        plain = statistics.median(lookups(node, ["here"] * 50))
        os.kill(redis.pid, signal.SIGSTOP)
        try:
            hanging = lookups(node, [f"k{number}" for number in range(8)])
            assert max(hanging) < 0.3 + 0.25, "the budget, and what a busy machine adds"
            after = lookups(node, [f"m{number}" for number in range(50)])
            local = lookups(node, ["here"] * 50)
        finally:
            os.kill(redis.pid, signal.SIGCONT)

        assert statistics.median(after) < 0.05, "a tier that is left alone still costs time"
        assert statistics.median(local) < max(3 * plain, 0.02)
        assert node.counted("tier_late") >= 1
        assert isinstance(node.compiled("k-new", b"ok"), pb.ArtifactEntry)


def test_a_tier_that_is_gone_costs_neither_a_compile_nor_an_answer(tmp_path: Path) -> None:
    (node,) = one = [Node(tmp_path / "a", f"unix://{tmp_path}/nobody.sock")]
    with contextmanager(started)(one):
        assert isinstance(node.compiled("k1", b"ok"), pb.ArtifactEntry)
        assert len(node.lookup("k1")) == 1


def _objects(tier: Path) -> list[Path]:
    return sorted(path for path in (tier / "v1").rglob("*") if path.is_file())


def test_nothing_of_a_changed_object_is_served(tmp_path: Path) -> None:
    tier = tmp_path / "tier"
    tier.mkdir()
    a, b = both = [Node(tmp_path / name, f"file://{tier}") for name in "ab"]
    chance = random.Random(0)
    with contextmanager(started)(both):
        made = a.compiled("k1", b"ok")
        other = a.compiled("k2", b"ok")
        assert isinstance(made, pb.ArtifactEntry)
        assert isinstance(other, pb.ArtifactEntry)
        one, two = _objects(tier)
        texts = {path: path.read_bytes() for path in (one, two)}
        mine = next(path for path, data in texts.items() if b"k1" in data)
        good, foreign = texts[mine], texts[two if mine == one else one]

        for number in range(_DAMAGES):
            mine.write_bytes(_damaged(good, foreign, number, chance))
            assert b.lookup("k1") == [], number

        mine.write_bytes(good)
        assert [manifest_digest(entry.manifest) for entry in b.lookup("k1")] == [manifest_digest(made.manifest)]
        status = b.status().counters
        assert status["tier_rejected"] == _DAMAGES
        assert b.process.poll() is None


def _damaged(good: bytes, foreign: bytes, number: int, chance: random.Random) -> bytes:
    if number % 50 == 0:
        return foreign
    if number % 10 == 1:
        return good[: chance.randrange(len(good))]
    if number % 10 == 2:
        return good + chance.randbytes(1 + chance.randrange(8))
    place = chance.randrange(len(good))
    return good[:place] + bytes([good[place] ^ (1 << chance.randrange(8))]) + good[place + 1 :]


def test_slots_full_of_junk_cost_bounded_reads_and_no_compile(tmp_path: Path) -> None:
    tier = tmp_path / "tier"
    tier.mkdir()
    a, b = both = [Node(tmp_path / name, f"file://{tier}") for name in "ab"]
    with contextmanager(started)(both):
        a.compiled("k1", b"ok")
        (first,) = _objects(tier)
        for slot in range(100):
            first.with_name(str(slot)).write_bytes(b"junk" * 1000)

        assert b.lookup("k1") == []
        read = b.counted("tier_bytes_read")
        assert read <= 3 * 4000, "it read on through the junk"
        assert isinstance(b.compiled("k1", b"ok"), pb.ArtifactEntry)
        assert len(b.lookup("k1")) == 1, "what it compiled itself"
