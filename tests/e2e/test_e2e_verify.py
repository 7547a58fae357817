"""With verification on, the trainer also compiles hits itself; a difference is found, reported and not served again."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Lab

VERIFY = {"TORCH_COMPILE_CLIENT_VERIFY": "1"}
WEAKENED = {"COMPILE_DAEMON_TEST_WEAKEN": "sharing"}


@pytest.mark.slow
def test_what_the_daemon_compiles_and_serves_is_what_torch_makes_here(lab: Lab) -> None:
    daemon = lab.daemon()
    cold = lab.run("perceptron.py", "5", "7", daemon=daemon, **VERIFY)
    warm = lab.run("perceptron.py", "5", "7", daemon=daemon, **VERIFY)
    plain = lab.run("perceptron.py", "5", "7")

    assert cold.report["compiled_by_daemon"] == cold.report["verified"] == 2
    assert warm.report["hits"] == warm.report["verified"] == 2
    assert cold.report["mismatches"] == warm.report["mismatches"] == 0
    assert cold.result == warm.result == plain.result


@pytest.mark.slow
def test_an_artifact_with_other_code_is_found_out_and_served_to_nobody_any_more(lab: Lab) -> None:
    daemon = lab.daemon()
    expected = lab.run("sharing.py", "shared").result
    lab.run("sharing.py", "apart", daemon=daemon, healthy=False, **WEAKENED)

    # The weakened key leaves out which inputs share memory, so the trainer is served the other program's artifact.
    fooled = lab.run("sharing.py", "shared", daemon=daemon, healthy=False, **WEAKENED)
    found = lab.run("sharing.py", "shared", daemon=daemon, healthy=False, **WEAKENED, **VERIFY)
    after = lab.run("sharing.py", "shared", daemon=daemon, healthy=False, **WEAKENED)

    assert fooled.report["hits"] == 1
    assert fooled.result != expected
    assert found.report["mismatches"] == found.report["verified"] == 1
    assert found.report["fallbacks"] == {"mismatch": 1}
    assert found.err.count("code is another") == 1
    assert found.result == expected
    assert daemon.counters()["artifacts_disputed"] == 1
    assert after.report["hits"] == 1
    assert after.result == expected


@pytest.mark.slow
def test_code_that_differs_because_torch_chooses_by_measuring_is_nobodys_fault(lab: Lab) -> None:
    daemon = lab.daemon()
    first = lab.run("autotuned.py", "52", daemon=daemon)
    again = [lab.run("autotuned.py", "52", favourite, daemon=daemon, **VERIFY) for favourite in ("cpp", "bmm")]

    assert [run.report["hits"] for run in again] == [1, 1]
    assert all(run.result["measured"] for run in again)  # else nothing was chosen again
    assert sum(run.report["unsettled"] for run in again) >= 1  # the worker's choice is not both
    assert [run.report["mismatches"] for run in again] == [0, 0]
    assert [run.result["numbers"] for run in again] == [first.result["numbers"]] * 2
    assert daemon.counters().get("artifacts_disputed", 0) == 0


@pytest.mark.slow
def test_without_the_switch_nothing_is_compiled_twice(lab: Lab) -> None:
    daemon = lab.daemon()
    lab.run("perceptron.py", "5", daemon=daemon)
    warm = lab.run("perceptron.py", "5", daemon=daemon)

    assert warm.report["hits"] == 1
    assert warm.report["verified"] == warm.report["cpp_builds"] == 0
