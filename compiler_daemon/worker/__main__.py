"""`python -m compiler_daemon.worker [kernels]`: started by the daemon, one job at a time, until the daemon
closes its stdin. With `kernels` it compiles Triton's kernels, and imports no torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Protocol

from compiler_daemon.text.log_format import WORKER_FORMAT, handler
from compiler_daemon.worker.confinement import confine
from compiler_daemon.worker.protocol import WORKER_PROTOCOL, read_frame, write_frame

_PR_SET_PDEATHSIG = 1


class _Compiler(Protocol):
    spent: bool

    def wait_until_warm(self) -> None: ...

    def run(self, job_id: int, key: str, graph: bytes, /, *, replay: bool) -> Iterator[dict[str, Any]]: ...


def main() -> int:
    """Serve jobs from stdin; return the exit code."""
    _die_with_parent()
    # Who ends a job of a cluster signals each of its processes. The daemon alone ends its workers, by killing them: it
    # finishes what is under way, and takes a worker that dies for one that its graph killed. Compilers inherit this.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Results travel on the stdout that the daemon gave us; whatever a library prints must not.
    channel: BinaryIO = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    logging.basicConfig(level=logging.INFO, handlers=[handler(WORKER_FORMAT)])

    unconfined = confine()
    works = _kernels() if sys.argv[1:] == ["kernels"] else _graphs()
    if isinstance(works, str):
        logging.getLogger(__name__).error("this worker cannot work: %s", works)
        return 1
    compiler, environment, facts = works
    hello = {"type": "hello", "protocol": WORKER_PROTOCOL, "environment": dict(environment), "facts": facts}
    write_frame(channel, {**hello, "unconfined": unconfined})
    while (message := read_frame(sys.stdin.buffer)) is not None and message["type"] in {"job", "warm"}:
        if message["type"] == "warm":
            compiler.wait_until_warm()
            write_frame(channel, {"type": "warm", "id": message["id"]})
        elif niceness := message.get("niceness", 0):
            # In a thread, because a niceness is a thread's on Linux, and nobody may take one back: the next job may be
            # one that a training waits for. What the thread starts, threads and compilers, has it from it.
            with ThreadPoolExecutor(1, "stands-back", initializer=_stand_back, initargs=(niceness,)) as pool:
                pool.submit(_do, compiler, message, channel).result()
        else:
            _do(compiler, message, channel)
        if compiler.spent:
            break
    return 0


def _do(compiler: _Compiler, message: Mapping[str, Any], channel: BinaryIO) -> None:
    replay = message.get("replay") is True
    for answer in compiler.run(message["id"], message["key"], message["graph"], replay=replay):
        write_frame(channel, answer)


def _stand_back(niceness: int) -> None:
    with contextlib.suppress(OSError):
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + niceness)


def _graphs() -> tuple[_Compiler, Mapping[str, str], bytes] | str:
    """Return the compiler of graphs, its environment and facts; or why there is none."""
    from compile_torch.environment import process_environment
    from compile_torch.versions import unsupported_reasons
    from compile_wire.facts import encode_facts
    from compiler_daemon.worker.compiler import Compiler

    if found := unsupported_reasons():
        return "; ".join(found)
    compiler = Compiler()
    facts = encode_facts(compiler.facts())
    compiler.warm()
    compiler.remember()
    # torch's modules stay permanently, and lowering a graph makes hundreds of thousands of objects that live until its
    # end: looking through all of them again and again took a tenth of a worker's time. `Compiler` collects after a job.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    return compiler, process_environment(), facts


def _kernels() -> tuple[_Compiler, Mapping[str, str], bytes] | str:
    """Return the compiler of kernels, likewise."""
    try:
        from compile_torch.triton.environment import kernel_environment
        from compile_torch.triton.versions import unsupported_reasons
        from compiler_daemon.worker.kernels import KernelCompiler

        found = unsupported_reasons()
    except ImportError as error:
        return f"there is no triton for this interpreter: {error}"
    if found:
        return "; ".join(found)
    return KernelCompiler(), kernel_environment(), b""


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
