"""A cache that quietly does nothing must not pass for one that works: every compile in a trainer needs a reason."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Daemon, Lab, check_accounts


def test_a_client_that_installs_nothing_compiles_here_and_says_that_torch_accepted_nothing(
    one_lab: Lab, daemon: Daemon
) -> None:
    one_lab.run("sabotaged.py", "none", "22", daemon=daemon)

    outcome = one_lab.run("sabotaged.py", "nothing", "22", daemon=daemon)

    assert outcome.report["refused"] == {"not_loaded": 1}
    assert outcome.report["hits"] == outcome.report["compiled_by_daemon"] == 0
    assert "torch accepts nothing" in outcome.err


def test_a_compile_without_any_reason_fails_whoever_runs_it_against_a_daemon_that_is_well(
    one_lab: Lab, daemon: Daemon
) -> None:
    outcome = one_lab.run("sabotaged.py", "unseen", "24", daemon=daemon, healthy=False)

    assert outcome.report["compiled_here"] == 1
    assert outcome.report["refused"] == outcome.report["fallbacks"] == {}
    with pytest.raises(AssertionError, match="without a reason"):
        check_accounts(outcome.report)
