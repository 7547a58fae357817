"""What Triton reads while it compiles is in the key of a graph, or has been looked at and left out with a reason."""

from __future__ import annotations

import pytest

from compile_torch.key.compile_reads import VARIABLES, variables_set
from compile_torch.key.triton_reads import TRITON_VARIABLES, TRITON_VARIABLES_WITHOUT_EFFECT
from tests.kernels.conftest import needs_triton
from tools.triton_reads import counted_variables, declared_variables, unsorted_variables


@needs_triton
def test_every_variable_that_this_triton_reads_has_been_looked_at() -> None:
    assert unsorted_variables() == []


@needs_triton
def test_what_triton_counts_into_its_own_keys_is_in_a_graphs_key_and_what_it_declares_is_found() -> None:
    counted = counted_variables()
    assert len(counted) > 30
    assert counted <= TRITON_VARIABLES
    assert {"TRITON_PTXAS_BLACKWELL_PATH", "PTXAS_OPTIONS", "TRITON_CACHE_DIR"} <= declared_variables()


def test_no_variable_of_tritons_is_sorted_twice_and_those_of_the_compiler_are_among_all() -> None:
    assert not TRITON_VARIABLES & set(TRITON_VARIABLES_WITHOUT_EFFECT)
    assert TRITON_VARIABLES <= VARIABLES


def test_a_process_that_fuses_otherwise_has_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert variables_set() == []
    monkeypatch.setenv("TRITON_FORCE_DISABLE_FP_FUSION", "1")
    assert variables_set() == [["l", "TRITON_FORCE_DISABLE_FP_FUSION", "1"]]
