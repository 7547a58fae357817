"""`page`: the web page, opened."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from compiler_daemon.cli.options import AsJson, Directory, ListenAddress, cli, print_result
from compiler_daemon.config import DaemonLocation
from compiler_daemon.errors import DaemonError

_LOGIN_NAME = "page.html"


@cli.command()
def page(
    directory: Directory = None,
    address: ListenAddress = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser of this machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print an address at which a browser may read the daemon's page: good once, for a minute.

    Example: `compiler-daemon page --open`. From another machine: `ssh -L 8321:127.0.0.1:8321 HOST compiler-daemon page`
    where the daemon was started with `serve --page-port 8321`.
    """
    from compiler_daemon.admin.connection import OperatorClient
    from compiler_daemon.admin.status.page import open_page

    place = DaemonLocation.resolve(os.environ, directory=directory, address=address)
    with OperatorClient.of(place) as operator:
        url = open_page(operator)
    if as_json:
        print_result(json.dumps({"url": url}))
        return
    if open_browser:
        _open(place.directory, url)
    else:
        print_result(url)


def _open(directory: Path, url: str) -> None:
    """Open a file that leads on: a browser's command line can be read by every user of the machine, the file cannot."""
    import webbrowser

    from compiler_daemon.endpoint import write_private

    file = directory / _LOGIN_NAME
    write_private(file, f'<!doctype html><meta http-equiv="refresh" content="0;url={url}">\n'.encode())
    if not webbrowser.open(file.as_uri()):
        raise DaemonError("there is no browser on this machine: run it without --open, and open what it prints")
