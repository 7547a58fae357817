"""`python -m compiler_daemon.worker`: started by the daemon, one job at a time, until told to exit or left alone."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from typing import BinaryIO

from compiler_daemon.worker.protocol import WORKER_PROTOCOL, read_frame, write_frame

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Serve jobs from stdin; return the exit code."""
    _die_with_parent()
    # Results travel on the stdout that the daemon gave us; whatever a library prints must not.
    channel: BinaryIO = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")

    from compile_wire.facts import encode_facts
    from compile_wire.torch_side.environment import process_environment
    from compile_wire.torch_side.versions import surprises
    from compiler_daemon.worker.compiler import Compiler

    if found := surprises():
        logging.getLogger(__name__).error("this worker cannot work: %s", "; ".join(found))
        return 1
    compiler = Compiler()
    write_frame(
        channel,
        {
            "type": "hello",
            "protocol": WORKER_PROTOCOL,
            "environment": dict(process_environment()),
            "facts": encode_facts(compiler.facts()),
        },
    )
    while (message := read_frame(sys.stdin.buffer)) is not None and message["type"] == "job":
        for answer in compiler.run(message["id"], message["key"], message["graph"]):
            write_frame(channel, answer)
    return 0


def _die_with_parent() -> None:
    """Ask the kernel to end us with the daemon, however it ends (Linux; elsewhere the closed stdin does it)."""
    parent = os.getppid()  # 1 is a fine parent: in a container the daemon may be it
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:
        sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
