"""The trainer's side: torch's compiles answered by a compile daemon where one is there, by torch itself where not.

`TORCH_COMPILE_CLIENT=1` is all that a trainer needs; importing torch then switches the client on, and with `auto`
starts a daemon where none is there. `install()` and
`uninstall()` do the same from code; `torch.compile(backend="daemon")` is inductor with `install()` before it.

Importing this module costs next to nothing: neither torch nor grpc is imported before a graph is compiled.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compile_client.reporting.summary import Summary

__all__ = ["__version__", "counters", "install", "operator_version", "summary", "uninstall"]

__version__ = "0.1.0"
"""Written here as well as in the packaging: asking the installed metadata would cost every import."""


def install() -> bool:
    """Switch the client on in this process; return whether it is on.

    Idempotent. False where this torch is unknown to the client: that is logged once, and torch compiles as always.
    """
    from compile_client.hooks.install import install as install_hook

    return install_hook()


def uninstall() -> None:
    """Switch the client off and put back everything of torch's that it had replaced."""
    from compile_client.hooks.install import uninstall as uninstall_hook

    uninstall_hook()


def counters() -> dict[str, Any]:
    """Return this process's counters so far, as `TORCH_COMPILE_CLIENT_REPORT` has them; empty where it never was on."""
    from compile_client.hooks.install import counters as hook_counters

    return hook_counters()


def summary() -> Summary:
    """Return what the client has done in this process so far: a line where it is printed, a table in a notebook."""
    from compile_client.hooks.install import summary as hook_summary

    return hook_summary()


def operator_version(name: str, version: str) -> None:
    """Vouch for an operator of your own, "namespace::operator": with the same version it does the same.

    Graphs with operators that cannot be looked into (written in C++, or with state that cannot be read) are shared only
    so. Call it in every program that uses the operator, before the first graph with it is compiled; change the version
    whenever the operator's fake, formula or kernels change.

    Raises `ValueError` where the name has no namespace, or the version is empty.
    """
    from compile_client.graphs.user_code.vouching import vouch

    vouch(name, version)


def _activate() -> None:
    """Entry point of the group `torch.backends`: called at the end of `import torch`. Never raises."""
    text = os.environ.get("TORCH_COMPILE_CLIENT", "")
    if text in {"", "0"}:
        return
    try:
        switch: str | None = "on"
        if text != "1":  # what nearly everybody writes imports nothing more
            from compile_client.config import read_switch

            switch = read_switch(text)
        if switch == "off":
            return
        if sys.platform != "linux":
            import logging

            logging.getLogger("compile_client").warning(
                "the compile client is off: it runs on Linux only. torch compiles as always."
            )
            return
        if switch is None:
            import logging

            logging.getLogger("compile_client").warning(
                "TORCH_COMPILE_CLIENT=%s means nothing, and the compile client is off: 1 switches it on", text
            )
            return
        if switch == "auto":
            # Now, and not when a graph comes: the daemon, and its first worker, start while the program goes on.
            from compile_client.config import ClientConfig
            from compile_client.transport.start_daemon import begin_where_absent

            begin_where_absent(ClientConfig.from_environment(os.environ))
        from compile_client.hooks.install import arm

        arm()
    except Exception:
        import logging

        logging.getLogger("compile_client").warning("the compile client is off: it failed to start", exc_info=True)


def _daemon_backend(gm: Any, example_inputs: Sequence[Any], **kwargs: Any) -> Callable[..., Any]:
    """Entry point of the group `torch_dynamo_backends`: `torch.compile(backend="daemon")`, inductor with the client on.

    `mode=` and `options=` of `torch.compile` arrive here as keyword arguments and mean what they mean for inductor.
    """
    from compile_client.hooks.install import compile_with_daemon

    return compile_with_daemon(gm, example_inputs, **kwargs)
