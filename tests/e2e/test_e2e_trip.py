"""A graph's bytes take a short way from where they are captured to gRPC, and ARCHITECTURE.md shows this way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import Daemon, Lab

_FROM = "graphs/graph_compile.py _query_daemon"
"""This function captures the graph and asks the daemon."""


@pytest.mark.slow
def test_a_graph_reaches_the_socket_through_at_most_five_functions(one_lab: Lab, daemon: Daemon) -> None:
    trips = one_lab.run("trip.py", daemon=daemon, bare=True).result

    trip = trips["CompileGraphRequest"]
    trip = trip[trip.index(_FROM) :]
    assert len(trip) <= 5, trip
    assert len(trips["LookupArtifactRequest"]) - trips["LookupArtifactRequest"].index(_FROM) <= 5
    architecture = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text()
    drawn = [line.strip() for line in architecture.splitlines() if line.startswith("  compile_client/")]
    assert drawn == [f"compile_client/{step.replace(' ', ', in ')}" for step in trip]
