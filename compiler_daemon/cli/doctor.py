"""`doctor`: what is wrong, and what to do."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from compiler_daemon.cli.options import AsJson, Directory, ListenAddress, Tiers, cli, print_result
from compiler_daemon.config import DaemonLocation

if TYPE_CHECKING:
    from compiler_daemon.admin.answers import DaemonState
    from compiler_daemon.text.findings import Finding

_DOCTOR_CALL_S = 3.0
"""Three times what the daemon of a busy machine needs; whoever asks a doctor waits for the answer."""


@cli.command()
def doctor(
    directory: Directory = None,
    address: ListenAddress = None,
    tier: Tiers = None,
    trainer: Annotated[
        bool, typer.Option(help="Also run a trainer with a tiny graph, where a daemon answers: some ten seconds.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong and what to do, a line for each check; exit code 1 where something is.

    Example: compiler-daemon doctor --no-trainer
    """
    from compiler_daemon.admin.connection import OperatorClient
    from compiler_daemon.admin.doctor.checks import examine
    from compiler_daemon.admin.doctor.trainer_check import check_trainer

    place = DaemonLocation.resolve(os.environ, directory=directory, address=address)

    def ask() -> tuple[str, DaemonState]:
        with OperatorClient.of(place, call_s=_DOCTOR_CALL_S) as client:
            return client.health(), client.status()

    def try_trainer() -> Finding:
        typer.echo("a trainer with a tiny graph is run: some ten seconds", err=True)
        return check_trainer(place, os.environ)

    findings = examine(place, os.environ, ask, tier or [], try_trainer=try_trainer if trainer else None)
    problems = sum(finding.level == "problem" for finding in findings)
    if as_json:
        print_result(json.dumps({"problems": problems, "findings": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            print_result(f"{finding.level:<8}{finding.check}: {finding.text}")
    if problems:
        raise typer.Exit(1)
