"""All scenarios, in the order in which they are played."""

from __future__ import annotations

from dataclasses import dataclass

from tests.fleet_suite.by_pytest import second_s3, slurm
from tests.fleet_suite.cold import cold, redis_killed
from tests.fleet_suite.farm import farm
from tests.fleet_suite.faults import faults
from tests.fleet_suite.hits import hits
from tests.fleet_suite.local_hits import local_hits
from tests.fleet_suite.ranks import ranks
from tests.fleet_suite.row import Play
from tests.fleet_suite.sweep import sweep


@dataclass(frozen=True)
class Scenario:
    """One of the suite."""

    sentence: str
    play: Play


SCENARIOS = {
    "cold": Scenario("A fleet starts with nothing compiled.", cold),
    "redis-killed": Scenario("The tier's server dies while a fleet is at work.", redis_killed),
    "sweep": Scenario("`warm --share` of one sweep on two nodes.", sweep),
    "farm": Scenario("A Dask scheduler with two workers compiles for a daemon, over TLS.", farm),
    "hits": Scenario("A hit in the tier beside a hit in the node's own store.", hits),
    "local-hits": Scenario("What this node has, while its tier hangs.", local_hits),
    "ranks": Scenario("One job of ranks over two nodes (`torchrun`, gloo).", ranks),
    "faults": Scenario("Faults of the tier, on each engine.", faults),
    "slurm": Scenario("The Slurm guide's own files on a real Slurm of two nodes.", slurm),
    "second-s3": Scenario("What is expected of a bucket, held against moto: a second opinion.", second_s3),
}
