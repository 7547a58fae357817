"""`compiler-daemon serve` in a process of its own, for benches that load it, kill it and measure it from outside."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
import psutil

from benches.harness.processes import start_child
from compile_wire.limits import MAX_MESSAGE_BYTES
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compile_wire.v1 import compiler_daemon_pb2_grpc as pb_grpc

T = TypeVar("T")

_READY_S = 120.0
_STOP_S = 90.0
_OURS = ("TORCH_COMPILE_CLIENT", "COMPILER_DAEMON_", "TORCHINDUCTOR_", "TRITON_", "TORCH_LOGS")
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.use_local_subchannel_pool", 1),  # one channel, one connection: channels of a process share none
    ("grpc.enable_retries", 0),
)


class ServeError(Exception):
    """The daemon did not do what a bench needs of it; the text has the end of its log."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the system says about the daemon's process at one moment."""

    rss_bytes: int
    open_files: int
    threads: int
    cpu_s: float


class ServedDaemon:
    """A daemon on `folder/d`. Its log is `folder/daemon.log`, over all its starts."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        """Nothing is started yet."""
        self.directory = folder / "d"
        self.log_path = folder / "daemon.log"
        self._temporary = folder / "daemon-tmp"
        self._temporary.mkdir(parents=True, exist_ok=True)
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._running().pid

    @property
    def token(self) -> str:
        """What opens it."""
        return (self.directory / "token").read_text().strip()

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        return (("authorization", f"Bearer {self.token}"),)

    def start(self) -> float:
        """Start it; return the seconds until it answered. Raises `ServeError`."""
        started = time.monotonic()
        with self.log_path.open("ab") as log:
            self._process = start_child(
                [sys.executable, "-m", "compiler_daemon", "serve", "--dir", str(self.directory), *self._arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                env=clean_environment() | {"TMPDIR": str(self._temporary)},
            )
        try:
            line = self._first_line(self._process)
        except BaseException:
            self.kill()
            raise
        if not line.startswith("ready "):
            self.kill()
            raise ServeError(f"the daemon did not come up: {self.last_words()}")
        self.address = line.split(" ", 1)[1].strip()
        return time.monotonic() - started

    def kill(self) -> None:
        """End it without a warning, and wait until it has gone."""
        process = self._running()
        process.kill()
        process.wait()
        self._close()

    def stop(self) -> int:
        """Stop it as an operator would; return its exit code."""
        process = self._running()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._close()
        return process.returncode

    def has_ended(self) -> bool:
        """Whether it has gone by itself."""
        return self._running().poll() is not None

    def wait(self, timeout_s: float) -> int:
        """Wait until it ends by itself; return its exit code. Raises `subprocess.TimeoutExpired`."""
        return self._running().wait(timeout_s)

    def frozen(self, look: Callable[[], T]) -> T:
        """Return what `look` sees while the daemon stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            return look()
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def sample(self) -> Sample:
        """Look at the process."""
        process = psutil.Process(self.pid)
        with process.oneshot():
            times = process.cpu_times()
            return Sample(
                rss_bytes=process.memory_info().rss,
                open_files=process.num_fds(),
                threads=process.num_threads(),
                cpu_s=times.user + times.system,
            )

    def status(self, timeout_s: float = 10.0) -> pb.GetStatusResponse:
        """Ask it; raises `grpc.RpcError`."""
        with grpc.insecure_channel(self.address, options=OPTIONS) as channel:
            stub = pb_grpc.AdminServiceStub(channel)
            return stub.GetStatus(pb.GetStatusRequest(), timeout=timeout_s, metadata=self.metadata)

    def last_words(self) -> str:
        """Return the end of its log."""
        return self.log_path.read_text(errors="replace")[-2000:] if self.log_path.exists() else ""

    def log_lines(self, *marks: str) -> list[str]:
        """Return the lines of its log that have one of the marks in them."""
        with self.log_path.open(errors="replace") as log:
            return [line.rstrip() for line in log if any(mark in line for mark in marks)]

    @staticmethod
    def _first_line(process: subprocess.Popen[bytes]) -> str:
        """Return what it says when it is ready; nothing where it does not say anything in time."""
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], _READY_S)
        return process.stdout.readline().decode() if readable else ""

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was never started"
        return self._process

    def _close(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()


def clean_environment() -> dict[str, str]:
    """Return this process's environment without what steers torch's caches, the client or the daemon."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}


def store_bytes_on_disk(directory: Path) -> int:
    """Return what the store's hard limit is about, by the files: blobs, records of artifacts, and what is coming in.

    A file that is renamed into its place meanwhile counts once. Where files come and go meanwhile the sum is of no one
    moment: ask while the daemon stands still.
    """
    sizes: dict[int, int] = {}
    for kind in ("incoming", "artifacts", "blobs"):
        for folder, _, names in os.walk(directory / "store" / kind):
            for name in names:
                try:
                    found = os.stat(os.path.join(folder, name))
                except FileNotFoundError:
                    continue
                sizes[found.st_ino] = found.st_size
    return sum(sizes.values())


def left_over_workers(directory: Path) -> list[int]:
    """Return the processes that were started below the daemon's directory and are still there."""
    found: list[int] = []
    for process in psutil.process_iter():
        try:
            scratch = process.environ().get("TORCHINDUCTOR_CACHE_DIR", "")
        except psutil.Error:
            continue
        if scratch.startswith(f"{directory}/scratch/"):
            found.append(process.pid)
    return found
