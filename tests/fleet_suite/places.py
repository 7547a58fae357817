"""Tiers that have an artifact in them, and what can be done to each: the rooms of the fault matrix.

A place is a context manager: given the objects that are in the tier, it yields how a daemon reaches it with the fault
in force, and a function that strikes once the daemon is up. What is done is real where it can be: servers are killed,
a file system of two megabytes is filled, Redis has a limit and S3 other keys. Where no server here does it by itself,
a proxy stands between.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benches.harness.redis_server import redis_running
from benches.harness.s3_server import s3_served
from tests.faults.small_disk import SmallDisk
from tests.fleet_suite.tcp_proxy import delayed, ended_after, proxied

SLOW_S = 4
"""What an answer of a slow tier takes: more than a lookup's budget, and than a trainer gives its daemon for one."""

_PARTIAL = 1500
"""An answer ends after so many bytes: an object has more."""

Objects = Mapping[str, bytes]


@dataclass(frozen=True)
class Room:
    """How a daemon reaches a tier, and what happens to it once the daemon is up."""

    address: str
    variables: Mapping[str, str] = field(default_factory=dict)
    launcher: tuple[str, ...] = ()
    strike: Callable[[], None] = lambda: None
    done: str = ""
    """What is done to the tier, in words."""


def damaged(objects: Objects, how: str) -> Objects:
    """Return the objects with one bit of each artifact changed, or with half of it."""
    changed = dict(objects)
    for name, data in objects.items():
        if name.startswith("v1/"):
            middle = len(data) // 2
            flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
            changed[name] = flipped if how == "lying" else data[:middle]
    return changed


@contextlib.contextmanager
def directory(fault: str, objects: Objects) -> Iterator[Room]:
    """A directory."""
    with tempfile.TemporaryDirectory(prefix="tier-", dir="/tmp") as text, contextlib.ExitStack() as scope:
        root = Path(text) / "tier"
        disk: SmallDisk | None = None
        if fault == "full":
            disk = SmallDisk(root, mib=2)
            scope.callback(disk.close)
        root.mkdir(exist_ok=True)
        for name, data in (damaged(objects, fault) if fault in ("lying", "partial") else objects).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        address = f"file://{root}"
        match fault:
            case "down":
                yield Room(
                    address,
                    strike=lambda: root.rename(Path(text) / "gone"),
                    done="the directory is gone, as where it is not mounted any more",
                )
            case "slow":
                variables = {
                    "LD_PRELOAD": str(_slow_files(Path(text))),
                    "SLOW_FOLDER": str(root),
                    "SLOW_SECONDS": str(SLOW_S),
                }
                yield Room(address, variables, done=f"each open of a file in it takes {SLOW_S} s")
            case "full":
                assert disk is not None
                yield Room(address, strike=disk.fill, done="its file system has no byte left")
            case "lying":
                yield Room(address, done="one bit of each object is another")
            case "partial":
                yield Room(address, done="each object is cut in half")
            case _:
                for path in (root, *root.rglob("*")):
                    os.chown(path, 65534, 65534)
                root.chmod(0o700)
                # Root may do everything until it is told not to.
                without = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
                yield Room(address, launcher=without, done="it belongs to another user, mode 700")


@contextlib.contextmanager
def redis(fault: str, objects: Objects) -> Iterator[Room]:
    """A Redis of its own."""
    from redis import Redis

    secret = "sesame" if fault == "denied" else ""
    options = ["--requirepass", secret] if secret else []
    if fault == "full":
        options = ["--maxmemory-policy", "noeviction"]
    with (
        tempfile.TemporaryDirectory(prefix="redis-", dir="/tmp") as text,
        redis_running(Path(text), *options) as server,
        Redis(unix_socket_path=str(server.path), password=secret or None) as client,
    ):
        for name, data in (damaged(objects, "lying") if fault == "lying" else objects).items():
            client.set(f"compiler-daemon:{name}", data)
        address = f"unix://{server.path}"

        def connect() -> socket.socket:
            connected = socket.socket(socket.AF_UNIX)
            connected.connect(str(server.path))
            return connected

        match fault:
            case "down":
                yield Room(address, strike=lambda: os.kill(server.pid, signal.SIGKILL), done="`kill -9`")
            case "slow":
                with proxied(connect, delayed(SLOW_S)) as proxy:
                    yield Room(f"redis://127.0.0.1:{proxy.port}", done=f"a proxy: each answer takes {SLOW_S} s")
            case "full":

                def fill() -> None:
                    # Filled up with values it would have room again once the filler's own connection is gone.
                    memory: Any = client.info("memory")
                    client.config_set("maxmemory", memory["used_memory"] // 2)

                yield Room(address, strike=fill, done="twice its `maxmemory` is used, `noeviction`")
            case "lying":
                yield Room(address, done="one bit of each object is another")
            case "partial":
                with proxied(connect, ended_after(_PARTIAL)) as proxy:
                    yield Room(
                        f"redis://127.0.0.1:{proxy.port}",
                        done=f"a proxy: connections end after {_PARTIAL} bytes of answers",
                    )
            case _:
                yield Room(address, done="it wants a password that the daemon does not have")


@contextlib.contextmanager
def s3(fault: str, objects: Objects) -> Iterator[Room]:
    """A bucket of a SeaweedFS of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="s3-", dir="/tmp", ignore_cleanup_errors=True) as text,
        s3_served(Path(text)) as server,
    ):
        server.make_bucket("tier")
        for name, data in (damaged(objects, "lying") if fault == "lying" else objects).items():
            server.put_in_filer(f"/buckets/tier/lab/{name}", data)
        address, variables = "s3://tier/lab", server.variables()
        port = int(server.endpoint.rpartition(":")[2])

        def connect() -> socket.socket:
            return socket.create_connection(("127.0.0.1", port))

        def through(port: int) -> dict[str, str]:
            return {**variables, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}

        match fault:
            case "down":
                yield Room(address, variables, strike=lambda: os.kill(server.pid, signal.SIGKILL), done="`kill -9`")
            case "slow":
                with proxied(connect, delayed(SLOW_S)) as proxy:
                    yield Room(address, through(proxy.port), done=f"a proxy: each answer takes {SLOW_S} s")
            case "full":
                refusal = b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                with proxied(connect, lambda data, _sent: (data, False), refuses=b"PUT ", refusal=refusal) as proxy:
                    yield Room(address, through(proxy.port), done="a proxy: each PUT is answered with 507")
            case "lying":
                yield Room(address, variables, done="one bit of each object is another")
            case "partial":
                with proxied(connect, ended_after(_PARTIAL)) as proxy:
                    yield Room(
                        address, through(proxy.port), done=f"a proxy: connections end after {_PARTIAL} bytes of answers"
                    )
            case _:
                wrong = {**variables, "AWS_SECRET_ACCESS_KEY": "another"}
                yield Room(address, wrong, done="its keys are wrong: 403")


PLACES = {"directory": directory, "redis": redis, "s3": s3}
FAULTS = ("down", "slow", "full", "lying", "partial", "denied")


def _slow_files(folder: Path) -> Path:
    built = folder / "slow_files.so"
    source = Path(__file__).with_name("slow_files.c")
    subprocess.run(
        [shutil.which("gcc") or "g++", "-x", "c", "-O1", "-shared", "-fPIC", "-o", built, source],
        check=True,
        timeout=120,
    )
    return built
