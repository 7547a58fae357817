"""With `warm --share`, several nodes run one sweep against a tier. Daemons and leases are real, trainers lack torch."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from compiler_daemon.admin.keys import signers
from compiler_daemon.tier.leases import LeaseConfig
from tests.daemon.daemon_process import DEADLINE_S, DaemonProcess, wait_until

GRAPHS = tuple(f"{letter}{digit}" for letter in "abc" for digit in "12")
MATRIX = ("--matrix", "letter=a,b,c", "--matrix", "digit=1,2")
TRAINER = (sys.executable, "-m", "tests.daemon.asking_trainer")
CELLS = (*MATRIX, "--", *TRAINER, "key-{letter}{digit}=ok 0.3 #{letter}{digit}")


def warm(node: DaemonProcess, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "compiler_daemon",
            "warm",
            "--json",
            "--share",
            "--dir",
            str(node.directory),
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], *, code: int = 0) -> tuple[dict[str, Any], str]:
    out, err = process.communicate(timeout=5 * DEADLINE_S)
    assert process.returncode == code, err
    return (json.loads(out) if out else {}), err


def compiles(*nodes: DaemonProcess) -> Counter[str]:
    """Return how often the nodes together gave each graph to a worker."""
    return Counter(graph for node in nodes for graph in GRAPHS for _ in node.jobs(f"key-{graph}"))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[list[DaemonProcess]]:
    (tmp_path / "tier").mkdir()
    nodes = [
        DaemonProcess(
            tmp_path / name,
            tier={"places": [f"file://{tmp_path / 'tier'}"]},
            pool={"max_workers": 1},
            daemon={"drain_s": 0.5},
        )
        for name in ("n1", "n2")
    ]
    for node in nodes:
        node.directory.mkdir(mode=0o700)
    lines = [signers.init(node.directory, f"{node.directory.name}-1", renew=False).line for node in nodes]
    for node, other in zip(nodes, reversed(lines), strict=True):
        signers.trust(node.directory, other)
    with ExitStack() as stack:
        yield [stack.enter_context(node) for node in nodes]


def test_nodes_that_run_one_sweep_compile_each_graph_once_and_have_all_of_them(fleet: list[DaemonProcess]) -> None:
    runs = [warm(node, "--jobs", "4", *CELLS) for node in fleet]
    documents = [ended(run)[0] for run in runs]

    assert compiles(*fleet) == dict.fromkeys(GRAPHS, 1)
    shared = [document["shared"] for document in documents]
    assert sum(part["on_this_node"] for part in shared) == len(GRAPHS)
    assert all(part["on_this_node"] + part["on_other_nodes"] + part["found"] == len(GRAPHS) for part in shared)
    assert all(part["on_this_node"] for part in shared), "one node did all of the work"
    assert all(sum(part["hosts"].values()) == part["on_other_nodes"] for part in shared)
    for node in fleet:
        assert all(node.lookup(f"key-{graph}") for graph in GRAPHS)


def test_a_second_node_that_comes_later_compiles_nothing_and_says_where_all_came_from(
    fleet: list[DaemonProcess],
) -> None:
    first, second = fleet
    before, _ = ended(warm(first, *CELLS))
    after, _ = ended(warm(second, *CELLS))
    again, _ = ended(warm(second, *CELLS))

    assert before["shared"]["on_this_node"] == after["shared"]["on_other_nodes"] == len(GRAPHS)
    assert after["compiled"] == after["shared"]["on_this_node"] == 0
    assert after["on_other_nodes"] == sum(cell["on_other_nodes"] for cell in after["cells"]) == len(GRAPHS)
    assert (again["shared"]["found"], again["shared"]["on_other_nodes"]) == (len(GRAPHS), 0)
    assert not second.jobs("key-a1")


def test_what_a_node_had_in_hand_when_it_died_is_compiled_by_the_others(fleet: list[DaemonProcess]) -> None:
    dying, other = fleet
    slow = ("--", *TRAINER, "key-a1=ok 3 #a1")
    lost = warm(dying, *slow)
    wait_until(lambda: dying.jobs("key-a1"), what="the first node compiles it")
    waiting = warm(other, *slow)
    wait_until(lambda: other.status().counters.get("tier_waited", 0), what="the other node waits for it")

    dying.kill()
    document, _ = ended(waiting)
    lost.communicate(timeout=5 * DEADLINE_S)

    assert document["failed"] == 0
    assert document["shared"]["on_this_node"] == 1
    assert len(other.jobs("key-a1")) == 1


def test_a_node_that_is_drained_in_the_middle_leaves_no_lease_that_others_wait_for(fleet: list[DaemonProcess]) -> None:
    first, second = fleet
    ending = warm(first, "--", *TRAINER, "key-a1=ok 30 #a1")
    wait_until(lambda: first.jobs("key-a1"), what="the first node compiles it")

    ending.send_signal(signal.SIGTERM)
    assert ending.wait(DEADLINE_S) == 130
    first.process.send_signal(signal.SIGTERM)
    first.process.wait(DEADLINE_S)
    began = time.monotonic()
    second.handshake()
    entry = second.compiled("key-a1", b"ok 0 #a1")
    took_s = time.monotonic() - began
    ending.communicate()

    assert entry.DESCRIPTOR.name == "ArtifactEntry"
    assert took_s < LeaseConfig().ttl_s / 2, "the lease had to run out"


def test_text_says_who_compiled_what_and_in_which_order_the_cells_were(fleet: list[DaemonProcess]) -> None:
    arguments = ["warm", "--share", "--seed", "one", "--dir", str(fleet[0].directory), *CELLS]
    done = subprocess.run(
        [sys.executable, "-m", "compiler_daemon", *arguments], capture_output=True, text=True, timeout=60, check=True
    )

    assert "--seed one" in done.stderr
    assert done.stdout.splitlines()[-1] == "6 graphs: 6 compiled on this node, 0 on other nodes, 0 found"


WAS_RUN = ("--", sys.executable, "-c", "raise SystemExit('was run')")


def test_a_daemon_without_a_tier_is_refused_with_what_to_do(daemon: DaemonProcess) -> None:
    _, talk = ended(warm(daemon, *WAS_RUN), code=2)

    assert "serve --tier" in talk
    assert "was run" not in talk


def test_a_daemon_that_signs_nothing_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "tier").mkdir()
    with DaemonProcess(tmp_path / "d", tier={"places": [f"file://{tmp_path / 'tier'}"]}) as daemon:
        _, talk = ended(warm(daemon, *WAS_RUN), code=2)

    assert "keys signer init" in talk
    assert "was run" not in talk


def test_a_seed_without_sharing_is_wrong_use(daemon: DaemonProcess) -> None:
    arguments = ["warm", "--seed", "x", "--dir", str(daemon.directory), "--", "true"]
    done = subprocess.run(
        [sys.executable, "-m", "compiler_daemon", *arguments], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 2
    assert "--share" in done.stderr
