"""A cell while it is played: a daemon of its own behind a proxy, a trainer, the harm, and what is left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil

from compile_wire.v1 import compiler_daemon_pb2 as pb
from tests.e2e.conftest import Daemon, Lab, Outcome, Trainer
from tests.faults.compiler_gate import CompilerGate
from tests.faults.kit import GRAPHS, TRAINER, Kit
from tests.faults.preload import Preload
from tests.faults.proxy import Proxy
from tests.faults.small_disk import SmallDisk

_MARK = "FAULTS_CELL"
_PATIENCE_S = 240.0
"""How long to wait for things that are sure to happen, on a machine that others use, too."""
_TRAINER_S = 480.0
_SERVICE = "/compiler_daemon.v1."
JUMP_S = 3 * 24 * 3600


class Scene:
    """One play of a cell: a cell's `play` sets it up, then it is run and closed. A mark identifies its processes."""

    def __init__(
        self,
        kit: Kit,
        folder: Path,
        *,
        form: str,
        stored: bool,
        timeout_s: float,
        prewarm: bool,
        disk: str = "",
        arguments: tuple[str, ...] = (),
        preload: bool = False,
    ) -> None:
        """`form` is the trainer's, `disk` names the daemon's folder on a small disk, `preload` lets clocks jump."""
        assert os.pathsep not in str(folder), "the gate in it goes into PATH"
        folder.mkdir(mode=0o700, parents=True)
        self.kit = kit
        self.folder = folder
        self.form = form
        self.timeout_s = timeout_s
        self.trainer_environment: dict[str, str] = {}
        self.caches = folder / "caches"
        self.struck = threading.Event()
        self.killed = False
        self.restarted = False
        """Whether the daemon had to be started again afterwards."""
        self.struck_in_time = False
        """Whether the fault struck while the trainer ran."""
        self.background: list[BaseException] = []
        self._stored = stored
        self._closing = contextlib.ExitStack()
        self.gate = CompilerGate(folder / "gate", scratch=folder / "daemon" / "scratch")
        self.lab = Lab(folder, kit.temporary, healthy=False)
        self._closing.callback(self.lab.close)
        directory = folder / "daemon"
        directory.mkdir(mode=0o700)
        self.disk = SmallDisk(directory / disk, mib=24) if disk else None
        if self.disk:
            self._closing.callback(self.disk.close)
        kit.directory(directory, stored=stored)
        self.daemon_preload = Preload(folder / "daemon-control") if preload else None
        self.trainer_preload = Preload(folder / "trainer-control") if preload else None
        self.daemon = Daemon(
            directory,
            kit.temporary,
            ("--workers", "1", *([] if prewarm else ["--no-prewarm"]), *arguments),
            {_MARK: str(folder), **self.gate.environment}
            | (self.daemon_preload.environment if self.daemon_preload else {}),
        ).start()
        self._closing.callback(self.daemon.stop)
        self.proxy = Proxy(folder / "p", self.daemon.address)
        self._closing.callback(self.proxy.close)
        self._channel = grpc.insecure_channel(
            self.daemon.address, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        )
        self._threads: list[threading.Thread] = []
        self._before = self.counters()

    # Harm.

    def kill(self) -> None:
        """Kill the daemon; its connections break, and nobody listens any more."""
        self.daemon.kill()
        self.killed = True
        self.proxy.front.close()

    def stop(self) -> None:
        """Stop the daemon where it stands; the kernel still accepts connections for it."""
        self.daemon.signal(signal.SIGSTOP)

    def cut(self) -> None:
        """Cut every connection; new ones are accepted."""
        self.proxy.front.cut()

    def cut_for_good(self) -> None:
        """Cut every connection and accept no more."""
        self.proxy.front.close()

    def fill_disk(self) -> None:
        """Leave no byte free on the small disk."""
        assert self.disk
        self.disk.fill()

    def exhaust_memory(self) -> None:
        """Make every larger allocation of the daemon fail from now on."""
        assert self.daemon_preload
        assert self.daemon.process
        self.daemon_preload.exhaust_memory(self.daemon.process.pid)

    def jump(self) -> None:
        """Move the clock of the daemon and its workers three days forward, and the trainer's three days back."""
        assert self.daemon_preload
        assert self.trainer_preload
        self.daemon_preload.move_clock(JUMP_S)
        self.trainer_preload.move_clock(-JUMP_S)

    def kill_worker(self) -> None:
        """Wait for a worker if there is none yet, and kill it."""
        deadline = time.monotonic() + _PATIENCE_S
        while not (workers := self._workers()):
            assert time.monotonic() < deadline, "no worker came"
            time.sleep(0.01)
        for worker in workers:
            worker.kill()

    def stop_workers(self) -> None:
        """Stop every worker where it stands."""
        for worker in self._workers():
            worker.suspend()

    def continue_workers(self) -> None:
        """Let the stopped workers continue, if they still exist."""
        for worker in self._workers():
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.resume()

    def await_idle_worker(self, handshake: str = "Handshake") -> None:
        """Make a handshake, and return when the worker that it starts is idle."""
        self.ask("CompileService/Handshake", self.kit.requests[handshake][0])
        self.wait_until(lambda: [worker.state for worker in self.status().workers] == ["idle"], "a worker was idle")

    def occupy_worker(self) -> None:
        """Have the only worker stand still in the middle of another graph, which another client has asked for."""
        self.gate.shut()
        self.ask("CompileService/Handshake", self.kit.requests["Handshake"][0])
        request = self.kit.requests["CompileGraph"][1]
        call = self._stream("CompileService/CompileGraph", request)
        next(call)  # after this first event the compile is under way, and later requests queue behind it
        self.wait_for_compiler()

        def hear() -> None:
            with contextlib.suppress(grpc.RpcError):
                for _ in call:
                    pass

        self.run_beside(hear)

    # Waiting.

    def wait_for_compiler(self) -> None:
        """Return when a compiler stands at the gate."""
        self.wait_until(lambda: self.gate.reached, "a compiler came to the gate")

    def run_beside(self, action: Callable[[], None]) -> None:
        """Run an action in a thread; an exception in it fails the cell."""

        def run() -> None:
            try:
                action()
            except Exception as error:  # noqa: BLE001 - told by `close`
                self.background.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self._threads.append(thread)

    def wait_until(self, condition: Callable[[], object], what: str, *, limit_s: float = _PATIENCE_S) -> None:
        """Poll until the condition holds; raise `TimeoutError` after the limit."""
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"it did not happen that {what}")
            time.sleep(0.02)

    # Questions to the daemon, past the proxy.

    def ask(self, method: str, request: bytes) -> bytes:
        """Return the daemon's answer to one raw message."""
        return next(self._stream(method, request))

    def status(self) -> pb.GetStatusResponse:
        """Return the daemon's status."""
        return pb.GetStatusResponse.FromString(self.ask("AdminService/GetStatus", b""))

    def counters(self) -> dict[str, int]:
        """Return the daemon's counters."""
        return dict(self.status().counters)

    def counted(self) -> dict[str, int]:
        """Return by how much the daemon's counters have risen in this scene."""
        now = self.counters()
        return {name: now[name] - self._before.get(name, 0) for name in now if now[name] > self._before.get(name, 0)}

    # The course of a cell.

    def run(self) -> Outcome:
        """Run the trainer to its end."""
        if self.kit.forks and not self.trainer_preload:
            environment = self.lab.variables(self.daemon, self.caches, self.folder / "report.json")
            outcome = self.kit.forks.run(TRAINER, [self.form], environment | self._environment(), _TRAINER_S)
        else:
            outcome = self.start().wait(_TRAINER_S)
        self.struck_in_time = self.struck.is_set()
        return outcome

    def start(self) -> Trainer:
        """Start the trainer as a process of its own."""
        return self.lab.start(TRAINER, self.form, daemon=self.daemon, caches=self.caches, **self._environment())

    def _environment(self) -> dict[str, str]:
        return {
            _MARK: str(self.folder),
            "COMPILER_DAEMON_ADDRESS": self.proxy.address,
            "TORCH_COMPILE_CLIENT_TIMEOUT": f"{self.timeout_s:g}",
            **self.trainer_environment,
            **(self.trainer_preload.environment if self.trainer_preload else {}),
        }

    def end_trouble(self, awaited: set[str]) -> dict[str, int]:
        """Undo what can be undone, check that the daemon serves (again), and return what it has counted.

        The daemon looks after disk and idle workers once a second, so this waits for one of the counters `awaited`.
        """
        self.gate.open()
        self.proxy.close()
        if self.disk and not self._disk_counts():
            self.disk.free()
        for preload in (self.daemon_preload, self.trainer_preload):
            if preload:
                preload.clear()
        assert self.daemon.process
        self.daemon.signal(signal.SIGCONT)
        if self.killed or self.daemon.process.poll() is not None:
            self.daemon.kill()
            assert self.daemon.process.stdout
            self.daemon.process.stdout.close()
            self.daemon.start()
            self.restarted = True
        counted = self._counted_at_last(awaited)
        if self.disk:
            self.disk.free()
        self.ask("CompileService/Handshake", self.kit.requests["Handshake"][0])
        answer = pb.LookupArtifactResponse.FromString(
            self.ask("CompileService/LookupArtifact", self.kit.requests["LookupArtifact"][0])
        )
        assert answer.entries or not self._stored, "what was stored is not found any more"
        return counted

    def close(self) -> None:
        """End everything; raise if the daemon does not stop cleanly, or if a process is left."""
        try:
            code = self.daemon.stop()
            for thread in self._threads:
                thread.join(30)
            assert code == 0, f"the daemon ended with {code}: {self.daemon.log()[-2000:]}"
            self.wait_until(lambda: not self._left(), "no process was left")
            assert not self.proxy.broken, self.proxy.broken
            assert not self.background, self.background
        finally:
            for process in self._left():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._channel.close()
            self._closing.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def on_close(self, action: Callable[[], object]) -> None:
        """Run this action, too, when the scene is closed."""
        self._closing.callback(action)

    def numbers_expected(self) -> dict[str, Any]:
        """Return what the trainer must print."""
        return {name: self.kit.expected[name] for name in GRAPHS[self.form]}

    def _disk_counts(self) -> bool:
        return self.disk is not None and self.disk.folder.name == "store"

    def _counted_at_last(self, awaited: set[str]) -> dict[str, int]:
        if awaited:
            with contextlib.suppress(TimeoutError):  # the caller reports the missing counter
                self.wait_until(lambda: awaited & self.counted().keys(), "the daemon counted it", limit_s=30)
        return self.counted()

    def _stream(self, method: str, request: bytes) -> Iterator[bytes]:
        token = (self.daemon.directory / "token").read_text().strip()
        call: Any = self._channel.unary_stream(_SERVICE + method)(
            request,
            metadata=[("authorization", f"Bearer {token}")],
            timeout=_PATIENCE_S,
            wait_for_ready=True,
        )
        return iter(call)

    def _workers(self) -> list[psutil.Process]:
        assert self.daemon.process
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.daemon.process.pid).children()
            return [child for child in children if "compiler_daemon.worker" in _command(child)]
        return []

    def _left(self) -> list[psutil.Process]:
        """Return this scene's processes that still run, found by their environment, even if nobody waits for them."""
        mark = f"{_MARK}={self.folder}\0".encode()
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                if mark in Path(f"/proc/{process.pid}/environ").read_bytes() + b"\0" and process.pid != os.getpid():
                    found.append(process)
        return found


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []
