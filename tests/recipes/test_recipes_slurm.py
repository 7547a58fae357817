"""The files of the Slurm guide on a real Slurm: two nodes, each with a disk of its own, and a folder that both see.

Only the last test uses torch; in the others workers pretend to compile, and record their jobs. `bash tools/slurm.sh
FOLDER` fetches Slurm; `SLURM_FOLDER=FOLDER make slurm` runs these tests.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benches.harness.guides import files_of
from benches.harness.slurm import SlurmCluster, slurm_cluster, slurm_programs
from tests.daemon.daemon_process import wait_until
from tests.recipes.slurm_programs import PYTHONPATH, REPOSITORY, put_programs

PROGRAMS = slurm_programs(os.environ)
KILL_WAIT_S = 30.0
"""Slurm's own default, on which the guide relies."""

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        PROGRAMS is None,
        reason="no Slurm, or no right to run one: `bash tools/slurm.sh FOLDER`, then SLURM_FOLDER=FOLDER",
    ),
]

_TRAINER = """
import os, sys
rank = os.environ.get("SLURM_PROCID", "0")
os.environ["TORCH_COMPILE_CLIENT_REPORT"] = f"report-{os.environ['SLURM_JOB_ID']}-{rank}.json"
sys.argv[1:] = open(os.environ.get("GRAPHS", "graphs")).read().splitlines()
from tests.daemon.asking_trainer import main
main()
"""

_SWEEP = """
[sweep]
command = "python -m tests.daemon.asking_trainer 'key-{letter}=ok 0.5 #{letter}'"
[matrix]
letter = ["a", "b", "c", "d", "e", "f"]
"""


@dataclass
class Site:
    """A cluster, and a user's folder on the file system that its nodes share."""

    cluster: SlurmCluster
    home: Path

    def submit(self, name: str) -> int:
        return self.cluster.submit(name, cwd=self.home)

    def run(self, name: str) -> int:
        job = self.submit(name)
        self.cluster.wait(job, "COMPLETED")
        return job

    def reports(self, job: int) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.home.glob(f"report-{job}-*.json"))]

    def compiled(self, job: int | str) -> Counter[str]:
        """Return how often the workers of a job's daemons, on all nodes together, got each graph."""
        journals = (self.home / "journals").glob(f"{job}-*")
        return Counter(line.split(" ", 2)[2] for path in journals for line in path.read_text().splitlines())

    def in_tier(self, kind: str) -> list[Path]:
        return [path for path in (self.home / "shared" / "tier" / kind).rglob("*") if path.is_file()]


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    yield from opened(tmp_path, with_torch=getattr(request, "param", False))


def opened(tmp_path: Path, *settings: str, with_torch: bool = False) -> Iterator[Site]:
    assert PROGRAMS is not None
    home, local = tmp_path / "home", tmp_path / "local"
    for folder in (home, local, home / "journals"):
        folder.mkdir(mode=0o700)
    programs = put_programs(tmp_path / "bin", with_torch=with_torch)
    for name, text in files_of("slurm").items():
        (home / name).write_text(text)
        (home / name).chmod(0o755)
    (home / "train.py").write_text(_TRAINER)
    (home / "sweep.toml").write_text(_SWEEP)
    (home / "graphs").write_text("".join(f"key-{letter}=ok 0.5 #{letter}\n" for letter in "abc"))
    environ = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": PYTHONPATH,
        "HOME": str(home),
        "USER": "root",
        "JOURNALS": str(home / "journals"),
        "COMPILE_SHARED": str(home / "shared"),
        "COMPILE_LOCAL": str(local),
    }
    with slurm_cluster(tmp_path, PROGRAMS, settings=settings, local=local, environ=environ) as cluster:
        cluster.command("bash", "once.sh", cwd=home)
        yield Site(cluster, home)


SERVED = {"there", "compiled"}


def outcomes(reports: list[dict[str, Any]]) -> set[str]:
    return {row["outcome"] for report in reports for row in report["warm"]["graphs"]}


def test_a_second_job_compiles_nothing_whatever_node_compiled_it_first(site: Site) -> None:
    first = site.run("train.sbatch")
    second = site.run("train.sbatch")

    assert len(site.reports(first)) == len(site.reports(second)) == 2, site.cluster.said()
    assert site.compiled(first) == {"key-a": 1, "key-b": 1, "key-c": 1}, site.cluster.said()
    assert site.compiled(second) == {}
    assert outcomes(site.reports(second)) <= SERVED
    for node in site.cluster.nodes:
        assert list(site.cluster.disk_of(node).iterdir()) == [], "a job has left its directory behind"


def test_a_job_that_is_cancelled_gives_its_leases_back_before_slurm_kills_it(site: Site) -> None:
    (site.home / "graphs").write_text("key-slow=ok 300\n")
    job = site.submit("train.sbatch")
    wait_until(lambda: site.compiled(job), what="a worker has the graph", deadline_s=60)
    assert site.in_tier("lease")
    (site.home / "graphs").write_text("key-slow=ok 0\n")

    began = time.monotonic()
    site.cluster.run("scancel", str(job), cwd=site.home)
    wait_until(lambda: not site.in_tier("lease"), what="the lease is given back", deadline_s=60)
    released_s = time.monotonic() - began
    site.cluster.wait(job, "CANCELLED")
    blamed = site.in_tier("refused")
    after = site.run("train.sbatch")

    assert released_s < KILL_WAIT_S
    assert blamed == [], "that a job was cancelled was taken for a fault of its graph"
    assert site.compiled(after) == {"key-slow": 1}
    print(f"lease given back {released_s:.1f} s after scancel")


def test_a_job_array_warms_a_sweep_and_compiles_each_graph_once(site: Site) -> None:
    job = site.run("warm.sbatch")

    assert sum(site.compiled("*").values()) == 6, site.cluster.said()
    assert set(site.compiled("*").values()) == {1}
    said = [path.read_text() for path in sorted(site.home.glob(f"slurm-{job}_*.out"))]
    assert len(said) == 2
    assert all(f"--seed {number}" in text and "6 graphs: " in text for number, text in enumerate(said))


def test_a_sites_prolog_and_epilog_give_every_job_a_daemon_and_take_it_back(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    # The site has one folder for each user below its own, so the user's files of the guide lie one level deeper.
    for name in ("prolog", "epilog", "task-prolog"):
        path = folder / f"{name}.sh"
        text = files_of("slurm")[path.name]
        assert "/etc/slurm/compile-daemon.conf" in text
        path.write_text(text.replace("/etc/slurm/compile-daemon.conf", str(folder / "compile-daemon.conf")))
        path.chmod(0o755)
    (folder / "compile-daemon.conf").write_text(
        f"COMPILE_SHARED={tmp_path / 'home' / 'users'}\nCOMPILE_LOCAL={tmp_path / 'local'}\n"
        f"PATH={tmp_path / 'bin'}:{os.environ['PATH']}\nexport JOURNALS={tmp_path / 'home' / 'journals'}\n"
        f"export PYTHONPATH={PYTHONPATH}\n"
    )
    settings = (
        f"Prolog={folder / 'prolog.sh'}",
        f"Epilog={folder / 'epilog.sh'}",
        f"TaskProlog={folder / 'task-prolog.sh'}",
        "PrologFlags=Alloc",
    )
    with contextmanager(opened)(tmp_path, *settings) as site:
        (site.home / "users").mkdir()
        (site.home / "shared").rename(site.home / "users" / "root")
        (site.home / "plain.sbatch").write_text(
            "#!/bin/bash\n#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=1\nsrun python train.py\n"
        )
        first = site.run("plain.sbatch")
        assert sum(site.compiled(first).values()) == 3, site.cluster.said()
        disks = [site.cluster.disk_of(node) / "root" for node in site.cluster.nodes]
        wait_until(
            lambda: not any(list(disk.iterdir()) for disk in disks), what="the epilogs have tidied", deadline_s=60
        )
        second = site.run("plain.sbatch")

        assert sum(site.compiled("*").values()) == 3, site.cluster.said()
        assert len(site.reports(first)) == len(site.reports(second)) == 2
        assert outcomes([*site.reports(first), *site.reports(second)]) <= SERVED


@pytest.mark.slow
@pytest.mark.parametrize("site", [True], indirect=True)
def test_with_torch_a_second_job_compiles_nothing(site: Site) -> None:
    trainer = (REPOSITORY / "tests" / "e2e" / "trainers" / "perceptron.py").read_text()
    (site.home / "train.py").write_text(
        "import os, tempfile\n"
        "me = f\"{os.environ['SLURM_JOB_ID']}-{os.environ['SLURM_PROCID']}\"\n"
        'os.environ["TORCH_COMPILE_CLIENT_REPORT"] = f"report-{me}.json"\n'
        'os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()\n'
        f"exec(compile({trainer!r}, 'train.py', 'exec'))\n"
    )

    began = time.monotonic()
    first = site.reports(site.run("train.sbatch"))
    between = time.monotonic()
    second = site.reports(site.run("train.sbatch"))

    print(f"first job {between - began:.1f} s, second {time.monotonic() - between:.1f} s")
    assert len(first) == len(second) == 2, site.cluster.said()
    assert sum(report["compiled_here"] for report in first) == 0
    assert [(report["hits"], report["compiled_by_daemon"], report["compiled_here"]) for report in second] == [
        (1, 0, 0)
    ] * 2
    assert [report["cpp_builds"] for report in second] == [0, 0]
