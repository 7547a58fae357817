"""Whatever happens to the daemon, the trainer ends with exit code 0 and the same numbers as without a daemon."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import Daemon, Lab, Outcome, wait_until
from tests.e2e.flipping_proxy import FlippingProxy


@pytest.fixture(scope="session")
def alone(one_lab: Lab) -> Outcome:
    """Return the outcome of a trainer without a daemon."""
    return one_lab.run("perceptron.py", "5", "7")


def went_on(outcome: Outcome, alone: Outcome) -> None:
    assert outcome.code == 0, outcome.err
    assert outcome.result == alone.result
    assert outcome.report["graphs"] == 2
    assert outcome.report["compiled_here"] + outcome.report["compiled_by_daemon"] + outcome.report["hits"] == 2


def test_without_a_daemon_torch_compiles_and_it_is_said_once(one_lab: Lab, alone: Outcome, tmp_path: Path) -> None:
    outcome = one_lab.run("perceptron.py", "5", "7", daemon=tmp_path / "nobody")

    went_on(outcome, alone)
    assert outcome.report["compiled_here"] == 2
    assert outcome.report["fallbacks"] == {"absent": 2}
    assert outcome.err.count("compiler-daemon serve") == 1


def test_a_daemon_killed_during_a_compile_costs_that_graph_and_nothing_else(lab: Lab, alone: Outcome) -> None:
    daemon = lab.daemon()
    trainer = lab.start("perceptron.py", "5", "7", daemon=daemon)
    wait_until(lambda: daemon.counters().get("compiles_started"), what="a compile started")

    daemon.kill()
    outcome = trainer.wait()

    went_on(outcome, alone)
    assert outcome.report["compiled_here"] == 2
    assert outcome.report["fallbacks"]["unavailable"] >= 1


@pytest.mark.parametrize(
    "snapshot", ["before_the_handshake", pytest.param("during_the_compile", marks=pytest.mark.slow)]
)
def test_a_stopped_daemon_is_given_up_within_the_deadlines(lab: Lab, alone: Outcome, snapshot: str) -> None:
    daemon = lab.daemon()
    if snapshot == "before_the_handshake":
        daemon.signal(signal.SIGSTOP)
    trainer = lab.start("perceptron.py", "5", "7", daemon=daemon)
    if snapshot == "during_the_compile":
        wait_until(lambda: daemon.counters().get("compiles_started"), what="a compile started")
        daemon.signal(signal.SIGSTOP)
    outcome = trainer.wait()

    went_on(outcome, alone)
    assert outcome.report["compiled_here"] == 2
    assert outcome.report["fallbacks"]["timeout"] >= 1
    assert outcome.report["seconds_waited"] < 30


def test_a_deadline_of_the_users_is_kept(lab: Lab, alone: Outcome) -> None:
    outcome = lab.run("perceptron.py", "5", "7", daemon=lab.daemon(), TORCH_COMPILE_CLIENT_TIMEOUT="0.5")

    went_on(outcome, alone)
    assert outcome.report["fallbacks"]["timeout"] >= 1
    assert outcome.report["seconds_waited"] < 10


@pytest.mark.slow
def test_a_draining_daemon_finishes_what_it_began_and_exits_well(lab: Lab) -> None:
    daemon = lab.daemon()
    trainer = lab.start("deep.py", daemon=daemon)
    wait_until(
        lambda: "busy" in [worker["state"] for worker in daemon.status()["workers"]], what="a worker had the job"
    )

    code = daemon.stop()
    outcome = trainer.wait()

    assert code == 0
    assert outcome.code == 0, outcome.err
    assert outcome.report["graphs"] == outcome.report["compiled_by_daemon"] == 1, daemon.log()


@pytest.mark.slow
def test_another_environment_is_refused_with_the_field_and_its_artifact_published(one_lab: Lab, daemon: Daemon) -> None:
    other = {"ATEN_CPU_CAPABILITY": "avx2"}
    native = one_lab.run("perceptron.py", "9", daemon=daemon)

    first = one_lab.run("perceptron.py", "9", daemon=daemon, TORCH_COMPILE_CLIENT_LOG="debug", **other)
    second = one_lab.run("perceptron.py", "9", daemon=daemon, **other)

    assert native.report["compiled_by_daemon"] == 1
    assert first.report["refused"] == {"environment": 1}
    assert "cpu_capability" in first.err
    assert first.report["published"] == 1
    assert second.report["hits"] == 1
    assert second.result == first.result


@pytest.mark.slow
def test_a_byte_changed_in_the_store_is_a_miss(lab: Lab, alone: Outcome) -> None:
    daemon = lab.daemon()
    lab.run("perceptron.py", "5", "7", daemon=daemon)
    for blob in (daemon.directory / "store" / "blobs").rglob("*"):
        if blob.is_file() and blob.read_bytes()[:4] == b"\x7fELF":
            _flip(blob)

    outcome = lab.run("perceptron.py", "5", "7", daemon=daemon)

    went_on(outcome, alone)
    assert outcome.report["hits"] == 0
    assert outcome.report["compiled_by_daemon"] == 2, daemon.log()
    assert daemon.counters()["quarantined"] >= 1


def test_an_artifact_signed_by_another_daemon_is_not_loaded(one_lab: Lab, daemon: Daemon, tmp_path: Path) -> None:
    served = one_lab.run("perceptron.py", "11", daemon=daemon)
    other = tmp_path / "directory"
    other.mkdir(mode=0o700)
    for name in ("token", "daemon.json"):
        shutil.copy(daemon.directory / name, other / name)
    (other / "secret").write_bytes(secrets.token_bytes(32))
    (other / "secret").chmod(0o600)

    outcome = one_lab.run("perceptron.py", "11", daemon=other)

    assert outcome.result == served.result
    assert outcome.report["hits"] == outcome.report["compiled_by_daemon"] == 0
    assert outcome.report["fallbacks"]["bad_signature"] >= 1
    assert outcome.report["compiled_here"] == 1


@pytest.mark.slow
def test_a_byte_changed_in_transit_is_not_loaded(one_lab: Lab, daemon: Daemon, tmp_path: Path) -> None:
    served = one_lab.run("perceptron.py", "13", daemon=daemon)
    folder = tmp_path / "proxy"
    folder.mkdir(mode=0o700)

    with FlippingProxy(folder / "p.sock", daemon.address.removeprefix("unix:"), after=b"\x7fELF") as proxy:
        outcome = one_lab.run(
            "perceptron.py", "13", daemon=daemon, healthy=False, COMPILER_DAEMON_ADDRESS=f"unix:{proxy.path}"
        )

    assert proxy.flipped >= 1
    assert outcome.result == served.result
    assert outcome.report["hits"] == 0
    assert outcome.report["fallbacks"]["bad_digest"] >= 1
    assert outcome.report["compiled_here"] == 1


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    mode = path.stat().st_mode
    os.chmod(path, 0o600)
    path.write_bytes(data)
    os.chmod(path, mode)
