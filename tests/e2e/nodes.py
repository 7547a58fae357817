"""Nodes that share a tier: each is a daemon with a directory, a signer and a counted g++ of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Any

from tests.e2e.conftest import Daemon, Lab, Trainer, clean_environment

_COUNTING = """#!/bin/sh
echo "$*" >> {log}
exec {real} "$@"
"""


class Node:
    """One machine of a fleet, simulated by a daemon with a directory and a compiler of its own."""

    def __init__(self, lab: Lab, name: str, *tiers: str, launcher: tuple[str, ...] = (), **variables: str) -> None:
        self.name = name
        self._lab = lab
        self._builds = lab.folder / f"{name}.builds"
        tools = lab.folder / f"{name}-bin"
        tools.mkdir()
        real = shutil.which("g++")
        assert real, "there is no g++: install it"
        compiler = tools / "g++"
        compiler.write_text(_COUNTING.format(log=self._builds, real=real))
        compiler.chmod(0o755)
        # A confined worker could not count: it may write nowhere but in its own folder.
        self._variables = {"PATH": f"{tools}:{clean_environment()['PATH']}", "COMPILER_DAEMON_SANDBOX": "off"}
        self._variables |= variables
        arguments = ("--workers", "1", *(word for tier in tiers for word in ("--tier", tier)))
        self.daemon = Daemon(lab.folder / name, lab.temporary, arguments, self._variables, launcher)
        self.line = self._keys("signer", "init", f"{name}-1").splitlines()[0]
        """The public line of its signer."""

    def trust(self, *others: Node) -> None:
        for other in others:
            self._keys("trust", other.line)

    def distrust(self, other: Node) -> None:
        self._keys("distrust", other.line.partition(":")[0])

    def train(self, script: str, *arguments: str, **options: Any) -> Trainer:
        """Start a trainer on this node with empty caches, even without torch's probes; options replace variables."""
        options = {**self._variables, **options}
        return self._lab.start(script, *arguments, daemon=self.daemon, bare=True, **options)

    @property
    def builds(self) -> list[str]:
        """Return the g++ commands of trainers and daemon on this node, except those that only ask for g++'s version."""
        told = self._builds.read_text().splitlines() if self._builds.exists() else []
        return [words for words in told if words not in ("--version", "-v")]

    def artifacts(self) -> set[str]:
        """Return the digests of the artifacts in the node's store."""
        import json

        done = self._run("ls", "--json")
        return {row["digest"] for row in json.loads(done)["artifacts"]}

    def _keys(self, *arguments: str) -> str:
        return self._run("keys", *arguments)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "compiler_daemon", *arguments, "--dir", str(self.daemon.directory)],
            capture_output=True,
            text=True,
            env=clean_environment(),
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def fleet(lab: Lab, *tiers: str, count: int = 2, **variables: str) -> list[Node]:
    """Start nodes that trust each other."""
    nodes = [Node(lab, f"n{number}", *tiers, **variables) for number in range(count)]
    for node in nodes:
        node.trust(*(other for other in nodes if other is not node))
        node.daemon.start()
        lab.also(node.daemon)
    return nodes
