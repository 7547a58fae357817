"""A part of the fault matrix: each step, and each kind of harm that has code of its own. `make matrix` plays it all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.cell import FAULTS, STEPS, Cell
from tests.faults.cells import CELLS
from tests.faults.kit import HAS_TRITON, Kit
from tests.faults.playing import play
from tests.faults.small_disk import can_mount

_SLICE = (
    ("SIGSTOP", "handshake"),
    ("wrong key", "lookup"),
    ("kill -9", "compile queued"),
    ("worker killed", "compile running"),
    ("connection cut", "artifact transfer"),
    ("garbage reply", "install"),
    ("disk full", "publish"),
    ("clock jump", "lookup"),
    ("worker killed", "kernel compile"),
)


_OF_A_MINUTE = {("worker killed", "compile running")}


@pytest.mark.parametrize(
    ("fault", "step"),
    [pytest.param(*one, marks=[pytest.mark.slow] if one in _OF_A_MINUTE else [], id="-".join(one)) for one in _SLICE],
)
@pytest.mark.timeout(600)
def test_a_trainer_goes_on_as_if_there_were_no_daemon(kit: Kit, short_folder: Path, fault: str, step: str) -> None:
    cell = CELLS[fault, step]
    if fault == "disk full" and not can_mount():
        pytest.skip("only root may mount the small filesystem that is filled")

    if cell.of_kernels and not HAS_TRITON:
        pytest.skip("triton is not installed: pip install triton")
    result = play(cell, kit, short_folder / f"{STEPS.index(step)}-{FAULTS.index(fault)}")

    assert result.passed, result.failure


def test_the_matrix_has_a_cell_for_every_fault_at_every_step() -> None:
    assert set(CELLS) == {(fault, step) for fault in FAULTS for step in STEPS}
    assert len(CELLS) == 88
    assert all(isinstance(cell, Cell) and cell.counters and cell.what for cell in CELLS.values())
    assert {step for _, step in _SLICE} == set(STEPS)
