"""A Slurm of a test's own: a controller and several nodes, all processes of this machine, in a network of their own.

The programs are Debian's, installed or unpacked into a folder (`tools/slurm.sh` does that, and changes nothing of the
machine). Guarantees: nothing of it is reachable from outside, and everything has ended when the block has.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benches.harness.measure import BenchError
from benches.harness.processes import start_child

FOLDER_VARIABLE = "SLURM_FOLDER"
"""Where the programs were unpacked; unset, those that are installed."""

_ADDRESS = "10.77.0.1"
"""Of the network of their own. Slurm does not resolve a host that has a loopback address only."""
_READY_S = 60.0
_PLUGINS = Path("usr/lib/x86_64-linux-gnu/slurm-wlm")


@dataclass(frozen=True, slots=True)
class SlurmPrograms:
    """Where Slurm's programs are."""

    root: Path

    def path(self, name: str) -> Path:
        """Return the file of a program; Debian calls its daemons `slurmd-wlm` and the like."""
        places = [self.root / "usr" / part / called for part in ("bin", "sbin") for called in (name, f"{name}-wlm")]
        found = next((place for place in places if place.exists()), None)
        if found is None:
            raise BenchError(f"there is no {name} below {self.root}: `bash tools/slurm.sh FOLDER` fetches Slurm")
        return found

    @property
    def variables(self) -> dict[str, str]:
        """What a process needs to run them."""
        if self.root == Path("/"):
            return {}
        libraries = self.root / "usr/lib/x86_64-linux-gnu"
        return {"LD_LIBRARY_PATH": f"{libraries}:{self.root / _PLUGINS}"}


def slurm_programs(environ: Mapping[str, str]) -> SlurmPrograms | None:
    """Return the programs that can be run here; None where there are none, or no right to a network of one's own."""
    programs = SlurmPrograms(Path(environ.get(FOLDER_VARIABLE) or "/"))
    try:
        for name in ("slurmctld", "slurmd", "slurmstepd", "sbatch", "srun", "scancel", "scontrol"):
            programs.path(name)
    except BenchError:
        return None
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        return None
    allowed = subprocess.run(["/usr/bin/env", "unshare", "-n", "true"], check=False, capture_output=True)
    return programs if allowed.returncode == 0 else None


@dataclass(kw_only=True)
class SlurmCluster:
    """One that runs."""

    folder: Path
    nodes: tuple[str, ...]
    programs: SlurmPrograms
    environment: dict[str, str]
    """Of its daemons, and so of prologs."""
    settings: tuple[str, ...] = ()
    """More lines of slurm.conf."""
    local: Path | None = None
    """A folder that is another one on each node, as a node's own disk is."""
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _inside: int = 0

    def run(self, name: str, *arguments: str, cwd: Path) -> str:
        """Run one of Slurm's commands where a user would; return what it says. Raises `BenchError`."""
        return self.command(str(self.programs.path(name)), *arguments, cwd=cwd)

    def command(self, name: str, *arguments: str, cwd: Path) -> str:
        """Run any command on what would be the login node; return what it says. Raises `BenchError`."""
        done = subprocess.run(
            self._entering(name, *arguments),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=cwd,
            env=self.environment,
        )
        if done.returncode != 0:
            raise BenchError(f"{name} {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def submit(self, script: str, *, cwd: Path) -> int:
        """Hand in a job script; return the job's number."""
        said = self.run("sbatch", "--parsable", script, cwd=cwd)
        return int(said.partition(";")[0])

    def state(self, job: int) -> str:
        """Return a job's state as Slurm names it; of an array, that of its elements where they are the same."""
        said = self.run("scontrol", "show", "job", str(job), "--oneliner", cwd=self.folder)
        states = {word.removeprefix("JobState=") for word in said.split() if word.startswith("JobState=")}
        return states.pop() if len(states) == 1 else "MIXED"

    def wait(self, job: int, *states: str, limit_s: float = 300.0) -> None:
        """Wait until a job is in one of these states. Raises `BenchError` where it ends in another, or never does."""
        end = time.monotonic() + limit_s
        ended = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
        while (state := self.state(job)) not in states:
            if state in ended or time.monotonic() > end:
                raise BenchError(f"job {job} is {state}:\n{self.said()}")
            time.sleep(0.3)

    def said(self) -> str:
        """Return what jobs and Slurm's daemons have written, the end of each."""
        files = sorted([*self.folder.glob("*.log"), *self.folder.glob("*/slurm-*.out")])
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in files)

    def start(self) -> None:
        """Start controller and nodes; raise `BenchError` where they do not come up."""
        holder = start_child(["unshare", "-n", "sleep", "infinity"])
        self._started.append(holder)
        self._inside = holder.pid
        own = os.readlink("/proc/self/ns/net")
        self._until(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != own, "a network of its own")
        for words in (("link", "set", "lo", "up"), ("addr", "add", f"{_ADDRESS}/32", "dev", "lo")):
            subprocess.run(self._entering("ip", *words), check=True, timeout=30)
        self._configure()
        self._daemon("slurmctld", "-D", "-i")
        for node in self.nodes:
            self._daemon("slurmd", "-D", "-N", node, "-d", str(self.programs.path("slurmstepd")), node=node)
        self._until(self._is_up, "all nodes are idle")

    def stop(self) -> None:
        """End all of it, with whatever jobs left behind."""
        for process in reversed(self._started):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in reversed(self._started):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for stray in self._strays():
            with contextlib.suppress(ProcessLookupError):
                os.kill(stray, signal.SIGKILL)

    def _strays(self) -> list[int]:
        """Processes that were started for this cluster: its folder's name is in their environment."""
        mark = f"SLURM_CONF={self.environment['SLURM_CONF']}\0".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and int(entry.name) != os.getpid() and mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found

    def _entering(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._inside}/ns/net", *command]

    def disk_of(self, node: str) -> Path:
        """Return where the files lie that a node has in `local`."""
        return self.folder / f"disk-{node}"

    def _daemon(self, name: str, *arguments: str, node: str = "") -> None:
        number = len(self._started)
        command = [str(self.programs.path(name)), *arguments]
        if node and self.local is not None:
            self.disk_of(node).mkdir()
            bound = 'mount --bind "$0" "$1" && shift && exec "$@"'
            command = ["unshare", "-m", "sh", "-c", bound, str(self.disk_of(node)), str(self.local), *command]
        with (self.folder / f"{name}-{number}.log").open("wb") as log:
            self._started.append(
                start_child(
                    self._entering(*command),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self.environment,
                )
            )

    def _is_up(self) -> bool:
        if any(process.poll() is not None for process in self._started):
            raise BenchError(f"Slurm did not come up:\n{self.said()}")
        try:
            said = self.run("scontrol", "show", "nodes", "--oneliner", cwd=self.folder)
        except BenchError:
            return False
        return said.count("State=IDLE ") == len(self.nodes)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + _READY_S
        while not condition():
            if time.monotonic() > end:
                raise BenchError(f"in {_READY_S:.0f} s it did not happen that {what}:\n{self.said()}")
            time.sleep(0.1)

    def _configure(self) -> None:
        for name in ("state", *(f"spool-{node}" for node in self.nodes)):
            (self.folder / name).mkdir()
        host, plugins = socket.gethostname(), self.programs.root / _PLUGINS
        lines = [
            "ClusterName=own",
            f"SlurmctldHost={host}({_ADDRESS})",
            "SlurmUser=root",
            "SlurmdUser=root",
            "AuthType=auth/none",
            "CredType=cred/none",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SwitchType=switch/none",
            "MpiDefault=none",
            "JobAcctGatherType=jobacct_gather/none",
            "AccountingStorageType=accounting_storage/none",
            "JobCompType=jobcomp/none",
            "SchedulerType=sched/builtin",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core",
            "SlurmdParameters=config_overrides",
            "ReturnToService=2",
            f"PluginDir={plugins}",
            f"StateSaveLocation={self.folder / 'state'}",
            f"SlurmdSpoolDir={self.folder}/spool-%n",
            f"SlurmctldPidFile={self.folder / 'slurmctld.pid'}",
            f"SlurmdPidFile={self.folder}/slurmd-%n.pid",
            "SlurmctldPort=16817",
            *self.settings,
            *(
                f"NodeName={node} NodeHostname={host} NodeAddr={_ADDRESS} Port={16900 + number} CPUs=2"
                for number, node in enumerate(self.nodes)
            ),
            "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
        ]
        Path(self.environment["SLURM_CONF"]).write_text("\n".join(lines) + "\n")


@contextlib.contextmanager
def slurm_cluster(
    folder: Path,
    programs: SlurmPrograms,
    *,
    nodes: tuple[str, ...] = ("n1", "n2"),
    settings: tuple[str, ...] = (),
    local: Path | None = None,
    environ: Mapping[str, str],
) -> Iterator[SlurmCluster]:
    """Run one while the block lasts. Raises `BenchError` where it does not come up."""
    path = f"{programs.root}/usr/bin:{environ['PATH']}" if programs.root != Path("/") else environ["PATH"]
    environment = {**environ, **programs.variables, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
    cluster = SlurmCluster(
        folder=folder, nodes=nodes, programs=programs, environment=environment, settings=settings, local=local
    )
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
