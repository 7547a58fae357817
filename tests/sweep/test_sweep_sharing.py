from __future__ import annotations

from pathlib import Path

import pytest

from compiler_daemon.admin.answers import DaemonState
from compiler_daemon.admin.keys import signers
from compiler_daemon.admin.sweep.cell import CellResult, WarmResult
from compiler_daemon.admin.sweep.plan import Cell, from_options
from compiler_daemon.admin.sweep.sharing import Shares, check_can_share, in_own_order, seed_of_this_process
from compiler_daemon.errors import UsageError

CELLS = from_options(["train", "{a}{b}"], ["a=1,2,3,4", "b=1,2,3,4"])


def result(*rows: tuple[str, str, str]) -> CellResult:
    described = Cell(sweep="", values=(), command=("train",))
    made = tuple(
        WarmResult(key=key, code="f", outcome=outcome, seconds=1.0, why="", host=host) for key, outcome, host in rows
    )
    return CellResult(cell=described, seconds=1.0, rows=made)


def test_each_seed_has_its_own_order_of_the_same_cells_and_keeps_it() -> None:
    orders = [in_own_order(CELLS, seed) for seed in ("node-1", "node-2", "node-3")]

    assert all(sorted(order, key=CELLS.index) == CELLS for order in orders)
    assert len({tuple(cell.label for cell in order) for order in orders}) == 3
    assert in_own_order(CELLS, "node-1") == orders[0]


def test_a_cell_more_leaves_the_order_of_the_others_as_it_was() -> None:
    fewer = CELLS[:5] + CELLS[6:]

    assert in_own_order(fewer, "node-1") == [cell for cell in in_own_order(CELLS, "node-1") if cell != CELLS[5]]


def test_nodes_begin_with_different_cells() -> None:
    firsts = {in_own_order(CELLS, f"node-{number}")[0].label for number in range(16)}

    assert len(firsts) >= 8


def test_the_seed_names_host_and_process() -> None:
    import os
    import socket

    assert seed_of_this_process() == f"{socket.gethostname()}-{os.getpid()}"


def test_a_graph_of_several_cells_counts_once_and_by_its_maker() -> None:
    shares = Shares.of(
        [
            result(("mine", "compiled", ""), ("theirs", "elsewhere", "node-2"), ("old", "there", "")),
            result(("mine", "there", ""), ("theirs", "there", ""), ("more", "elsewhere", "node-3")),
            result(("old", "repeated", ""), ("odd", "here", ""), ("more", "elsewhere", "node-3")),
            result(("last", "elsewhere", "node-3"), ("refused", "refused", "")),
        ]
    )

    assert (shares.here, shares.elsewhere, shares.found, shares.by_trainers) == (1, 3, 1, 1)
    assert shares.hosts == (("node-3", 2), ("node-2", 1))
    assert shares.sentence == (
        "6 graphs: 1 compiled on this node, 3 on other nodes (node-3 2, node-2 1), 1 found, 1 compiled by a trainer"
    )


def test_a_daemon_without_a_tier_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="serve --tier"):
        check_can_share(DaemonState.of({"tiers": [], "directory": "/elsewhere"}), tmp_path)


def test_a_daemon_that_says_nothing_of_tiers_is_not_refused_for_it(tmp_path: Path) -> None:
    check_can_share(DaemonState.of({"directory": "/elsewhere"}), tmp_path)


def test_a_daemon_without_a_signer_is_refused_until_it_has_one(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir(mode=0o700)
    state = DaemonState.of({"tiers": [{"address": "file:///t"}], "directory": str(directory)})

    with pytest.raises(UsageError, match="keys signer init"):
        check_can_share(state, directory)

    signers.init(directory, "lab-1", renew=False)
    check_can_share(state, directory)
