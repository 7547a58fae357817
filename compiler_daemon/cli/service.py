"""`service`: a daemon that systemd starts for its user."""

from __future__ import annotations

import os

from compiler_daemon.cli.options import Directory, cli, print_result
from compiler_daemon.cli.usage import Verbs

service = Verbs(
    help="A daemon that systemd starts for you: now, and whenever you log in.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
cli.add_typer(service, name="service")


@service.command()
def install(directory: Directory = None) -> None:
    """Write a user unit for this installation, and start it. What it serves with is in the file that `config` names.

    `loginctl enable-linger` keeps it while you are logged out.
    """
    from compiler_daemon.admin.life.service import install as install_unit

    print_result(f"systemd serves, and will: {install_unit(os.environ, directory)}")


@service.command()
def uninstall() -> None:
    """Stop the daemon that systemd has started, and remove its unit. Artifacts stay."""
    from compiler_daemon.admin.life.service import uninstall as uninstall_unit

    removed = uninstall_unit(os.environ)
    print_result(f"removed {removed}" if removed else "there was no unit to remove")


@service.command()
def show(directory: Directory = None) -> None:
    """Print the unit that `install` would write."""
    from compiler_daemon.admin.life.service import unit_text

    print_result(unit_text(os.environ, directory).rstrip("\n"))
