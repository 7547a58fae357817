"""One worker process: started, greeted, given one job at a time, measured, and ended with everything below it.

Guarantees: the event loop never waits for the worker; frames are read and written by a thread of the worker's own.
A job that breaks a limit, or the protocol, costs the worker its life, never the daemon's. Whatever is left of a worker
after `end` is a log file. When the daemon dies, the worker's stdin closes, and it ends by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from compile_wire import tracing
from compile_wire.digest import Digest
from compile_wire.errors import WireError
from compile_wire.facts import decode_facts
from compile_wire.limits import MAX_ARTIFACT_BYTES, MAX_BLOBS
from compiler_daemon.config import PoolConfig
from compiler_daemon.errors import JobRefusedError, WorkerLostError
from compiler_daemon.jobs import CompileResult, Job, WorkerHello, WorkerKind
from compiler_daemon.worker import kept_headers
from compiler_daemon.worker.confinement import VARIABLE, Order
from compiler_daemon.worker.known_facts import write_known
from compiler_daemon.worker.protocol import read_frame, write_frame
from compiler_daemon.workers.frames import BlobFrame, Done, KeyResult, Progress, Warm, is_spent, read_hello, read_reply
from compiler_daemon.workers.process_tree import ProcessTree
from compiler_daemon.workers.session_niceness import set_session_niceness
from compiler_daemon.workers.variables import kept_variables

BlobSink = Callable[[Digest, bytes], object]
"""Takes a blob as it arrives, in the worker's thread; raises where the bytes do not match the digest."""

_MAX_FRAMES = MAX_BLOBS + 1024
"""Of one job: its blobs and far more progress than there are phases."""

_PATIENCE = 0.25
"""After this part of the time that a job may take it takes its full share, also where nobody waits for it."""

_KINDS: Mapping[WorkerKind, tuple[str, ...]] = {"graphs": (), "kernels": ("kernels",)}
"""What the worker's program is told."""

_SPANS = {"rebuilding": "rebuild", "compiling": "compile", "packing": "pack"}
"""What a job's phases are called in a trace."""

_FOREIGN_PREFIXES = ("TORCH", "TRITON", "COMPILER_DAEMON_")
"""What the shell that started the daemon says about torch is not what the client's shell says: none of it is kept, also
where the daemon's user names it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSlot:
    """Says what one worker is given: an interpreter, a folder to compile in, and a log."""

    interpreter: str
    kind: WorkerKind
    scratch: Path
    """Its own and nobody else's: what one graph made of its worker must not come near another's."""
    log: Path
    headers: Path
    """Of torch's, compiled already; it may read them."""
    order: Order | None
    """How it confines itself; None where it is not to."""
    variables: tuple[str, ...] = ()
    """Environment variables that it gets beside the known ones, by name."""

    @property
    def caches(self) -> Path:
        """torch's cache directory, with the facts that are known."""
        return self.scratch / "inductor"

    @property
    def temporary(self) -> Path:
        """Its TMPDIR. torch keeps compiled headers there, and in a shared one it would take other people's."""
        return self.scratch / "tmp"

    def environ(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return the worker's environment variables."""
        kept = kept_variables(base, self.variables)
        kept = {name: value for name, value in kept.items() if not name.startswith(_FOREIGN_PREFIXES)}
        kept |= {VARIABLE: self.order.encode()} if self.order else {}
        return kept | {
            "TORCHINDUCTOR_CACHE_DIR": str(self.caches),
            "TRITON_CACHE_DIR": str(self.scratch / "triton"),
            "TMPDIR": str(self.temporary),
            kept_headers.VARIABLE: str(self.headers),
        }


class WorkerProcess:
    """Runs one worker process: starts it, gives it jobs, measures and ends it."""

    def __init__(self, config: PoolConfig, slot: WorkerSlot) -> None:
        self._config = config
        self.slot = slot
        self.hello: WorkerHello | None = None
        self.job: Job | None = None
        self.job_started = 0.0
        self.jobs_done = 0
        self.idle_since = time.monotonic()
        # It starts the process, too, and lives as long: a worker that asks the kernel to be killed with its parent is
        # killed with the thread that started it.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="worker")
        # Held while the process is started or its end begins: a worker that is ended before its thread got round to
        # starting it must never be started.
        self._birth = threading.Lock()
        self._ended = False
        self._spent = False
        self.stands_back = False
        """Whether a training beside it goes first: nobody waits for it, so far as it knows."""
        self._process: subprocess.Popen[bytes] | None = None
        self._tree: ProcessTree | None = None
        # A socket instead of two pipes: shutting it down wakes the thread that reads from it, even where a process that
        # got away from the worker still holds the other end.
        self._socket: socket.socket | None = None

    @property
    def pid(self) -> int:
        """The process's number; 0 before it is started."""
        return self._process.pid if self._process else 0

    async def start(
        self, known: tuple[Digest, bytes] | None = None, *, niceness: int = 0, waited_for: bool = True
    ) -> WorkerHello:
        """Start the process and wait for its hello; raise `WorkerLostError` where none comes in time.

        `known` is an environment that it may turn out to have, and its facts: it need not find those out again. A
        worker that is not waited for stands back until `come_forward`, until it has a job that somebody waits for, or
        until it has been starting for `stand_back_s`.
        """
        self.stands_back = not waited_for
        loop = asyncio.get_running_loop()
        patience = asyncio.create_task(self._lose_patience(self._config.stand_back_s))
        try:
            async with asyncio.timeout(self._config.start_s):
                hello = await loop.run_in_executor(self._thread, self._greet, known, niceness)
        except TimeoutError as error:
            raise WorkerLostError(f"no worker came up within {self._config.start_s:.0f} s") from error
        except (OSError, WireError) as error:
            raise WorkerLostError(f"no worker came up: {error}{self._last_words()}") from error
        finally:
            patience.cancel()
        self.hello, self.idle_since = hello, time.monotonic()
        return hello

    async def _lose_patience(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await self.come_forward()

    async def come_forward(self) -> None:
        """Take no less of the processors than others any more: somebody waits for this worker, which is starting."""
        await asyncio.to_thread(self._come_forward)

    async def compile(self, job: Job, *, on_phase: Callable[[str], None], sink: BlobSink) -> CompileResult:
        """Have the job done.

        Raises `JobRefusedError` where the worker declines (it lives on) or the job broke a limit, `WorkerLostError`
        where the worker died or broke the protocol, and whatever `sink` raises. Cancelling it ends the worker.
        """
        answer = await self._have_done(job, on_phase=on_phase, sink=sink)
        if isinstance(answer, KeyResult):
            raise WorkerLostError("the worker told a key where an artifact was asked for")
        return answer

    async def key_of(self, job: Job) -> str:
        """Return the key that the worker's torch gives the job's graph, whose own key is empty. Raises as `compile`."""

        def refuse(_digest: Digest, _data: bytes) -> object:
            raise WireError("the worker handed over a blob where a key was asked for")

        answer = await self._have_done(job, on_phase=lambda _phase: None, sink=refuse)
        if not isinstance(answer, KeyResult):
            raise WorkerLostError("the worker compiled where a key was asked for")
        return answer.key

    async def keep_headers(self) -> int:
        """Take over the headers that it makes before its first job; return how many files. It must not have had a job.

        Raises `OSError`, `WireError`, `TimeoutError`.
        """
        if self.jobs_done or self.job or self.hello is None:
            raise WireError("only a worker that has seen nobody's graph makes headers for others")
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._config.start_s):
            return await loop.run_in_executor(self._thread, self._have_warmed, self.hello.environment)

    async def _have_done(
        self, job: Job, *, on_phase: Callable[[str], None], sink: BlobSink
    ) -> CompileResult | KeyResult:
        loop = asyncio.get_running_loop()
        self.job, self.job_started = job, time.monotonic()
        over_limit: list[str] = []
        watch = asyncio.create_task(self._watch(over_limit))
        # Where the processors are never free, a job that nobody waits for would be killed for its time.
        patience = asyncio.create_task(self._lose_patience(self._config.wall_s * _PATIENCE))
        healthy = False

        def note_phase(phase: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended before this thread did
                loop.call_soon_threadsafe(on_phase, phase)

        try:
            answer = await loop.run_in_executor(self._thread, self._converse, job, tracing.carried(), note_phase, sink)
            healthy = True
        except (OSError, WireError) as error:
            if over_limit:
                raise JobRefusedError("LIMIT", over_limit[0]) from error
            raise WorkerLostError(f"{error}{self._last_words()}") from error
        finally:
            watch.cancel()
            patience.cancel()
            self.job, self.idle_since = None, time.monotonic()
            if not healthy:
                await asyncio.shield(self.end(grace_s=0))
        self.jobs_done += 1
        if isinstance(answer, JobRefusedError):
            raise answer
        return answer

    @property
    def is_usable(self) -> bool:
        """Whether another job can be given to it."""
        return not self._ended and not self._spent and not self.has_exited()

    @property
    def has_died(self) -> bool:
        """Whether it has gone without having been ended, or having said that it would."""
        return not self._ended and not self._spent and self.has_exited()

    def has_exited(self) -> bool:
        """Return whether the process has ended by itself. It is not reaped here, so that its number stays its own."""
        if self._process is None:
            return False
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    async def rss_bytes(self) -> int:
        """Return the resident memory of the worker and its children, in bytes."""
        return (await asyncio.to_thread(self._tree.usage)).rss_bytes if self._tree else 0

    async def end(self, *, grace_s: float) -> None:
        """End the worker: ask, wait for `grace_s`, then kill it with everything below it. Ending twice is fine."""
        await asyncio.to_thread(self._end, grace_s)
        self._thread.shutdown(wait=False)

    # Below: in threads.

    def _greet(self, known: tuple[Digest, bytes] | None, niceness: int) -> WorkerHello:
        with self._birth:
            if self._ended:
                raise WireError("the worker was ended before it was started")
            if known:
                self._leave_facts(*known)
            self._spawn()
            if self.stands_back:
                self._set_back(back=True)
            if niceness:
                os.setpriority(os.PRIO_PROCESS, self.pid, os.getpriority(os.PRIO_PROCESS, 0) + niceness)
        assert self._socket is not None
        with self._socket.makefile("rb") as stream:
            hello = read_hello(read_frame(stream))
        if hello.unconfined and self._config.sandbox == "required":
            raise WireError(f"the worker is not confined, and must be: {hello.unconfined}")
        return hello

    def _come_forward(self) -> None:
        with self._birth:
            if self.stands_back:
                self._set_back(back=False)

    def _set_back(self, *, back: bool) -> None:
        self.stands_back = back
        if self.pid:
            set_session_niceness(self.pid, self._config.niceness if back else 0)

    def _leave_facts(self, environment: Digest, facts: bytes) -> None:
        with contextlib.suppress(OSError, WireError):  # the worker asks the machine itself
            write_known(self.slot.caches, environment, decode_facts(facts))

    def _spawn(self) -> None:
        for directory in (self.slot.scratch, self.slot.temporary, self.slot.log.parent):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        with theirs, open(self.slot.log, "ab", buffering=0) as log:
            log.write(f"-- {time.strftime('%Y-%m-%d %H:%M:%S')} {self.slot.interpreter}\n".encode())
            self._socket = ours
            self._process = subprocess.Popen(
                [self.slot.interpreter, *self._config.command, *_KINDS[self.slot.kind]],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=log,
                env=self.slot.environ(os.environ),
                cwd=self.slot.scratch,
                start_new_session=True,
            )
        self._tree = ProcessTree(self._process.pid)
        hard = resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE)[1]
        wanted = self._config.open_files
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (limit, limit))

    def _have_warmed(self, environment: Digest) -> int:
        assert self._socket is not None
        with self._socket.makefile("wb") as out:
            write_frame(out, {"type": "warm", "id": 0})
        with self._socket.makefile("rb") as stream:
            if not isinstance(read_reply(read_frame(stream), 0), Warm):
                raise WireError("the worker does something else than to get warm")
        return kept_headers.keep(self.slot.temporary, self.slot.headers, environment)

    def _converse(
        self, job: Job, trace: str, on_phase: Callable[[str], None], sink: BlobSink
    ) -> CompileResult | KeyResult | JobRefusedError:
        assert self._socket is not None
        number, started = self.jobs_done + 1, time.monotonic()
        received: dict[Digest, int] = {}
        total = 0
        with self._socket.makefile("wb") as out:
            frame = {"type": "job", "id": number, "key": job.key, "graph": job.graph}
            frame |= {"replay": True} if job.replay else {}
            frame |= {"niceness": self._config.niceness} if job.is_background else {}
            write_frame(out, frame)
        # After the job is sent, for the kernel may let this wait for a quarter of a second.
        if self.stands_back != job.is_background:
            self._set_back(back=job.is_background)
        # The worker reaches no collector; how far it is it says anyway.
        spans = tracing.Elsewhere("compile-worker", self.pid, "job", parent=trace, key=job.key)
        with self._socket.makefile("rb") as stream, spans:
            for _ in range(_MAX_FRAMES):
                message = read_frame(stream)
                # Before the answer goes on: nobody may be given a worker in which a graph has left something behind.
                self._spent = self._spent or is_spent(message)
                match read_reply(message, number):
                    case Progress(phase):
                        spans.enter(_SPANS.get(phase, phase))
                        on_phase(phase)
                    case BlobFrame(sha256, data):
                        received[sha256] = len(data)
                        total += len(data)
                        if total > MAX_ARTIFACT_BYTES:
                            raise WireError(f"the worker sent more than {MAX_ARTIFACT_BYTES} bytes")
                        sink(sha256, data)
                    case Done(manifest, facts):
                        seconds = time.monotonic() - started
                        return CompileResult(manifest=manifest, blobs=received, facts=facts, seconds=seconds)
                    case KeyResult() as keyed:
                        return keyed
                    case Warm():
                        raise WireError("the worker got warm in the middle of a job")
                    case refused:
                        return JobRefusedError(refused.reason, refused.message, refused.fields)
        raise WireError(f"the worker sent more than {_MAX_FRAMES} frames")

    async def _watch(self, over_limit: list[str]) -> None:
        """Kill the worker when its job breaks a limit; the conversation then ends by itself.

        A worker that has died is ended, too: where a child of its own outlives it, the socket would stay open.
        """
        assert self._tree is not None
        config, before = self._config, await asyncio.to_thread(self._tree.usage)
        while not over_limit and not self.has_exited():
            await asyncio.sleep(config.watch_s)
            now = await asyncio.to_thread(self._tree.usage)
            elapsed, cpu = time.monotonic() - self.job_started, now.cpu_s - before.cpu_s
            if now.rss_bytes > config.memory_bytes:
                over_limit.append(f"the compile used {now.rss_bytes >> 20} MiB, more than {config.memory_bytes >> 20}")
            elif elapsed > config.wall_s:
                over_limit.append(f"the compile ran for {elapsed:.0f} s, more than {config.wall_s:.0f}")
            elif cpu > config.cpu_s:
                over_limit.append(f"the compile took {cpu:.0f} s of processor time, more than {config.cpu_s:.0f}")
            self.trim_log()
        await asyncio.to_thread(self._end, 0)

    def trim_log(self) -> None:
        """Cut the log when it is too long. The worker appends to it, so it goes on at the new end."""
        with contextlib.suppress(OSError):
            if self.slot.log.stat().st_size > self._config.log_bytes:
                os.truncate(self.slot.log, 0)

    def _end(self, grace_s: float) -> None:
        with self._birth:
            self._ended = True
        if self._process is None or self._socket is None or self._tree is None:
            return
        with contextlib.suppress(OSError):
            if grace_s > 0:
                # End of its stdin tells an idle worker to go.
                self._socket.shutdown(socket.SHUT_WR)
                deadline = time.monotonic() + grace_s
                while not self.has_exited() and time.monotonic() < deadline:
                    time.sleep(0.02)
        self._tree.kill()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.wait()
        self._socket.close()

    def _last_words(self) -> str:
        """Return the last line of the worker's log, where the reason for its death usually stands."""
        try:
            with open(self.slot.log, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 2048))
                lines = file.read().decode("utf-8", "replace").strip().splitlines()
        except OSError:
            return ""
        return f" ({lines[-1][:200]})" if lines and not lines[-1].startswith("-- ") else ""
