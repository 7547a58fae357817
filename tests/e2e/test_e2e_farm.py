"""Where the daemon has a farm, a confined worker on the farm's node checks a trainer's graph, compiles and packs it."""

from __future__ import annotations

import importlib.util

import pytest

from tests.daemon.farm.farm_samples import STARTS_S, Certificates, DaskFarm
from tests.e2e.conftest import Daemon, Lab, clean_environment, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="Dask is not installed"),
]


def test_a_trainers_graph_is_compiled_on_a_node_of_the_farm_and_served_by_the_daemon(lab: Lab) -> None:
    certificates = Certificates(lab.folder / "tls")
    with DaskFarm(lab.folder / "farm", certificates) as farm:
        farm.add_worker(environ=clean_environment(TMPDIR=str(lab.temporary)))
        options = ("--farm", farm.address, "--farm-wait", "30", "--no-prewarm", "--require-sandbox")
        files = {
            "COMPILER_DAEMON_FARM_CA": str(certificates.ca),
            "COMPILER_DAEMON_FARM_CERTIFICATE": str(certificates.certificate),
            "COMPILER_DAEMON_FARM_KEY": str(certificates.key),
        }
        daemon = Daemon(lab.folder / "daemon", lab.temporary, options, files).start()
        lab.also(daemon)
        wait_until(lambda: "at once for environment" in daemon.log(), what="an offer", timeout_s=2 * STARTS_S)

        trained = lab.start("perceptron.py", daemon=daemon).wait()

    report, counters = trained.report, daemon.counters()
    assert (report["compiled_by_daemon"], report["compiled_here"]) == (1, 0)
    assert (counters["farm_compiles"], counters.get("farm_away", 0), counters.get("workers_lost", 0)) == (1, 0, 0)
    assert counters.get("workers_started", 0) == 0, "a worker of this machine was started"
