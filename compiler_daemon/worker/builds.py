"""The C++ kernels of a job: collected while torch lowers a graph, built together beside it, waited for at the end.

torch waits for a graph's forward kernels before it lowers its backward, and loads each object. A worker runs no kernel,
so neither is needed: what is being built is built while torch goes on, and only packing waits. How kernels are built
together is `batch`'s; whatever goes wrong there, torch builds them one by one, as it always has.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import functools
import logging
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch._inductor import async_compile, codecache
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.codecache import CppPythonBindingsCodeCache

from compile_torch.patches import Patches
from compile_torch.versions import unsupported_build_reasons
from compiler_daemon.worker import kept_headers
from compiler_daemon.worker.batch import (
    EXPORTS,
    Kernel,
    NotBatchableError,
    compile_command,
    composed,
    link_command,
    shared_out,
    stand_in_command,
    stand_in_names,
)

_logger = logging.getLogger(__name__)

_COMMAND_S = 600.0
"""A compile of a share of kernels; the job has a limit of its own."""

_TRIVIAL = """
#include <torch/csrc/inductor/cpp_prefix.h>
extern "C" void kernel(float* out_ptr0)
{
    auto one = at::vec::Vectorized<float>(%d);
    one.store(out_ptr0, static_cast<int64_t>(4));
}
"""


@dataclass(eq=False, slots=True)
class _Round:
    """Builds the kernels of one job. Its threads are its own: they are as nice as the job is."""

    executor: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(max(1, async_compile.get_compile_threads()), "builds")
    )
    collected: list[_Build] = field(default_factory=list)
    pending: list[Future[None]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class _Build:
    """One kernel that is to be built."""

    torch_builds: Callable[[], Any]
    builder: Any
    done: Future[None]


class Builds:
    """Builds the C++ kernels of this process's jobs.

    One job at a time; kernels of a job that was given up may still be built.
    """

    def __init__(self, place: Path) -> None:
        """Nothing is replaced yet. What is made on the way goes to a folder of its own in `place`."""
        self._folder = tempfile.mkdtemp(prefix="builds-", dir=place)
        self._lock = threading.Lock()
        self._round = _Round()
        self._warming: threading.Thread | None = None
        self._stand_ins: dict[str, str] = {}
        self._proven = False
        """Whether torch is as known, and nothing has spoken against it since."""

    def install(self, patches: Patches) -> None:
        """Take torch's builds over, if torch is as known; else torch builds as it always has, and the log says so."""
        if found := unsupported_build_reasons():
            _logger.warning("kernels are built one by one: %s", "; ".join(found))
            return
        self._proven = True
        if kept := os.environ.get(kept_headers.VARIABLE):
            kept_headers.lend(Path(kept), Path(codecache._HEADER_DIR))
        patches.replace(AsyncCompile, "cpp_pybinding", self._collecting)
        patches.replace(AsyncCompile, "wait", self._waiting)
        patches.replace(codecache, "_precompile_header", self._precompiling)

    def warm(self) -> None:
        """Have torch compile its header, and prove that what is built here loads and runs; in a thread of its own.

        Where the proof fails, torch builds as it always has.
        """
        if self._proven:
            self._warming = threading.Thread(target=self._warm, name="builds-warm", daemon=True)
            self._warming.start()

    def wait_until_warm(self) -> None:
        """Wait for what `warm` has begun."""
        if self._warming is not None:
            self._warming.join()

    def flush(self) -> None:
        """Begin to build what was collected."""
        self._start(self._round)

    def finish(self) -> None:
        """Wait until everything is built; raise what torch would raise for a kernel that cannot be."""
        self.flush()
        for done in self._round.pending:
            done.result()
        self.forget()

    def forget(self) -> None:
        """Cancel what is not built yet and begin anew: the job is over, and nobody waits for its kernels."""
        self.wait_until_warm()  # the caches of torch's that are emptied between jobs are in use until then
        over, self._round = self._round, _Round()
        for done in over.pending:
            done.cancel()
        over.executor.shutdown(wait=False)

    def _warm(self) -> None:
        mine = _Round()
        try:
            collect = functools.partial(self._collect, mine)
            kernels = [
                CppPythonBindingsCodeCache.load_pybinding_async(["float*"], _TRIVIAL % n, submit_fn=collect)
                for n in (1, 2)
            ]
            self._start(mine)
            out = torch.zeros(16)
            for number, kernel in enumerate(kernels, 1):
                kernel()(out)
                if out[:4].tolist() != [number] * 4:
                    raise RuntimeError(f"a kernel returned {out[:4].tolist()}")  # noqa: TRY301 - one place where it ends
        except Exception:
            _logger.warning("kernels are built one by one, since a first one failed", exc_info=True)
            self._proven = False
        finally:
            mine.executor.shutdown(wait=False)

    def _start(self, this: _Round) -> None:
        collected, this.collected = this.collected, []
        groups: dict[tuple[object, ...], list[tuple[_Build, Kernel]]] = {}
        for build in collected:
            try:
                kernel = _kernel(build.builder)
                groups.setdefault(kernel.alike, []).append((build, kernel))
            except NotBatchableError as error:
                _logger.debug("a kernel is built by itself: %s", error)
                self._submit(this, build.done, build.torch_builds)
        ways = max(1, async_compile.get_compile_threads())
        for group in groups.values():
            by_target = {kernel.target: build for build, kernel in group}
            for share in shared_out([kernel for _, kernel in group], ways):
                self._begin(this, share, [by_target[kernel.target] for kernel in share])

    def _collecting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def cpp_pybinding(this: Any, argtypes: list[str], source_code: str) -> Any:
            if not self._proven:
                return original(this, argtypes, source_code)
            collect = functools.partial(self._collect, self._round)
            get = CppPythonBindingsCodeCache.load_pybinding_async(argtypes, source_code, submit_fn=collect)

            def kernel(*args: Any) -> Any:
                """Load the kernel after all and run it: a worker runs one only where torch times it, if ever."""
                self.flush()
                return get()(*args)

            return kernel

        return cpp_pybinding

    def _precompiling(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Let one thread at a time compile a header: torch remembers it, but two would both read it through before."""
        lock = threading.Lock()

        @functools.wraps(original)
        def precompile_header(*args: Any, **kwargs: Any) -> Any:
            with lock:
                return original(*args, **kwargs)

        return precompile_header

    def _waiting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def wait(this: Any, scope: dict[str, Any]) -> Any:
            self.flush()
            return original(this, scope)

        return wait

    def _collect(self, this: _Round, torch_builds: Any) -> Future[None]:
        """Take a build from torch; what is returned, torch waits for when the kernel is run."""
        done: Future[None] = Future()
        this.pending.append(done)
        builders: Sequence[Any] = torch_builds.args[1] if torch_builds.func is codecache._worker_compile_cpp else ()
        if len(builders) == 1:
            this.collected.append(_Build(torch_builds, builders[0], done))
        else:
            self._submit(this, done, torch_builds)
        return done

    def _begin(self, this: _Round, share: Sequence[Kernel], builds: Sequence[_Build]) -> None:
        if len(share) == 1:
            self._submit(this, builds[0].done, builds[0].torch_builds)
            return

        def build_together() -> None:
            try:
                self._build(share)
            except Exception as error:  # noqa: BLE001 - torch's own way is always there, and raises what is to be raised
                _logger.warning("%d kernels are built one by one: %s", len(share), str(error)[:500])
                for one in builds:
                    self._submit(this, one.done, one.torch_builds)
                return
            for one in builds:
                _end(one.done)

        this.executor.submit(build_together)

    def _submit(self, this: _Round, done: Future[None], work: Callable[[], Any]) -> None:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
                _end(done, error)
            else:
                _end(done)

        this.executor.submit(run)

    def _build(self, share: Sequence[Kernel]) -> None:
        """Make the objects of kernels with one command line."""
        stand_ins = self._stand_ins_for(share[0])
        # The compiler writes the file's name into what it makes, so that each batch has a folder, and all one name.
        with tempfile.TemporaryDirectory(prefix="batch-", dir=self._folder, ignore_cleanup_errors=True) as folder:
            source, together = os.path.join(folder, "batch.cpp"), os.path.join(folder, "batch.o")
            with open(source, "w") as file:
                file.write(composed(share))
            _call(compile_command(share[0], source, together))
            for kernel in share:
                made = os.path.join(folder, "kernel.so")
                exports = os.path.join(stand_ins, "exports")
                command = link_command(kernel, together, exports=exports, stand_ins=stand_ins)
                _call([*command, "-o", made])
                os.replace(made, kernel.target)

    def _stand_ins_for(self, kernel: Kernel) -> str:
        names = stand_in_names(kernel)
        with self._lock:
            name = f"{kernel.compiler} {' '.join(names)}"
            if name not in self._stand_ins:
                folder = tempfile.mkdtemp(prefix="libraries-", dir=self._folder)
                for library in names:
                    _call(stand_in_command(kernel.compiler, library, os.path.join(folder, f"lib{library}.so")))
                with open(os.path.join(folder, "exports"), "w") as file:
                    file.write(EXPORTS)
                self._stand_ins[name] = folder
            return self._stand_ins[name]


def _kernel(builder: Any) -> Kernel:
    return Kernel.read(builder.get_command_line(), target=builder.get_target_file_path())


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_COMMAND_S)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr[-1000:]}")


def _end(done: Future[None], error: BaseException | None = None) -> None:
    """Tell whoever waits, unless the job was given up meanwhile."""
    if not done.set_running_or_notify_cancel():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
