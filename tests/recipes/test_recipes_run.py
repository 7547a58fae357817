"""The scripts inside the manifests run as they are; afterwards a daemon's directory has what a daemon needs."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from benches.harness.guides import files_of
from compiler_daemon.admin.keys import signers
from compiler_daemon.errors import DirectoryError, KeysError
from compiler_daemon.tier.signer_files import SignerFiles


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The files of a signer, as `keys signer init` and `keys trust` leave them."""
    directory = tmp_path / "signer"
    signers.init(directory, "fleet-1")
    signers.trust(directory, signers.init(tmp_path / "other", "lab-1").line)
    return SignerFiles(directory).folder


def mounted(source: Path, target: Path) -> Path:
    """Mount files as Kubernetes mounts a Secret: as links to files that others can read, in a folder that it swaps."""
    data = target / "..2026_11_29"
    data.mkdir(parents=True)
    (target / "..data").symlink_to(data.name)
    for file in source.iterdir():
        (data / file.name).write_bytes(file.read_bytes())
        (data / file.name).chmod(0o644)
        (target / file.name).symlink_to(f"..data/{file.name}")
    return target


def run(script: str, directory: Path, *, shell: str = "sh", cwd: Path | None = None, **variables: str) -> str:
    directory.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [shell, "-euc", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "COMPILER_DAEMON_DIR": str(directory), **variables},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def names(directory: Path) -> tuple[str | None, list[str]]:
    """Return the signer of a directory and the signers it trusts, after the same checks that the daemon makes."""
    known = SignerFiles(directory).read()
    return (known.own.signer.name if known.own else None), [one.signer.name for one in known.listed]


def prepare_script() -> str:
    documents = yaml.safe_load_all(files_of("kubernetes")["settings.yaml"])
    return next(str(each["data"]["prepare.sh"]) for each in documents if "prepare.sh" in each["data"])


def test_a_secret_as_it_is_mounted_could_not_be_read_by_a_daemon(made: Path, tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir(mode=0o700)
    (directory / "keys").mkdir(mode=0o700)
    mounted(made, directory / "keys" / "signers").chmod(0o700)

    with pytest.raises((KeysError, DirectoryError), match=r"own\.key"):
        names(directory)


def test_the_init_container_makes_of_a_mounted_secret_what_a_daemon_reads(made: Path, tmp_path: Path) -> None:
    directory = tmp_path / "node" / "1000"
    secret = mounted(made, tmp_path / "secret")

    for _ in range(2):  # the second time stands for a pod that starts again on a node that has the directory
        run(prepare_script(), directory, SIGNER=str(secret))

    assert names(directory) == ("fleet-1", ["lab-1"])
    key = SignerFiles(directory).own
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert not key.is_symlink()


def test_pods_that_only_read_get_the_list_alone(made: Path, tmp_path: Path) -> None:
    (made / "own.key").unlink()

    run(prepare_script(), tmp_path / "d", SIGNER=str(mounted(made, tmp_path / "secret")))

    assert names(tmp_path / "d") == (None, ["lab-1"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
def test_as_root_the_init_container_gives_the_directory_to_the_daemons_user(made: Path, tmp_path: Path) -> None:
    directory = tmp_path / "node" / "1000"

    run(prepare_script(), directory, SIGNER=str(mounted(made, tmp_path / "secret")), OWNER="1000")

    found = [directory, *directory.rglob("*")]
    assert {path.stat().st_uid for path in found} == {1000}
    assert len(found) == 5


def test_composes_first_service_makes_the_directory_of_a_daemon(made: Path, tmp_path: Path) -> None:
    document: dict[str, Any] = yaml.safe_load(files_of("compose")["compose.yaml"])
    (script,) = document["services"]["signer"]["command"]

    run(script.replace("$$", "$"), tmp_path / "d", SIGNER=str(made))

    assert names(tmp_path / "d") == ("fleet-1", ["lab-1"])


def ci_step(name: str) -> str:
    document: dict[str, Any] = yaml.safe_load(files_of("ci")["workflow.yaml"])
    return next(str(step["run"]) for step in document["jobs"]["test"]["steps"] if step.get("name") == name)


@pytest.mark.parametrize("is_fork", [False, True])
def test_ci_signs_with_its_secret_and_a_fork_without_one_reads_only(is_fork: bool, made: Path, tmp_path: Path) -> None:
    line = SignerFiles(made.parents[1]).read().own
    assert line is not None
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "ci-signers").write_text(f"{line.signer.line}\n")
    secret = "" if is_fork else (made / "own.key").read_text().strip()

    said = run(
        ci_step("Set up the signer"),
        checkout / "d",
        shell="bash",
        cwd=checkout,
        COMPILE_SIGNER=secret,
        COMPILE_TIER=str(checkout / "tier"),
    )

    assert names(checkout / "d") == (None if is_fork else "fleet-1", ["fleet-1"])
    assert ("shares nothing" in said) is is_fork
    assert (checkout / "tier").is_dir()


def test_the_slurm_guides_first_script_makes_tier_and_signer(tmp_path: Path) -> None:
    command = tmp_path / "bin" / "compiler-daemon"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m compiler_daemon "$@"\n')
    command.chmod(0o755)

    said = run(
        files_of("slurm")["once.sh"],
        tmp_path / "unused",
        shell="bash",
        PATH=f"{command.parent}:{os.environ['PATH']}",
        PYTHONPATH=os.environ.get("PYTHONPATH", ""),
        USER="alice",
        COMPILE_SHARED=str(tmp_path / "shared"),
    )

    assert said.startswith("alice-1:")
    assert names(tmp_path / "shared" / "signer") == ("alice-1", [])
    assert stat.S_IMODE((tmp_path / "shared" / "tier").stat().st_mode) == 0o700
