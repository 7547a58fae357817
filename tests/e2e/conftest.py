"""Real daemons and real trainers, each in processes of its own, with caches and temporary directories of their own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from compiler_daemon.worker import kept_headers

TRAINERS = Path(__file__).parent / "trainers"
REPOSITORY = Path(__file__).parents[2]
_OURS = ("TORCH_COMPILE_CLIENT", "COMPILER_DAEMON_", "TORCHINDUCTOR_", "TRITON_", "TORCH_LOGS")
_DEADLINE_S = 240.0
VERIFIED = os.environ.get("E2E_VERIFIED", "")
"""A file for `make verified`: each trainer compiles what it is served as well, and writes there how both compare.

Counts of such a run are wrong, above all those of builds: only the comparison says something.
"""
TRACES = os.environ.get("E2E_TRACES", "")
"""A file for `make traces`: each trainer traces what it could skip as well, and writes there how both compare."""


def clean_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without the variables that steer torch's caches or the client."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return kept | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "proto")])} | more


@dataclass
class Daemon:
    """`compiler-daemon serve` in a process of its own."""

    directory: Path
    temporary: Path
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    """Variables that are added to its environment."""
    launcher: tuple[str, ...] = ()
    """The command by way of which it is started."""
    process: subprocess.Popen[bytes] | None = None
    address: str = ""

    def start(self) -> Daemon:
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self._lend_headers()
        self._lend_facts()
        with (self.directory.parent / f"{self.directory.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.launcher, sys.executable, *self._command],
                stdout=subprocess.PIPE,
                stderr=log,
                env=clean_environment(TMPDIR=str(self.temporary), **self.environment),
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith("ready "), f"{line!r}\n{self.log()}"
        self.address = line.removeprefix("ready ").strip()
        return self

    @property
    def _command(self) -> list[str]:
        return ["-m", "compiler_daemon", "serve", "--dir", str(self.directory), *self.arguments]

    def _lend_headers(self) -> None:
        """Put torch's header where the daemon keeps it, because each worker would build the same one again."""
        kept = self.directory / "headers"
        kept.mkdir(mode=0o700, exist_ok=True)
        for made in (self.temporary / "headers").glob("*"):
            if not (kept / made.name).exists():
                os.link(made, kept / made.name)

    def _lend_facts(self) -> None:
        """Give a new daemon what an earlier one would know of the processor.

        Its first worker would start a process with torch for each instruction set, and so would a trainer that comes
        before that worker.
        """
        store = self.directory / "store"
        if not store.exists():
            shutil.copytree(self.temporary / "known", store)

    def counters(self) -> dict[str, int]:
        """Return the daemon's counters; one that was never raised is missing."""
        found: dict[str, int] = self.status()["counters"]
        return found

    def log(self) -> str:
        return (self.directory.parent / f"{self.directory.name}.log").read_text()

    def left_behind(self) -> list[str]:
        """Return what its workers have logged of graphs after which they had to end: each costs another worker."""
        logs = sorted((self.directory / "log").glob("worker-*.log"))
        return [line for log in logs for line in log.read_text().splitlines() if "left behind" in line]

    def blobs(self) -> Iterator[bytes]:
        """Yield the contents of each file in the daemon's store."""
        for path in (self.directory / "store" / "blobs").rglob("*"):
            if path.is_file():
                yield path.read_bytes()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(30)

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGCONT)
                self.signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return self.process.returncode

    def status(self) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "compiler_daemon", "status", "--json", "--dir", str(self.directory)],
            capture_output=True,
            text=True,
            env=clean_environment(),
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def wait_for_workers(self) -> None:
        """Wait until the daemon's workers are up, after the first handshake.

        The daemon learns the results of torch's probes from its workers. A trainer that comes earlier builds the probes
        itself, and they would count as C++ builds.
        """
        wait_until(
            lambda: (workers := self.status()["workers"]) and all(worker["state"] == "idle" for worker in workers),
            what="the daemon's workers are up",
            timeout_s=180.0,  # they stand back first, and other tests take the processors
        )


@dataclass
class Outcome:
    """What a trainer's process left behind."""

    code: int
    out: list[str]
    err: str
    seconds: float
    folder: Path
    """The folder that holds the reports of all its processes."""
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def result(self) -> Any:
        """The JSON document on the trainer's last line."""
        assert self.out, self.err
        return json.loads(self.out[-1])


def check_accounts(report: dict[str, Any]) -> None:
    """Fail if a graph was compiled in the trainer's process without a counted reason.

    With a healthy daemon, this is the only sign of a cache that has quietly stopped working: results stay right, tests
    of results stay green, and every process compiles again.
    """
    ends = ("hits_local", "hits", "compiled_by_daemon", "compiled_here", "deferred", "traced_again")
    came = [report[name] for name in ends]
    assert sum(came) == report["graphs"], report
    assert report["compiled_here"] == sum(report["refused"].values()), f"compiled here without a reason: {report}"
    assert report["fallbacks"] == {}, f"trouble with a daemon that is well: {report}"
    assert report["unpublished"] == {}, report


@dataclass
class Trainer:
    """A trainer that is running."""

    process: subprocess.Popen[str]
    report: Path
    started: float
    healthy: bool
    """Whether its daemon is left alone, so that each local compile must have a counted reason."""

    def wait(self, limit_s: float = _DEADLINE_S) -> Outcome:
        try:
            out, err = self.process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            pytest.fail(f"the trainer hung:\n{err}")
        report = json.loads(self.report.read_text()) if self.report.exists() else {}
        if VERIFIED and report:
            row = {name: report[name] for name in ("hits", "compiled_by_daemon", "verified", "mismatches", "unsettled")}
            test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
            with Path(VERIFIED).open("a") as rows:
                rows.write(json.dumps({"test": test, **row, "said": _quarrels(err)}) + "\n")
        if TRACES and report:
            test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
            with Path(TRACES).open("a") as rows:
                said = [line for line in err.splitlines() if "a trace of" in line]
                rows.write(json.dumps({"test": test, **report.get("traces", {}), "said": said}) + "\n")
        if self.healthy and self.process.returncode == 0:
            check_accounts(report)
        seconds = time.monotonic() - self.started
        return Outcome(self.process.returncode, out.splitlines(), err, seconds, self.report.parent, report)


def _quarrels(err: str) -> list[str]:
    """Return the lines in which a trainer said that it was served something other than what it compiled itself."""
    return [line for line in err.splitlines() if "was served with" in line]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Skip a test that fails in a run of `make verified`: it counts what verification adds, so that says nothing."""
    report = yield
    if (VERIFIED or TRACES) and report.failed and item.path.parent == Path(__file__).parent:  # type: ignore[attr-defined] # pytest's
        report.outcome, report.wasxfail = "skipped", "counts what verification adds"  # type: ignore[attr-defined]
    return report


class Lab:
    """Starts daemons and trainers under one temporary folder, and ends what is left of them."""

    def __init__(self, folder: Path, temporary: Path, *, healthy: bool) -> None:
        self.folder = folder
        self.healthy = healthy
        """Whether the tests leave its daemons alone: then no trainer may compile for itself without a reason."""
        self.temporary = temporary
        """TMPDIR of all daemons and trainers of a test run, where torch keeps precompiled headers. Tests count kernels,
        and building the same header in each test would take minutes.
        """
        self._daemons: list[Daemon] = []
        self._trainers: list[Trainer] = []
        self._count = 0

    def daemon(self, name: str = "daemon", *arguments: str) -> Daemon:
        daemon = Daemon(self.folder / name, self.temporary, arguments).start()
        self._daemons.append(daemon)
        return daemon

    def also(self, daemon: Daemon) -> None:
        """End this daemon, too, when the lab is closed."""
        self._daemons.append(daemon)

    def start(
        self,
        script: str,
        *arguments: str,
        daemon: Daemon | Path | None = None,
        caches: Path | None = None,
        python: str = sys.executable,
        bare: bool = False,
        healthy: bool | None = None,
        launcher: tuple[str, ...] = (),
        **environment: str,
    ) -> Trainer:
        """Start `trainers/SCRIPT`; the client is on if a daemon, or a daemon's directory, is given.

        If the trainer is `healthy`, a local compile without a counted reason is a failure; by default it is where no
        test harms the daemon. Its caches hold nothing but torch's probes of the instruction sets; with `bare` not even
        those.
        """
        self._count += 1
        home = self.folder / f"trainer-{self._count}"
        caches = caches or home / "caches"
        home.mkdir(parents=True, exist_ok=True)
        report = home / "report.json"
        variables = self.variables(daemon, caches, report, bare=bare)
        process = subprocess.Popen(
            [python, *launcher, str(TRAINERS / script), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=variables | environment,
        )
        if healthy is None:
            healthy = self.healthy and isinstance(daemon, Daemon) and not launcher  # a launcher has no graphs
        trainer = Trainer(process, report, time.monotonic(), healthy)
        self._trainers.append(trainer)
        return trainer

    def variables(
        self, daemon: Daemon | Path | None, caches: Path, report: Path, *, bare: bool = False
    ) -> dict[str, str]:
        """Prepare a trainer's caches and return its environment."""
        (caches / "triton").mkdir(parents=True, exist_ok=True)
        if bare:
            (caches / "inductor").mkdir()
        else:
            shutil.copytree(self.temporary / "probes", caches / "inductor", dirs_exist_ok=True)
        variables = {
            "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
            "TRITON_CACHE_DIR": str(caches / "triton"),
            "TMPDIR": str(self.temporary),
        }
        if daemon is not None:
            directory = daemon.directory if isinstance(daemon, Daemon) else daemon
            variables |= {
                "TORCH_COMPILE_CLIENT": "1",
                "TORCH_COMPILE_CLIENT_REPORT": str(report),
                "COMPILER_DAEMON_DIR": str(directory),
            }
            if TRACES:
                variables["TORCH_COMPILE_CLIENT_SKIP_TRACE"] = "verify"
            if VERIFIED:
                variables["TORCH_COMPILE_CLIENT_VERIFY"] = "1"
        return clean_environment(**variables)

    def run(self, script: str, *arguments: str, **options: Any) -> Outcome:
        """Run a trainer to its end and require exit code 0."""
        outcome = self.start(script, *arguments, **options).wait()
        assert outcome.code == 0, outcome.err
        return outcome

    def places(self) -> list[str]:
        """Return every folder of this machine that the lab's processes know; none of them may appear in an artifact."""
        return [sysconfig.get_path("purelib"), str(self.folder), str(self.temporary), str(REPOSITORY)]

    def close(self) -> None:
        for trainer in self._trainers:
            if trainer.process.poll() is None:
                trainer.process.kill()
                trainer.process.wait()
            for stream in (trainer.process.stdout, trainer.process.stderr):
                if stream is not None:
                    stream.close()
        for daemon in self._daemons:
            daemon.stop()
        left = [line for daemon in self._daemons for line in daemon.left_behind()] if self.healthy else []
        assert not left, f"workers ended although every graph was a trainer's own: {left}"


_PREPARING = """
import pathlib, sys, tempfile
from compile_torch.environment import process_environment
from compile_torch.patches import Patches
from compile_torch.probes import Probes, probe_at_once
from compile_wire.facts import Facts, encode_facts
from compiler_daemon.store import Store, StoreConfig
from compiler_daemon.worker.builds import Builds
from torch._inductor import cpu_vec_isa

patches, probes = Patches(), Probes(dict)
patches.replace(cpu_vec_isa.VecISA, "check_build", probes.checking)
probe_at_once()
cpu_vec_isa.valid_vec_isa_list()
builds = Builds(pathlib.Path(tempfile.mkdtemp()))
builds.install(patches)
builds.warm()
builds.wait_until_warm()
with Store.open(StoreConfig(root=pathlib.Path(sys.argv[1]))) as store:
    store.put_facts(store.put_environment(process_environment()), encode_facts(Facts(vec_isa=probes.seen)))
"""


def with_probes(folder: Path, **environment: str) -> Path:
    """Put torch's header and its probes of the instruction sets into `folder`, which serves as TMPDIR; return it.

    `known` in it is a store with what the probes found, and nothing else.
    """
    (folder / "probes").mkdir()
    subprocess.run(
        [sys.executable, "-c", _PREPARING, str(folder / "known")],
        env=clean_environment(TORCHINDUCTOR_CACHE_DIR=str(folder / "probes"), TMPDIR=str(folder), **environment),
        check=True,
        timeout=_DEADLINE_S,
    )
    kept_headers.keep(folder, folder / "headers", "tests")
    return folder


@pytest.fixture
def lab(tmp_path: Path, headers: Path) -> Iterator[Lab]:
    """A fresh lab for one test, for promises about a daemon's life."""
    made = Lab(tmp_path, headers, healthy=False)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def one_lab(tmp_path_factory: pytest.TempPathFactory, headers: Path) -> Iterator[Lab]:
    """One lab for all tests that need nothing but a daemon that serves."""
    made = Lab(tmp_path_factory.mktemp("lab"), headers, healthy=True)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def daemon(one_lab: Lab) -> Daemon:
    """One daemon for all tests of that lab; each test uses graphs of sizes that no other test uses."""
    return one_lab.daemon()


def wait_until(condition: Any, *, what: str, timeout_s: float = 60.0) -> None:
    """Poll until `condition()` holds; fail naming `what` after the deadline."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.02)
    pytest.fail(f"in {timeout_s:.0f} s it did not happen that {what}")
