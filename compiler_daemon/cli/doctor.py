"""`doctor`: what is wrong, and what to do."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from compiler_daemon.cli.options import AsJson, Directory, ListenAddress, Tiers, cli, print_result
from compiler_daemon.config import DaemonLocation

if TYPE_CHECKING:
    from compiler_daemon.admin.answers import DaemonState

_DOCTOR_CALL_S = 3.0
"""Three times what the daemon of a busy machine needs; whoever asks a doctor waits for the answer."""


@cli.command()
def doctor(
    directory: Directory = None,
    address: ListenAddress = None,
    tier: Tiers = None,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong and what to do, a line for each check; exit code 1 where something is."""
    from compiler_daemon.admin.connection import OperatorClient
    from compiler_daemon.admin.doctor.checks import examine

    place = DaemonLocation.resolve(os.environ, directory=directory, address=address)

    def ask() -> tuple[str, DaemonState]:
        with OperatorClient.of(place, call_s=_DOCTOR_CALL_S) as client:
            return client.health(), client.status()

    findings = examine(place, os.environ, ask, tier or [])
    problems = sum(finding.level == "problem" for finding in findings)
    if as_json:
        print_result(json.dumps({"problems": problems, "findings": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            print_result(f"{finding.level:<8}{finding.check}: {finding.text}")
    if problems:
        raise typer.Exit(1)
