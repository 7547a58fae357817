"""An engine that cannot do what it is asked says in time what is wrong, and never calls it a miss."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benches.harness.ports import free_ports
from benches.harness.redis_server import RedisServer, redis_running
from benches.harness.s3_server import READER, S3Server
from compiler_daemon.errors import (
    TierDeniedError,
    TierError,
    TierFullError,
    TierMissingError,
    TierTimeoutError,
    TierUnreachableError,
    TooLargeError,
)
from compiler_daemon.tier.address import TierAddress, read_tier
from compiler_daemon.tier.engines import Engine, EngineTimeouts, open_engine
from compiler_daemon.tier.engines.directory import DirectoryEngine
from compiler_daemon.tier.engines.mounts import late_misses, mount_of
from compiler_daemon.tier.engines.threads import HangingThreads
from tests.daemon.tier.engine_samples import stopped

pytestmark = pytest.mark.asyncio

NAME = "v1/lab/environment/key/0"
LIMIT = 2**20
SHORT = EngineTimeouts(connect_s=0.3, call_s=0.5)


@asynccontextmanager
async def opened(address: TierAddress, environ: dict[str, str] | None = None) -> AsyncIterator[Engine]:
    engine = open_engine(address, environ or {}, SHORT)
    try:
        yield engine
    finally:
        await engine.close()


async def filled(engine: Engine) -> None:
    for number in range(100):
        await engine.create(f"v1/lab/environment/key-{number}/0", b"x" * 2**17)


@pytest.fixture
def dead_port() -> Iterator[int]:
    """Yield a port of this machine where nobody listens, and which nobody else gets meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "tier"
    path.mkdir()
    return path


def levels(found: list[object]) -> dict[str, str]:
    return {each.check: each.level for each in found}  # type: ignore[attr-defined]


async def test_silent_redis_is_given_up_after_its_timeout(redis_server: RedisServer) -> None:
    async with opened(read_tier(f"unix://{redis_server.path}")) as engine:
        await engine.get(NAME, LIMIT)

        with stopped(redis_server.pid):
            start = time.monotonic()
            with pytest.raises(TierTimeoutError, match="does not answer"):
                await engine.get(NAME, LIMIT)
            took_s = time.monotonic() - start

        assert took_s < 3 * SHORT.of(LIMIT)
        assert await engine.get("v1/lab/nothing/is/here", LIMIT) is None


async def test_silent_bucket_is_given_up_after_its_timeout(s3_server: S3Server) -> None:
    async with opened(read_tier("s3://tier/silent"), s3_server.variables()) as engine:
        await engine.get(NAME, LIMIT)

        with stopped(s3_server.pid):
            start = time.monotonic()
            with pytest.raises(TierTimeoutError, match="does not answer"):
                await engine.get(NAME, LIMIT)
            took_s = time.monotonic() - start

    assert took_s < 3 * SHORT.of(0)


async def test_dead_port_is_told_at_once(dead_port: int) -> None:
    s3 = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{dead_port}", "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "a"}
    places = {
        f"redis://127.0.0.1:{dead_port}": {},
        "unix:///nowhere/redis.sock": {},
        "s3://tier": {**s3, "AWS_SECRET_ACCESS_KEY": "b"},
    }
    for text, environ in places.items():
        async with opened(read_tier(text), environ) as engine:
            start = time.monotonic()
            with pytest.raises(TierUnreachableError, match="nobody answers"):
                await engine.get(NAME, LIMIT)
            assert time.monotonic() - start < 0.4
            [finding] = await engine.check()
            assert (finding.level, finding.check) == ("problem", "tier")


async def test_missing_bucket_is_no_miss(s3_server: S3Server) -> None:
    async with opened(read_tier("s3://nothing-here/prefix"), s3_server.variables()) as engine:
        with pytest.raises(TierMissingError, match="no bucket nothing-here"):
            await engine.get(NAME, LIMIT)
        with pytest.raises(TierMissingError, match="no bucket nothing-here"):
            await engine.create(NAME, b"data")

        found = await engine.check()

    assert [(each.level, each.check) for each in found] == [("problem", "tier")]
    assert "no bucket nothing-here" in found[0].text


async def test_directory_that_is_not_there_is_no_miss_and_is_not_made(root: Path) -> None:
    async with opened(read_tier(f"file://{root}")) as engine:
        root.rmdir()

        with pytest.raises(TierMissingError, match="mount it"):
            await engine.get(NAME, LIMIT)
        with pytest.raises(TierMissingError, match="mount it"):
            await engine.create(NAME, b"data")
        with pytest.raises(TierMissingError, match="mount it"):
            _ = [each async for each in engine.names("v1/lab/")]
        found = await engine.check()

    assert not root.exists()
    assert [(each.level, each.check) for each in found] == [("problem", "tier")]


async def test_bucket_that_may_only_be_read_says_so_when_written(s3_server: S3Server) -> None:
    address = read_tier("s3://tier/read-only")
    async with opened(address, s3_server.variables()) as writer:
        await writer.create(NAME, b"data")

    async with opened(address, s3_server.variables(READER)) as reader:
        assert await reader.get(NAME, LIMIT) == b"data"
        with pytest.raises(TierDeniedError, match="AccessDenied"):
            await reader.create("v1/lab/environment/other/0", b"data")
        found = levels(list(await reader.check()))

    assert found == {"tier": "ok", "tier reads": "ok", "tier writes": "note"}


async def test_closed_bucket_has_given_its_threads_time_to_rest_after_the_last_call(s3_server: S3Server) -> None:
    engine = open_engine(read_tier("s3://tier/rest"), s3_server.variables(), EngineTimeouts())
    await engine.get(NAME, LIMIT)

    start = time.monotonic()
    await engine.close()
    first_s = time.monotonic() - start
    await engine.close()

    assert first_s > 0.08
    assert time.monotonic() - start - first_s < 0.08


async def test_wrong_keys_of_a_bucket_are_told_without_the_secret(s3_server: S3Server) -> None:
    environ = {**s3_server.variables(), "AWS_SECRET_ACCESS_KEY": "not-the-secret"}
    async with opened(read_tier("s3://tier/wrong"), environ) as engine:
        with pytest.raises(TierDeniedError) as error:
            await engine.get(NAME, LIMIT)

    assert "not-the-secret" not in str(error.value)


async def test_keys_of_a_bucket_are_read_from_the_file_of_aws(s3_server: S3Server, tmp_path: Path) -> None:
    environ = s3_server.variables()
    name, secret = environ.pop("AWS_ACCESS_KEY_ID"), environ.pop("AWS_SECRET_ACCESS_KEY")
    file = tmp_path / "credentials"
    file.write_text(f"[lab]\naws_access_key_id = {name}\naws_secret_access_key = {secret}\n")
    environ |= {"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_PROFILE": "lab"}

    async with opened(read_tier("s3://tier/profile"), environ) as engine:
        assert await engine.get(NAME, LIMIT) is None


async def test_full_redis_says_that_it_is_full(tmp_path: Path) -> None:
    with redis_running(tmp_path, "--maxmemory", "2mb", "--maxmemory-policy", "noeviction") as server:
        async with opened(read_tier(f"unix://{server.path}")) as engine:
            with pytest.raises(TierFullError, match="no room"):
                await filled(engine)
            found = levels(list(await engine.check()))

    assert found["tier room"] == "note"
    assert found["tier writes"] == "problem"


async def test_redis_with_a_password_is_used_with_it_only(tmp_path: Path) -> None:
    with redis_running(tmp_path, "--requirepass", "sesame") as server:
        async with opened(read_tier(f"unix://{server.path}")) as engine:
            with pytest.raises(TierDeniedError) as error:
                await engine.get(NAME, LIMIT)
        address = read_tier(f"unix://:sesame@{server.path}", may_hold_password=True)
        async with opened(address) as engine:
            assert await engine.create(NAME, b"data")

    assert "sesame" not in f"{error.value} {address} {address!r}"


async def test_redis_over_tls_is_used_where_its_certificate_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)  # noqa: ASYNC221
    [port] = free_ports(1)
    tls = ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    with redis_running(tmp_path, *tls, "--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no"):
        address = read_tier(f"rediss://localhost:{port}")
        async with opened(address) as engine:
            with pytest.raises(TierError, match="certificate verify failed"):
                await engine.get(NAME, LIMIT)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with opened(address) as engine:
            assert await engine.create(NAME, b"data")


async def test_value_of_another_kind_in_redis_is_an_error(redis_server: RedisServer) -> None:
    from redis import Redis

    with Redis(unix_socket_path=str(redis_server.path)) as redis:
        redis.delete(f"compiler-daemon:{NAME}")
        redis.lpush(f"compiler-daemon:{NAME}", "a list")
        async with opened(read_tier(f"unix://{redis_server.path}")) as engine:
            with pytest.raises(TierError, match="WRONGTYPE"):
                await engine.get(NAME, LIMIT)
        redis.delete(f"compiler-daemon:{NAME}")


async def test_declared_size_beyond_the_limit_is_not_read() -> None:
    sent = 0

    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        date = b'Last-Modified: Sat, 28 Nov 2026 10:00:00 GMT\r\nETag: "x"\r\n'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4000000000\r\n" + date + b"\r\n")
        try:
            while sent < 64 * 2**20:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(lie, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    environ = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ALLOW_HTTP": "true"}
    environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    async with server, opened(read_tier("s3://tier"), environ) as engine:
        with pytest.raises(TooLargeError, match="4000000000"):
            await engine.get(NAME, LIMIT)
        await asyncio.sleep(0.2)

    assert sent < 16 * 2**20


async def test_files_are_for_whom_the_directory_is_for(root: Path) -> None:
    root.chmod(0o2770)
    before = os.umask(0o077)
    try:
        async with opened(read_tier(f"file://{root}")) as engine:
            await engine.create(NAME, b"data")
            await engine.replace("beat/x/0", b"data")
    finally:
        os.umask(before)

    modes = {path.relative_to(root).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")}
    assert modes[NAME] == modes["beat/x/0"] == 0o660
    assert modes["v1"] == modes["v1/lab/environment/key"] == 0o2770


async def test_leftovers_of_killed_writers_are_no_objects_and_are_removed_when_old(root: Path) -> None:
    async with opened(read_tier(f"file://{root}")) as engine:
        await engine.create(NAME, b"data")
        folder = (root / NAME).parent
        young, old = folder / ".new-young", folder / ".new-old"
        young.touch()
        old.touch()
        os.utime(old, (0, 0))

        found = [each.name async for each in engine.names("v1/")]

    assert found == [NAME]
    assert young.exists()
    assert not old.exists()


async def test_link_or_pipe_in_a_directory_is_not_read(root: Path) -> None:
    folder = (root / NAME).parent
    folder.mkdir(parents=True)
    (folder / "0").symlink_to("/etc/hostname")
    os.mkfifo(folder / "1")

    async with opened(read_tier(f"file://{root}")) as engine:
        with pytest.raises(TierError):
            await engine.get(NAME, LIMIT)
        with pytest.raises(TierError, match="no plain file"):
            await engine.get(NAME.replace("/0", "/1"), LIMIT)


async def test_directory_of_everybody_is_noted(root: Path) -> None:
    root.chmod(0o777)

    async with opened(read_tier(f"file://{root}")) as engine:
        found = levels(list(await engine.check()))

    assert found["tier"] == "note"


async def test_mount_of_a_directory_is_found_and_nfs_that_remembers_misses_is_noted() -> None:
    listed = (
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "40 22 0:51 / /shared\\040files rw,relatime shared:9 - nfs4 server:/files rw,vers=4.2,hard\n"
        "41 22 0:52 / /tier rw,relatime - nfs server:/tier rw,lookupcache=pos\n"
        "a line of another form\n"
    )

    notes = {
        path: late_misses(mount)
        for path in ("/shared files/tier", "/shared", "/tier/x", "/home")
        if (mount := mount_of(Path(path), listed))
    }

    assert "lookupcache=positive" in notes.pop("/shared files/tier")
    assert notes == {"/shared": "", "/tier/x": "", "/home": ""}
    assert mount_of(Path("/tier"), "") is None


async def test_of_writers_that_all_saw_a_free_name_one_gets_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = threading.Barrier(4)
    make_folders = DirectoryEngine._make_folders

    def make_together(self: DirectoryEngine, folder: Path, status: os.stat_result) -> None:
        make_folders(self, folder, status)
        barrier.wait(10)

    monkeypatch.setattr(DirectoryEngine, "_make_folders", make_together)
    engine = open_engine(read_tier(f"file://{root}"), timeouts=EngineTimeouts(call_s=20.0))
    results = await asyncio.gather(*(engine.create(NAME, f"{number}".encode()) for number in range(4)))

    assert results.count(True) == 1
    assert await engine.get(NAME, LIMIT) == f"{results.index(True)}".encode()
    await engine.close()


async def test_check_finds_that_creating_is_not_exclusive(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def create(self: DirectoryEngine, name: str, data: bytes) -> bool:
        await self.replace(name, data)
        return True

    monkeypatch.setattr(DirectoryEngine, "create", create)
    async with opened(read_tier(f"file://{root}")) as engine:
        found = {each.check: each for each in await engine.check()}

    assert found["tier creates"].level == "problem"
    assert "8 of 8" in found["tier creates"].text


async def test_touch_makes_a_file_new_again(root: Path) -> None:
    async with opened(read_tier(f"file://{root}")) as engine:
        await engine.create(NAME, b"data")
        os.utime(root / NAME, (0, 0))

        touched = await engine.touch(NAME)
        [stored] = [each async for each in engine.names("v1/")]

    assert touched
    assert stored.age_s < 60


async def test_hanging_calls_hold_up_neither_the_loop_nor_what_comes_after_their_end() -> None:
    threads, hang, ran = HangingThreads("test"), threading.Event(), []

    calls = [asyncio.ensure_future(threads.run(hang.wait)) for _ in range(8)]
    late = asyncio.ensure_future(threads.run(lambda: ran.append("late")))
    await asyncio.sleep(0.05)
    late.cancel()
    hang.set()

    assert await asyncio.gather(*calls) == [True] * 8
    assert await threads.run(lambda: 5) == 5
    assert ran == []
    threads.close()
