"""With inductor's max-autotune, what one worker has measured is never measured again."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Daemon, Lab


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_a_worker_has_chosen_by_measuring_is_served_without_a_measurement(one_lab: Lab, daemon: Daemon) -> None:
    alone = one_lab.start("autotuned.py", "48", bare=True)
    first = one_lab.run("autotuned.py", "48", daemon=daemon, bare=True)
    second = one_lab.run("autotuned.py", "48", daemon=daemon, bare=True)
    by_itself = alone.wait()

    assert by_itself.result["measured"] >= 2  # otherwise there is nothing to choose, and the test shows nothing
    assert (first.report["compiled_by_daemon"], first.result["measured"]) == (1, 0)
    assert (second.report["hits"], second.result["measured"], second.report["cpp_builds"]) == (1, 0, 0)
    assert by_itself.result["autotunes"] >= 1  # the count that the benches use
    assert first.result["autotunes"] == second.result["autotunes"] == 0
    assert second.result["numbers"] == first.result["numbers"]
