"""Dask's workers compile for a daemon, with torch: all of it, with a worker that is killed, without the scheduler."""

from __future__ import annotations

import contextlib
import importlib.util
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

from tests.daemon.farm.farm_samples import STARTS_S, Certificates, DaskFarm, DaskProcess
from tests.e2e.conftest import Daemon, Lab, Trainer, clean_environment, wait_until
from tests.fleet_suite.row import Finding, Row, unplayed
from tests.fleet_suite.stage import Stage

# Dynamo compiles a function eight times at most, so that twelve graphs are those of two trainers.
_TWELVE = (("3", "4", "5", "6", "7", "8"), ("9", "10", "11", "12", "13", "14"))
_TWO, _OTHER_TWO = (("20", "21"),), (("24", "25"),)
_BUILDERS = {"g++", "cc1plus", "as", "ld", "collect2"}


def farm(stage: Stage) -> Iterator[Row]:
    """Yield a row for each: twelve graphs, a worker killed, the scheduler killed."""
    whole = "12 graphs of two trainers: all compiled by the farm's two workers, none by this machine"
    if importlib.util.find_spec("distributed") is None:
        yield unplayed("twelve graphs", whole, "Dask is not installed: `pip install 'compiler-daemon[farm]'`")
        return
    with stage.lab() as lab, DaskFarm(lab.folder / "farm", Certificates(lab.folder / "tls")) as dask:
        environ = clean_environment(TMPDIR=str(lab.temporary)) | stage.variables
        for _ in range(2):
            dask.add_worker(environ=environ)
        daemon = _daemon(lab, dask, stage)
        wait_until(
            lambda: "compiles 2 at once for environment" in daemon.log(), what="an offer", timeout_s=2 * STARTS_S
        )
        if stage.wants("twelve graphs"):
            yield _row(stage, "twelve graphs", whole, lab, daemon, _TWELVE, lambda _: None, away=0)

        def kill_builder(trainer: Trainer) -> None:
            _worker_that_builds(dask, trainer).process.send_signal(signal.SIGKILL)

        if stage.wants("worker killed"):
            promise = "a worker of the farm killed (`kill -9`) in the middle of a compile: the other one compiles it"
            yield _row(stage, "worker killed", promise, lab, daemon, _TWO, kill_builder, away=0)

        def kill_scheduler(trainer: Trainer) -> None:
            _worker_that_builds(dask, trainer)
            dask.scheduler.kill()

        if stage.wants("scheduler killed"):
            promise = "the scheduler killed in the middle of a compile: this machine compiles that graph and the next"
            yield _row(stage, "scheduler killed", promise, lab, daemon, _OTHER_TWO, kill_scheduler, away=1)


def _daemon(lab: Lab, dask: DaskFarm, stage: Stage) -> Daemon:
    assert dask.certificates is not None
    files = {f"COMPILER_DAEMON_FARM_{name.upper()}": path for name, path in dask.certificates.settings.items()}
    options = ("--farm", dask.address, "--farm-wait", "30", "--no-prewarm", "--workers", "1")
    daemon = Daemon(Path(lab.folder / "daemon"), lab.temporary, options, {**files, **stage.variables}).start()
    lab.also(daemon)
    return daemon


def _row(
    stage: Stage,
    name: str,
    promise: str,
    lab: Lab,
    daemon: Daemon,
    programs: Sequence[Sequence[str]],
    strike: Callable[[Trainer], None],
    *,
    away: int,
) -> Row:
    """Train all programs together, strike in the middle, and look at what came of it.

    A program is its batch sizes, each of which makes one graph; `away`: so many graphs come back to this machine.
    """
    alone = [stage.alone("perceptron.py", *sizes) for sizes in programs]
    before = daemon.counters()
    trainers = [lab.start("perceptron.py", *sizes, daemon=daemon) for sizes in programs]
    strike(trainers[0])
    outcomes = [trainer.wait() for trainer in trainers]
    after = {key: value - before.get(key, 0) for key, value in daemon.counters().items()}
    there, here = after.get("farm_compiles", 0), after.get("workers_started", 0)
    finding = Finding()
    codes = sorted({outcome.code for outcome in outcomes})
    finding.check(codes == [0], f"exit codes {codes}")
    same = [bool(outcome.out) and outcome.result == losses for outcome, losses in zip(outcomes, alone, strict=True)]
    finding.check(all(same), "torch's own losses" if all(same) else "other losses, or none")
    reports = [outcome.report for outcome in outcomes]
    graphs = sum(map(len, programs))
    by_daemon = sum(report["compiled_by_daemon"] for report in reports)
    finding.check(by_daemon == graphs, f"{by_daemon} graphs by the daemon")
    failures = {name: count for report in reports for name, count in report["fallbacks"].items()}
    finding.check(not failures, f"failures {failures or 'none'}")
    if away:
        finding.check(there == 0, f"{there} compiled by the farm")
        finding.check(after.get("farm_away", 0) == away, f"{after.get('farm_away', 0)} came back")
        finding.check(here == 1, f"{here} worker of this machine started")
    else:
        finding.check(there == graphs, f"{there} compiled by the farm")
        finding.check(not here, f"{here} workers of this machine started")
    longest = max(report["seconds_waited"] for report in reports)
    finding.note(f"a trainer waited at most {longest:.1f} s in all")
    return Row(name=name, promise=promise, found=finding.text, passed=finding.passed)


def _worker_that_builds(dask: DaskFarm, trainer: Trainer) -> DaskProcess:
    """Wait until a compiler runs below a worker of the farm; return that worker."""
    found: list[DaskProcess] = []

    def builds() -> bool:
        found.extend(_builder(dask, trainer))
        return bool(found)

    wait_until(builds, what="a worker of the farm builds", timeout_s=STARTS_S)
    return found[0]


def _builder(dask: DaskFarm, trainer: Trainer) -> Iterator[DaskProcess]:
    """Yield the farm's workers below which a compiler runs now."""
    assert trainer.process.poll() is None, "the trainer ended before its graph was compiled"
    for worker in dask.workers:
        with contextlib.suppress(psutil.Error):  # it may end while we look
            for child in psutil.Process(worker.pid).children(recursive=True):
                if _name_of(child) in _BUILDERS:
                    yield worker


def _name_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return process.name()
    return ""
