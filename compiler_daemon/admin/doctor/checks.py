"""What is wrong, in words, and what to do about it: for `compiler-daemon doctor`.

Looks and changes nothing; shows the token to nobody whom the kernel calls another user, and prints neither it nor the
secret. What is installed is read from metadata: nothing of torch is imported.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from compile_wire.endpoint.address import MAX_SOCKET_PATH_BYTES, Address, TcpAddress, UnixAddress
from compile_wire.endpoint.credentials import is_clients
from compile_wire.endpoint.peer import probe
from compile_wire.endpoint.private_files import SECRET_NAME, TOKEN_NAME
from compile_wire.errors import PeerError
from compile_wire.signature import SECRET_BYTES
from compiler_daemon.access.directory import DaemonNote, DirectoryLock
from compiler_daemon.access.register import KeyFiles
from compiler_daemon.admin.answers import DaemonState
from compiler_daemon.admin.doctor.key_checks import (
    check_client,
    check_keys,
    check_private,
    check_tls,
)
from compiler_daemon.admin.doctor.tier_checks import check_tiers
from compiler_daemon.admin.doctor.variables import check_variables
from compiler_daemon.config import DaemonLocation
from compiler_daemon.endpoint import read_address, written_address
from compiler_daemon.errors import DaemonError
from compiler_daemon.text import numbers
from compiler_daemon.text.findings import Finding, note, ok, problem
from compiler_daemon.worker.confinement import in_words, why_not

OLDEST_TORCH, NEWEST_TORCH = (2, 11), (2, 15)
"""As in `compile_torch.versions`, whose room knows torch; a test holds the two together."""

_ENTRY_POINT = "compile_client:_activate"
_CONNECT_S = 2.0
_LITTLE_ROOM_BYTES = 256 * 2**20

Ask = Callable[[], tuple[str, DaemonState]]
"""Returns the daemon's health and status; raises `DaemonError` where it does not answer in time."""


def examine(
    place: DaemonLocation,
    environ: Mapping[str, str],
    ask: Ask,
    tiers: Sequence[str] = (),
    *,
    try_trainer: Callable[[], Finding] | None = None,
) -> list[Finding]:
    """Return what every check found; those that need what is not there are left out.

    `try_trainer` is called where a daemon answers and torch and the client are there; it takes seconds.
    """
    found = list(_elsewhere(place, ask) if is_clients(place.directory) else _daemon(place, environ, ask, tiers))
    answers = any(finding.check == "answers" and finding.level == "ok" for finding in found)
    here = [check_torch(), check_entry_point()]
    found += [*_tools(environ), *here, *check_environment(environ), *check_variables(environ)]
    if try_trainer is not None and answers and all(finding.level == "ok" for finding in here):
        found.append(try_trainer())
    return found


def _daemon(place: DaemonLocation, environ: Mapping[str, str], ask: Ask, tiers: Sequence[str]) -> Iterator[Finding]:
    directory = place.directory
    yield check_private(directory, "directory", 0o700)
    if os.path.isdir(directory):
        made_by = "the next start" if DirectoryLock(directory).is_held() else "`compiler-daemon serve`"
        yield check_private(directory / TOKEN_NAME, "token", 0o600, made_by=made_by)
        yield check_private(directory / SECRET_NAME, "secret", 0o600, size=SECRET_BYTES, made_by=made_by)
        yield from check_keys(directory)
    state: DaemonState | None = None
    try:
        written, held = DaemonNote.read(directory), DirectoryLock(directory).is_held()
        address = place.address or read_address(written.address if written else str(place.default_address))
    except (DaemonError, OSError) as error:
        yield problem("daemon", str(error))
    else:
        yield check_running(written, held=held)
        secured = KeyFiles(directory).exist()
        yield check_address(address, secured=secured)
        yield (connected := _connection(directory, address, secured=secured, held=held))
        if connected.level == "ok":
            answers, state = check_answers(ask)
            yield answers
    yield check_sandbox(state)
    yield from check_store(directory / "store")
    yield check_room(directory, state)
    yield from check_tiers(directory, environ, tiers, state)


def _elsewhere(place: DaemonLocation, ask: Ask) -> Iterator[Finding]:
    """Check a directory that `keys client` made: its daemon is on another machine, or is spoken to as if it were."""
    directory = place.directory
    yield check_private(directory, "directory", 0o700)
    yield check_private(directory / SECRET_NAME, "secret", 0o600, size=SECRET_BYTES)
    yield from check_client(directory)
    try:
        named = str(place.address or written_address(directory))
        address = read_address(named) if named else None
    except (DaemonError, OSError) as error:
        yield problem("address", str(error))
        return
    if address is None:
        yield problem("address", "none is written in this directory: name one with COMPILER_DAEMON_ADDRESS=HOST:PORT")
        return
    yield check_address(address, secured=True)
    yield (connected := _connection(directory, address, secured=True, held=True))
    if connected.level == "ok":
        yield check_answers(ask)[0]


def _connection(directory: Path, address: Address, *, secured: bool, held: bool) -> Finding:
    if secured and isinstance(address, TcpAddress):
        return check_tls(directory, address)
    return check_connection(address, held=held)


def check_running(written: DaemonNote | None, *, held: bool) -> Finding:
    """Whether a daemon serves the directory: it holds the lock, and it has written where it is."""
    if held and written:
        return ok("daemon", f"process {written.pid} serves at {written.address}")
    if held:
        return note("daemon", "one starts or stops at this moment: ask again")
    if written:
        return problem("daemon", f"process {written.pid} was killed; what it stored is kept: `compiler-daemon serve`")
    return problem("daemon", "none runs: start one with `compiler-daemon serve`")


def check_address(address: Address, *, secured: bool = False) -> Finding:
    """Whether client and daemon can use the address at all."""
    if isinstance(address, UnixAddress):
        length = len(os.fsencode(address.path))
        return ok("address", f"{address}, {length} of at most {MAX_SOCKET_PATH_BYTES} bytes")
    if secured:
        return ok("address", f"{address}, with TLS")
    if not address.is_local:
        return problem("address", f"{address} is no loopback address: `compiler-daemon keys init`, or use unix:PATH")
    return note("address", f"{address} can be reached by every user of this machine: unix:PATH cannot")


def check_connection(address: Address, *, held: bool) -> Finding:
    """Whether somebody accepts connections there, and of which user; nothing is sent."""
    if isinstance(address, TcpAddress):
        return _check_port(address, held=held)
    try:
        if not stat.S_ISSOCK(address.path.lstat().st_mode):
            return problem("socket", f"{address.path} is no socket: remove it, or choose another --address")
        peer = probe(address, _CONNECT_S)
    except FileNotFoundError:
        if held:
            return problem("socket", f"a daemon runs, and {address.path} is not there: stop and start it")
        return note("socket", f"{address.path} is not there, as no daemon runs")
    except ConnectionRefusedError:
        return note("socket", f"{address.path} is stale, nobody listens: the next start removes it")
    except OSError as error:
        return problem(
            "socket", f"{address.path} does not take connections ({error.strerror or error}): restart the daemon"
        )
    except PeerError as error:
        text = f"{address.path} is served by {error.whose}: clients refuse it; choose another --dir"
        return problem("socket", text)
    who = f"process {peer.pid}" if peer else "a process"
    return ok("socket", f"{who} of your own listens")


def _check_port(address: TcpAddress, *, held: bool) -> Finding:
    if not (address.is_local and held):
        # Whoever has the port would be shown the token.
        return note("socket", f"{address} is not tried: only loopback is, while a daemon serves the directory")
    try:
        socket.create_connection((address.host, address.port), timeout=_CONNECT_S).close()
    except OSError as error:
        return problem("socket", f"{address} does not take connections ({error.strerror or error}): restart the daemon")
    return ok("socket", f"somebody listens at {address}; over TCP nobody can say of which user")


def check_answers(ask: Ask) -> tuple[Finding, DaemonState | None]:
    """Check health and status of a daemon that accepts connections."""
    try:
        health, state = ask()
    except DaemonError as error:
        return problem("answers", str(error)), None
    if health != "SERVING":
        return note("answers", f"health is {health}: the daemon stops, and takes no new work"), state
    return ok("answers", f"health and status in time, version {state.server_version}"), state


def check_sandbox(state: DaemonState | None) -> Finding:
    """Whether a worker that is taken over is kept from files and network: as a daemon says, or as would be here."""
    if state is not None:
        said = state.sandbox
        if said.startswith("in force"):
            return ok("sandbox", said)
        return note("sandbox", f"{said or 'this daemon is too old to have one'}: a graph's worker has all you have")
    if reason := why_not():
        return note("sandbox", f"workers would not be confined: {reason}")
    return ok("sandbox", f"workers would be confined: {in_words()}")


def check_store(root: Path) -> Iterator[Finding]:
    """Check the store's folder: whose it is, and what had to be set aside."""
    if not os.path.isdir(root):
        return
    yield replace(check_private(root, "directory", 0o700), check="store")
    folder = root / "quarantine"
    if damaged := len(os.listdir(folder)) if os.access(folder, os.R_OK) else 0:
        what = f"{damaged} damaged blobs or records were set aside in {folder}"
        yield note("quarantine", f"{what}: check the disk, and who can write to it, then delete them")
    else:
        yield ok("quarantine", "no damaged blob was set aside")


def check_room(directory: Path, state: DaemonState | None) -> Finding:
    """Whether the disk has the room that the store may take."""
    there = next(path for path in (directory, *directory.parents) if os.path.exists(path))
    free = shutil.disk_usage(there).free
    if free < _LITTLE_ROOM_BYTES:
        return problem("room", f"{numbers.size(free)} are free at {there}: nothing large can be stored")
    said = f"{numbers.size(free)} are free at {there}"
    if state is None:
        return ok("room", f"{said}; the store's limit is known where a daemon answers")
    limit, used = state.store_max_bytes, state.store_bytes
    said += f", the store has {numbers.size(used)} of {numbers.size(limit)}"
    if free < limit - used:
        return note("room", f"{said}: the disk fills first; lower --store-size")
    return ok("room", said)


def _tools(environ: Mapping[str, str]) -> Iterator[Finding]:
    compiler = (environ.get("CXX", "").split() or ["g++"])[0]
    for program, needed in ((compiler, "torch builds CPU kernels with it"), ("strip", "it shortens shared objects")):
        found = shutil.which(program, path=environ.get("PATH"))
        missing = f"`{program}` is not on PATH, and {needed}: install g++ and binutils"
        yield ok("tools", f"{program} is {found}") if found else problem("tools", missing)


def check_torch() -> Finding:
    """Whether this interpreter has a torch that the client knows."""
    oldest, newest = (".".join(map(str, version)) for version in (OLDEST_TORCH, NEWEST_TORCH))
    try:
        text = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return problem("torch", f"{sys.executable} has no torch: install torch {oldest} to {newest} there")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return problem("torch", f"{sys.executable} is free-threaded: the client stays off; use a Python with its lock")
    parts = [int(part) if part.isdecimal() else -1 for part in text.split(".")[:2]]
    if OLDEST_TORCH <= tuple(parts) <= NEWEST_TORCH:
        return ok("torch", f"torch {text} in {sys.executable}")
    return problem("torch", f"torch {text} is not known: the client stays off; {oldest} to {newest} are")


def check_entry_point() -> Finding:
    """Whether `import torch` finds the client in this interpreter."""
    if any(point.value == _ENTRY_POINT for point in importlib.metadata.entry_points(group="torch.backends")):
        return ok("client", "its entry point `torch.backends` is installed")
    return problem("client", f"no entry point `torch.backends`: install compiler-daemon in {sys.executable}")


def check_environment(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Check the variables of this shell that decide whether a trainer started from it uses the daemon."""
    if (value := environ.get(name := "TORCH_DEVICE_BACKEND_AUTOLOAD", "1")) != "1":
        yield problem("environment", f"{name}={value[:40]} keeps torch from finding the client: unset it")
    for name in ("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "TORCH_COMPILE_FORCE_DISABLE_CACHES"):
        if environ.get(name) == "1":
            yield problem("environment", f"{name}=1 switches the client off: unset it")
    match environ.get(name := "TORCH_COMPILE_CLIENT", "").strip().lower():
        case "1" | "true" | "yes" | "on":
            yield ok("environment", f"{name}=1: trainers from this shell use the daemon")
        case "auto":
            yield ok("environment", f"{name}=auto: trainers from this shell use the daemon, and start one")
        case "" | "0" | "false" | "no" | "off":
            yield note("environment", f"{name} is off here: {name}=1 makes a trainer use the daemon")
        case other:
            yield problem("environment", f"{name}={other[:40]!r} counts as off: set it to 1")
