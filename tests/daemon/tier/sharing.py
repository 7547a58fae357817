"""Daemons that share a tier and whose workers have no torch, and the command line as an operator types it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from compiler_daemon.access.directory import prepare_directory
from compiler_daemon.admin.keys import signers
from compiler_daemon.cli import cli
from tests.daemon.daemon_process import DaemonProcess

UNSET: dict[str, str | None] = {
    name: None for name in os.environ if name.startswith(("TORCH", "COMPILER_DAEMON_", "AWS_"))
}

StartDaemon = Callable[..., DaemonProcess]


def signing(directory: Path, name: str = "lab-1") -> str:
    """Give a directory a key to sign with; return the signer's public line."""
    prepare_directory(directory)
    return signers.init(directory, name).line


def start_sharing(start: StartDaemon, tier: str, name: str = "d", *, trusts: tuple[str, ...] = ()) -> DaemonProcess:
    """Start a daemon that shares a tier, in the directory of this name, and make a handshake."""
    daemon = start(name, tier={"places": [tier]})
    for line in trusts:
        signers.trust(daemon.directory, line)
    daemon.handshake()
    return daemon


class Said:
    """The output of a command on a terminal of 80 columns."""

    def __init__(self, *arguments: str, **environ: str) -> None:
        ended = CliRunner().invoke(cli, list(arguments), env={**UNSET, "COLUMNS": "80", **environ})
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        self.code = ended.exit_code
        self.out = ended.stdout
        self.err = ended.stderr

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def words(self) -> str:
        """Return the output with its lines joined."""
        return " ".join(self.out.split())


def waiting_for(text: str, log: Path) -> Callable[[], bool]:
    return lambda: text in log.read_text()
