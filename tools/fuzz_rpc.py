"""Fuzz every RPC of a real daemon, over its real socket: whatever comes in, it answers politely and goes on.

    python tools/fuzz_rpc.py [--cases N] [--seconds S] [--seed N] [--out DIR] [METHOD ...]
    python tools/fuzz_rpc.py --case 4711 CompileService.LookupArtifact      shows one case, and what it is answered

The methods are those of the schema, whichever these are, and those of the health service. Of each method `--cases`
requests are made. The first `--wire` of them are sent, many at a time; the others go to the same handlers behind the
same interceptors inside `--jobs` processes, where no transport takes time. Shutdown is called without the token, or
with bytes that are no message; at the end it is called once in earnest. With TMPDIR in memory no disk takes time.

Fails (exit code 1) on a status that no caller's mistake explains (UNKNOWN, INTERNAL, ...), a call that does not end, a
traceback or an error in the daemon's log, a daemon that does not serve a healthy caller in between, memory or open
files that grow, or a store that is not in order afterwards. What failed is printed as bytes. Talk goes to stderr; the
last line on stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import logging
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
from fuzz_inside import Inside
from fuzz_messages import ENVIRONMENT, FIELDS, KNOWN, WRONG_TOKEN, Case, Method, Requests, methods, stored

from benches.harness.daemon import OPTIONS, ServedDaemon, left_over_workers
from benches.harness.processes import run_bench
from compile_wire.digest import Digest, digest_of
from compile_wire.limits import PROTOCOL_VERSION
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compile_wire.v1 import compiler_daemon_pb2_grpc as pb_grpc
from compiler_daemon.store import Store, StoreConfig

IN_FLIGHT = 48
DEADLINE_S = 60.0
HURRY_S = 0.002
QUIET_S = 0.3
"""A stream that has said something and then nothing for so long is left: it may go on for ever."""
CHECK_EVERY = 5000
_LOST_STATUS = "LOST"
_LOST = "Internal error from Core"
"""What grpc.aio says on this side where a call ended while it was still sending: the status that came has been lost.
What the daemon said stands in its log, where INTERNAL and UNKNOWN are looked for."""
WORKER_S = 120.0
MAX_GROWTH_MIB = 32.0
"""Of the daemon, from the end of the first twentieth of a method's cases to the end of the last."""
MAX_STEADY_GROWTH_MIB = 8.0
"""Inside, over the second half of a method's cases: caches have filled by then, a leak goes on."""
MAX_GROWTH_FILES = 24

ALLOWED = {_LOST_STATUS} | set(
    "OK INVALID_ARGUMENT NOT_FOUND FAILED_PRECONDITION RESOURCE_EXHAUSTED PERMISSION_DENIED UNAUTHENTICATED".split()
)
_BAD_LINES = (" ERROR ", " CRITICAL ", " INTERNAL ", " UNKNOWN ", " DATA_LOSS ")
Call = Callable[[Method, Case], Awaitable[tuple[str, str]]]
"""Make a call; return the status and its text."""


@dataclass(kw_only=True, slots=True)
class Tally:
    """What became of a method's cases."""

    cases: int = 0
    over_the_socket: int = 0
    inside: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    failures: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    rss_mib: float = 0.0
    growth_mib: float = 0.0
    files: int = 0
    growth_files: int = 0
    healthy_calls: int = 0
    seconds_inside: float = 0.0
    growth_inside_mib: float = 0.0
    steady_growth_mib: float = 0.0


def main(argv: list[str] | None = None) -> int:
    """Fuzz; return the exit code."""
    known = {method.name: method for method in methods()}
    options = _options(argv)
    if unknown := set(options.methods) - set(known):
        sys.stderr.write(f"no method {', '.join(sorted(unknown))}; there are {', '.join(known)}\n")
        return 2
    chosen = [known[name] for name in options.methods or known]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as text:
        document = _run(Path(text), chosen, options)
    for complaint in document["complaints"]:
        _say(f"FAILED: {complaint}")
    if options.out is not None:
        from fuzz_page import write

        write(options.out, document)
    print(json.dumps(document))  # noqa: T201 - the tool's one result
    return 1 if document["complaints"] else 0


def _run(folder: Path, chosen: list[Method], options: argparse.Namespace) -> dict[str, Any]:
    daemon = ServedDaemon(folder, "--workers", "1")
    daemon.start()
    _prepare(daemon)
    complaints: list[str] = []
    try:
        true_environment = _await_worker(daemon)
        before = daemon.sample()
        tallies = asyncio.run(_fuzz_all(daemon, chosen, options, complaints, true_environment))
        after = daemon.sample()
        complaints += _end(daemon)
    finally:
        if not daemon.has_ended():
            daemon.stop()
    complaints += [f"the log: {line}" for line in daemon.log_lines(*_BAD_LINES)[:20]]
    store = _audit(daemon.directory)
    complaints += [f"the store: {name} is {value}" for name, value in store.items() if name != "artifacts" and value]
    if left := left_over_workers(daemon.directory):
        complaints.append(f"{len(left)} processes were left")
    if options.case is None:
        _run_inside(chosen, options, tallies, complaints)
    from benches.harness.machine import machine_line  # imports torch
    from benches.harness.markdown import command

    return {
        "command": command(),
        "machine": machine_line(),
        "shared_machine": options.shared,
        "seed": options.seed,
        "cases_a_method": options.cases,
        "cases": sum(tally.cases for tally in tallies.values()),
        "methods": {name: _plain(tally) for name, tally in tallies.items()},
        "rss_mib": {"before": round(before.rss_bytes / 2**20, 1), "after": round(after.rss_bytes / 2**20, 1)},
        "open_files": {"before": before.open_files, "after": after.open_files},
        "daemon_cpu_s": round(after.cpu_s, 1),
        "store": store,
        "complaints": complaints,
    }


async def _fuzz_all(
    daemon: ServedDaemon,
    chosen: list[Method],
    options: argparse.Namespace,
    complaints: list[str],
    true_environment: Digest | None,
) -> dict[str, Tally]:
    requests = Requests(options.seed, true_environment=true_environment)
    tallies: dict[str, Tally] = {}
    async with Wire(daemon) as wire:
        for method in chosen:
            tally = tallies[method.name] = Tally()
            if options.case is not None:
                case = requests.case(method, options.case)
                _say(f"{case.manner}: {case.messages!r}\n{await wire.call(method, case)}")
                continue
            await wire.greet()
            fuzz = Fuzz(method, requests, tally, complaints)
            await fuzz.over_the_socket(daemon, wire, iter(range(min(options.cases, options.wire))))
    return tallies


def _run_inside(
    chosen: list[Method], options: argparse.Namespace, tallies: dict[str, Tally], complaints: list[str]
) -> None:
    """Have processes give the handlers what did not go over the socket."""
    left = range(min(options.cases, options.wire), options.cases)
    if not left:
        return
    seconds = options.inside_minutes * 60 * options.jobs / len(chosen)
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        runs = {method.name: pool.submit(fuzz_inside, method.name, left, options.seed, seconds) for method in chosen}
        for name, run in runs.items():
            more, found = run.result()
            complaints += found
            tally = tallies[name]
            tally.inside = more.cases
            tally.cases += more.cases
            tally.failures += more.failures
            tally.statuses += more.statuses
            tally.seconds_inside, tally.growth_inside_mib = more.seconds, more.growth_mib
            tally.steady_growth_mib = more.steady_growth_mib
            tally.slowest_s = max(tally.slowest_s, more.slowest_s)


def fuzz_inside(name: str, numbers: range, seed: int, seconds: float) -> tuple[Tally, list[str]]:
    """Give a method's handlers these cases, in this process; return the outcome. For a process pool."""
    method = next(method for method in methods() if method.name == name)
    tally, complaints, log = Tally(), list[str](), _Errors()
    logging.getLogger().addHandler(log)

    async def run(folder: Path) -> None:
        requests = Requests(seed, true_environment=None)
        async with Inside.of(folder / "d") as inside:
            await inside.publish([stored(number).request() for number in range(KNOWN)], FIELDS)
            await Fuzz(method, requests, tally, complaints).inside(inside, iter(numbers), seconds)

    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        asyncio.run(run(Path(folder)))
        complaints += [
            f"{name}: {what} in the store: {count}"
            for what, count in _audit(Path(folder) / "d").items()
            if what != "artifacts" and count
        ]
    logging.getLogger().removeHandler(log)
    return tally, [*complaints, *(f"{name}: the log: {line}" for line in log.lines[:10])]


class _Errors(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.lines.append(self.format(record))


class Fuzz:
    """The cases of one method."""

    def __init__(self, method: Method, requests: Requests, tally: Tally, complaints: list[str]) -> None:
        self._method = method
        self._requests = requests
        self._tally = tally
        self._complaints = complaints

    async def over_the_socket(self, daemon: ServedDaemon, wire: Wire, numbers: Iterator[int]) -> None:
        """Send cases until there are none."""
        begin = time.monotonic()
        tally = self._tally
        first: Any = None
        while block := list(itertools.islice(numbers, CHECK_EVERY)):
            await self._block(wire.call, iter(block))
            if daemon.has_ended():
                self._complaints.append(f"{self._method.name}: the daemon ended, after {tally.cases} cases")
                break
            if failure := await wire.check():
                self._complaints.append(f"{self._method.name}: a healthy caller: {failure}, after {tally.cases} cases")
            tally.healthy_calls += 1
            sample = daemon.sample()
            first = first or sample
            tally.rss_mib = round(sample.rss_bytes / 2**20, 1)
            tally.growth_mib = round((sample.rss_bytes - first.rss_bytes) / 2**20, 1)
            tally.files, tally.growth_files = sample.open_files, sample.open_files - first.open_files
            if tally.cases % (4 * CHECK_EVERY) == 0:
                rate = tally.cases / (time.monotonic() - begin)
                _say(f"{self._method.name}: {tally.cases}, {rate:.0f}/s, {tally.rss_mib} MiB, {dict(tally.statuses)}")
        tally.over_the_socket = tally.cases
        tally.seconds = round(time.monotonic() - begin, 1)
        rate = tally.cases / max(tally.seconds, 0.1)
        _say(f"{self._method.name}: {tally.cases} cases, {rate:.0f}/s, {tally.rss_mib} MiB, {dict(tally.statuses)}")
        if tally.growth_mib > MAX_GROWTH_MIB:
            self._complaints.append(f"{self._method.name}: the daemon's memory grew by {tally.growth_mib} MiB")
        if tally.growth_files > MAX_GROWTH_FILES:
            self._complaints.append(f"{self._method.name}: {tally.growth_files} more files are open than before")

    async def inside(self, inside: Inside, numbers: Iterator[int], seconds: float) -> None:
        """Give the handlers cases in this process, for about so long."""
        begin, tally, memory = time.monotonic(), self._tally, list[float]()
        while (block := list(itertools.islice(numbers, CHECK_EVERY))) and time.monotonic() < begin + seconds:
            await self._block(inside.call, iter(block))
            tally.rss_mib = round(psutil.Process().memory_info().rss / 2**20, 1)
            memory.append(tally.rss_mib)
        half = (len(memory) + 1) // 2
        tally.growth_mib = round(memory[-1] - memory[0], 1)
        tally.steady_growth_mib = round(memory[-1] - max(memory[:half]), 1)
        tally.inside = tally.cases
        tally.seconds = round(time.monotonic() - begin, 1)
        rate = tally.cases / max(tally.seconds, 0.1)
        seen = f"{rate:.0f}/s, {tally.rss_mib} MiB, {dict(tally.statuses)}"
        _say(f"{self._method.name}: {tally.cases} cases inside, {seen}")
        if tally.steady_growth_mib > MAX_STEADY_GROWTH_MIB:
            grown = f"{tally.steady_growth_mib} MiB in its second half, {tally.growth_mib} MiB in all"
            self._complaints.append(f"{self._method.name}: inside, memory grew by {grown}")

    async def _block(self, call: Call, numbers: Iterator[int]) -> None:
        await asyncio.gather(*(self._sender(call, numbers) for _ in range(IN_FLIGHT)))

    async def _sender(self, call: Call, numbers: Iterator[int]) -> None:
        for number in numbers:
            case = self._requests.case(self._method, number)
            begin = time.monotonic()
            status, text = await call(self._method, case)
            self._tally.slowest_s = max(self._tally.slowest_s, round(time.monotonic() - begin, 2))
            self._tally.cases += 1
            self._tally.statuses[status] += 1
            if not _allowed(status, case):
                self._fail(case, f"{status}: {text}")

    def _fail(self, case: Case, what: str) -> None:
        self._tally.failures += 1
        if self._tally.failures <= 10:
            shown = [part[:2000] for part in case.messages]
            self._complaints.append(f"{self._method.name} case {case.number} ({case.manner}): {what}; {shown!r}")


def _allowed(status: str, case: Case) -> bool:
    if case.manner == "cancelled" and status == "CANCELLED":
        return True
    if case.manner == "hurried" and status in ("DEADLINE_EXCEEDED", "CANCELLED"):
        return True
    if case.manner.endswith("token"):
        # The health service asks for none; and a message over the limit is refused by the transport, unread.
        return status in ALLOWED
    return status in ALLOWED and status != "UNAUTHENTICATED"


class Wire:
    """Calls over the daemon's socket, as bytes, over several connections."""

    def __init__(self, daemon: ServedDaemon) -> None:
        self._token = daemon.metadata
        # What is too long for the daemon is to be refused by it, and not by this side.
        options = [*(option for option in OPTIONS if "send" not in option[0]), ("grpc.max_send_message_length", -1)]
        self._channels = [grpc.aio.insecure_channel(daemon.address, options=options) for _ in range(4)]

    async def __aenter__(self) -> Wire:
        """Nothing is opened before the first call."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hang up."""
        for channel in self._channels:
            await channel.close()

    async def call(self, method: Method, case: Case) -> tuple[str, str]:
        """Make one call, to its end or until it says no more."""
        channel = self._channels[case.number % len(self._channels)]
        many_in, many_out = method.streams
        make: Any = {
            (False, False): channel.unary_unary,
            (False, True): channel.unary_stream,
            (True, False): channel.stream_unary,
            (True, True): channel.stream_stream,
        }[many_in, many_out]
        metadata = {"no token": (), "wrong token": WRONG_TOKEN}.get(case.manner, self._token)
        given: Any = _each(case.messages) if many_in else case.messages[0]
        call = make(method.path)(given, metadata=metadata, timeout=HURRY_S if case.manner == "hurried" else DEADLINE_S)
        if case.manner == "cancelled":
            await asyncio.sleep(0.001)
            call.cancel()
        try:
            if many_out:
                await self._listen(call, finite=method.descriptor.name in ("CompileGraph", "ReadBlob"))
            else:
                await call
        except grpc.aio.AioRpcError as error:
            if many_in and error.details() == _LOST:
                return _LOST_STATUS, ""
            return error.code().name, error.details() or ""
        except asyncio.CancelledError:
            # So gRPC says that the call ended while requests were still being sent; how it ended, the call knows.
            return (await call.code()).name, await call.details()
        return "OK", ""

    async def _listen(self, call: Any, *, finite: bool) -> None:
        """Read a stream to its end; one that may go on for ever is left after its first silence."""
        while True:
            reading = asyncio.ensure_future(call.read())
            done, _ = await asyncio.wait([reading], timeout=None if finite else QUIET_S)
            if not done:
                call.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                return
            if reading.result() is grpc.aio.EOF:
                return
            if not finite:
                call.cancel()
                return

    async def greet(self) -> None:
        """Introduce the environment: a flood of others may have displaced it."""
        stub: Any = pb_grpc.CompileServiceStub(self._channels[0])
        request = pb.HandshakeRequest(protocol_version=PROTOCOL_VERSION, environment=FIELDS)
        await stub.Handshake(request, metadata=self._token, timeout=DEADLINE_S)

    async def check(self) -> str:
        """Call as a healthy caller; return what went wrong, if anything."""
        one = stored(KNOWN - 1)
        stub: Any = pb_grpc.CompileServiceStub(self._channels[0])
        request = pb.LookupArtifactRequest(environment_id=ENVIRONMENT, key=one.key)
        try:
            await self.greet()
            # Again: a call that removes artifacts may have met this one.
            await stub.PublishArtifact(one.request(), metadata=self._token, timeout=DEADLINE_S)
            answer = await stub.LookupArtifact(request, metadata=self._token, timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        for entry in answer.entries:
            if entry.manifest == one.manifest:
                return "" if [blob.data for blob in entry.blobs] == list(one.blobs) else "got other bytes"
        return "found nothing"


async def _each(messages: tuple[bytes, ...]) -> Any:
    for message in messages:
        yield message


def _prepare(daemon: ServedDaemon) -> None:
    with grpc.insecure_channel(daemon.address, options=OPTIONS) as channel:
        stub = pb_grpc.CompileServiceStub(channel)
        greeting = pb.HandshakeRequest(
            protocol_version=PROTOCOL_VERSION, environment=FIELDS, interpreter=sys.executable
        )
        stub.Handshake(greeting, metadata=daemon.metadata, timeout=DEADLINE_S)
        for number in range(KNOWN):
            stub.PublishArtifact(stored(number).request(), metadata=daemon.metadata, timeout=DEADLINE_S)


def _await_worker(daemon: ServedDaemon) -> Digest | None:
    """Wait until a worker has said in which environment it runs."""
    limit = time.monotonic() + WORKER_S
    while time.monotonic() < limit:
        for worker in daemon.status().workers:
            if worker.state == "idle" and worker.environment_id:
                return Digest(worker.environment_id)
        time.sleep(0.2)
    return None


def _end(daemon: ServedDaemon) -> list[str]:
    """Shut it down as an operator would; return what went wrong."""
    if daemon.has_ended():
        return ["the daemon ended before it was told to"]
    with grpc.insecure_channel(daemon.address, options=OPTIONS) as channel:
        stub = pb_grpc.AdminServiceStub(channel)
        stub.Shutdown(pb.ShutdownRequest(), metadata=daemon.metadata, timeout=DEADLINE_S)
    code = daemon.wait(DEADLINE_S)
    return [f"the daemon's exit code is {code}"] if code else []


def _audit(directory: Path) -> dict[str, int]:
    """Open the store without a daemon and read everything; return what is there, and what is not in order."""
    root = directory / "store"
    with Store.open(StoreConfig(root=root, address="audit")) as store:
        report = store.scan_report
        rows = store.artifacts()
        unreadable = 0
        for row in rows:
            found = {one.digest: one for one in store.find(row.environment, row.key, limit=64)}
            if row.digest not in found:
                unreadable += 1
                continue
            unreadable += sum(digest_of(store.read_blob(blob)) != blob for blob in found[row.digest].blobs)
        return {
            "artifacts": len(rows),
            "unreadable": unreadable,
            "temporary_files": report.temporary_files,
            "out_of_place": report.lost_artifacts + report.lost_blobs + report.adopted_artifacts + report.adopted_blobs,
            "quarantined": store.usage().quarantined,
        }


def _plain(tally: Tally) -> dict[str, Any]:
    return {**asdict(tally), "statuses": dict(tally.statuses.most_common())}


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuzz every RPC of a real daemon, over its real socket.")
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="as CompileService.ReadBlob; all by default")
    parser.add_argument("--cases", type=int, default=20_000, help="for each method (default 20000)")
    parser.add_argument("--wire", type=int, default=10**9, help="so many of them over the socket; all by default")
    parser.add_argument("--inside-minutes", type=float, default=1e6, help="time for the others; then fewer are made")
    parser.add_argument("--jobs", type=int, default=2, help="processes for the others")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shared", default="", help="what else ran on the machine, for the report")
    parser.add_argument("--case", type=int, help="only this case of each METHOD, shown")
    parser.add_argument("--out", type=Path, help="folder for fuzz.json and fuzz.md")
    return parser.parse_args(argv)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    run_bench(main)
