from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from compile_wire.v1 import page_pb2 as pb
from compile_wire.v1 import page_pb2_grpc as pb_grpc
from compiler_daemon.http.login import CODE_S, SESSION_S, Access
from compiler_daemon.http.server import HttpServer, HttpServerConfig, Request, Response
from tests.daemon.daemon_process import DEADLINE_S, DaemonProcess, manifest_of, wait_until
from tests.daemon.inventory_samples import graph_of, publish
from tests.daemon.page_samples import PageVisitor

PAGES = ["/", "/metrics", "/status.json", f"/graphs/{'0' * 64}", "/nothing"]


# Who may read


@pytest.mark.parametrize("target", PAGES)
def test_nothing_is_shown_without_the_token(page: PageVisitor, target: str) -> None:
    answers = [
        page.ask(target, token=False),
        page.ask(target, token=False, Authorization="Bearer wrong"),
        page.ask(target, token=False, Authorization=f"Basic {page.token}"),
        page.ask(target, token=False, Cookie=f"compiler_daemon_{page.port}=guess"),
        page.ask(f"{target}?token={page.token}", token=False),
    ]

    assert [answer.status for answer in answers] == [401] * 5
    assert all("compiler-daemon page" in answer.text for answer in answers)
    assert all(str(page.daemon.directory) not in answer.text for answer in answers)


def test_a_script_reads_with_the_token(page: PageVisitor) -> None:
    assert [page.ask(target).status for target in PAGES] == [200, 200, 200, 404, 404]


def test_a_browser_is_let_in_by_an_address_that_is_good_once(page: PageVisitor) -> None:
    target = page.login_url().removeprefix(page.url.rstrip("/"))

    first, second = page.ask(target, token=False), page.ask(target, token=False)
    cookie = first.headers["set-cookie"]

    assert (first.status, second.status) == (200, 401)
    assert "set-cookie" not in second.headers
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert page.ask("/", token=False, Cookie=cookie.split(";")[0]).status == 200
    assert page.token not in target + cookie + first.text


def test_neither_token_nor_code_stands_in_the_log(page: PageVisitor) -> None:
    url = page.login_url()
    page.ask(url.removeprefix(page.url.rstrip("/")), token=False)
    page.ask(f"/nothing?token={page.token}")

    log = page.daemon.log.read_text()

    assert url.rpartition("=")[2] not in log
    assert page.token not in log


def test_a_code_lasts_a_minute_and_a_session_twelve_hours_from_the_last_look() -> None:
    now = [1000.0]
    access = Access(b"token".__eq__, clock=lambda: now[0])
    late = access.make_code()
    now[0] += CODE_S
    assert access.login(late) is None

    cookie = str(access.login(access.make_code())).split(";")[0]
    for _ in range(3):
        now[0] += SESSION_S - 1
        assert access.may_read({"cookie": f"other=1; {cookie}"})
    now[0] += SESSION_S
    assert not access.may_read({"cookie": cookie})


def test_many_logins_push_out_the_oldest_and_take_no_more_memory() -> None:
    access = Access(b"token".__eq__)
    cookies = [str(access.login(access.make_code())).split(";")[0] for _ in range(200)]

    assert sum(access.may_read({"cookie": cookie}) for cookie in cookies) == 64


def test_who_asks_for_a_way_in_shows_the_token(page: PageVisitor) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        page.stub.OpenPage(pb.OpenPageRequest(), timeout=DEADLINE_S)

    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


# What the server takes


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_nothing_but_reading_is_possible(page: PageVisitor, method: str) -> None:
    answer = page.ask("/", method=method)

    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_head_answers_as_get_without_the_page(page: PageVisitor) -> None:
    answer = page.ask("/static/style.css", method="HEAD")

    assert answer.status == 200
    assert answer.text == ""
    assert int(answer.headers["content-length"]) > 1000


@pytest.mark.parametrize(
    "host", ["example.org", "example.org:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.example.org:{port}", ""]
)
def test_another_host_is_turned_away_so_that_no_web_page_can_pose_as_us(page: PageVisitor, host: str) -> None:
    head = f"GET / HTTP/1.1\r\nHost: {host.format(port=page.port)}\r\nAuthorization: Bearer {page.token}\r\n\r\n"

    answer = page.say(head.encode())

    assert answer.split(b"\r\n")[0].split()[1] in (b"421", b"400")
    assert b"Slowest graphs" not in answer


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}"])
def test_every_name_of_this_machine_is_ours(page: PageVisitor, host: str) -> None:
    assert page.ask("/", Host=host.format(port=page.port)).status == 200


def test_no_other_site_may_read_or_frame_it_and_no_script_from_elsewhere_runs(page: PageVisitor) -> None:
    headers = page.ask("/", Origin="https://example.org").headers

    assert not [name for name in headers if name.startswith("access-control")]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe-inline" not in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"


def garbage() -> list[bytes]:
    chance = random.Random(11)
    line = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    return [
        b"\x00" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00",  # the beginning of a TLS handshake
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        line + b"X: " + b"y" * 40_000 + b"\r\n\r\n",
        line + b"X: y\r\n" * 300 + b"\r\n",
        line + b"Content-Length: 5\r\n\r\nhello",
        line + b"Content-Length: -1\r\n\r\n",
        line + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        line + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        line + b"Host: second\r\n\r\n",
        line.replace(b"\r\n", b"\n") + b" folded\n\n",
        *(chance.randbytes(chance.randrange(1, 4000)) + b"\r\n\r\n" for _ in range(60)),
    ]


def test_garbage_costs_its_own_connection_and_nothing_else(page: PageVisitor) -> None:
    for data in garbage():
        answer = page.say(data)
        assert not answer or answer.split()[1][:1] == b"4", (data[:60], answer[:60])

    assert page.ask("/").status == 200
    assert "Traceback" not in page.daemon.log.read_text()


def test_every_printable_path_and_query_is_answered_without_an_error_of_ours(page: PageVisitor) -> None:
    chance = random.Random(5)
    signs = [chr(code) for code in range(33, 127) if chr(code) != "#"]
    for _ in range(150):
        target = "/" + "".join(chance.choices(signs, k=chance.randrange(60)))
        assert page.ask(target).status in (200, 400, 401, 404), target
    for target in (
        "/graphs/../token",
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "//etc/passwd",
        "/?span=%ff",
    ):
        assert page.ask(target).status in (200, 400, 404)


def test_requests_sent_at_once_are_answered_one_after_the_other(page: PageVisitor) -> None:
    head = f"GET /static/icon.svg HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n"

    answer = page.say((head + "\r\n").encode() * 3 + (head + "Connection: close\r\n\r\n").encode())

    assert answer.count(b"HTTP/1.1 200") == 4


# A server of its own, with short limits


async def hello(_request: Request) -> Response:
    return Response(body=b"hello")


def plain(status: int, text: str) -> Response:
    return Response(status=status, body=text.encode())


@pytest.mark.asyncio
async def test_who_sends_a_byte_at_a_time_is_cut_off() -> None:
    server = HttpServer(hello, plain, HttpServerConfig(head_s=0.3))
    port = await server.listen(0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = time.monotonic()
    async with asyncio.timeout(DEADLINE_S):
        try:
            while not reader.at_eof():
                writer.write(b"G")
                await writer.drain()
                await asyncio.wait([asyncio.ensure_future(reader.read(1))], timeout=0.05)
        except ConnectionError:
            pass
    writer.close()
    await server.close()

    assert time.monotonic() - started >= 0.25


async def _asked(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode())
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.asyncio
async def test_silent_connections_give_way_to_whoever_asks_and_the_oldest_first() -> None:
    server = HttpServer(hello, plain, HttpServerConfig(max_connections=4, head_s=30))
    port = await server.listen(0)
    silent = []
    for _ in range(40):
        silent.append(await asyncio.open_connection("127.0.0.1", port))
        await asyncio.sleep(0)
    answers = [await _asked(port) for _ in range(5)]
    ended = [reader.at_eof() or reader.exception() is not None for reader, _ in silent]
    for _, writer in silent:
        writer.close()
    await server.close()

    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    assert all(ended[:36])
    assert ended.count(False) == 3


@pytest.mark.asyncio
async def test_who_has_asked_is_not_dropped_for_somebody_new() -> None:
    go = asyncio.Event()

    async def slow(_request: Request) -> Response:
        await go.wait()
        return Response(body=b"hello")

    server = HttpServer(slow, plain, HttpServerConfig(max_connections=3, head_s=30))
    port = await server.listen(0)
    asking = [asyncio.create_task(_asked(port)) for _ in range(3)]
    await asyncio.sleep(0.2)
    late = await _asked(port)
    go.set()
    answers = await asyncio.gather(*asking)
    await server.close()

    assert late == b""
    assert all(answer.endswith(b"hello") for answer in answers)


@pytest.mark.asyncio
async def test_an_answer_that_nobody_reads_is_given_up() -> None:
    async def large(_request: Request) -> Response:
        return Response(body=bytes(64 * 2**20))

    server = HttpServer(large, plain, HttpServerConfig(answer_s=0.3))
    port = await server.listen(0)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
        async with asyncio.timeout(DEADLINE_S):
            while not server._connections:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.01)
            while server._connections:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.01)
    await server.close()


@pytest.mark.asyncio
async def test_a_page_that_fails_is_an_error_without_details() -> None:
    async def fails(_request: Request) -> Response:
        raise RuntimeError("secret detail")

    server = HttpServer(fails, plain, HttpServerConfig())
    port = await server.listen(0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await server.close()

    assert answer.startswith(b"HTTP/1.1 500")
    assert b"secret detail" not in answer


# What clients can write into it


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}&amp;"


def test_names_and_keys_of_clients_are_shown_as_text(page: PageVisitor) -> None:
    key = f"{HOSTILE}-key"
    page.daemon.publish(
        key, manifest_of(key, b"entry of a hostile client"), b"entry of a hostile client", program=HOSTILE
    )

    overview = page.ask("/").text
    [path] = {
        line.split('"')[0] for line in overview.split('href="') if line.startswith("/graphs/") and "script" in line
    }
    graph = page.ask(path).text

    for text in (overview, graph):
        assert "&lt;script&gt;" in text
        assert "<script>alert" not in text
        assert "<img" not in text
        assert "{{ 7*7 }}" in text
    assert page.ask("/metrics").text.isascii()


# With the daemon


def test_who_asks_a_daemon_without_a_page_is_told(daemon: DaemonProcess) -> None:
    stub = pb_grpc.PageServiceStub(daemon.channel)

    assert stub.FindPage(pb.FindPageRequest(), **daemon.options()).url == ""
    with pytest.raises(grpc.RpcError) as raised:
        stub.OpenPage(pb.OpenPageRequest(), **daemon.options())
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "--page-port" in str(raised.value.details())


def test_a_daemon_without_a_page_has_imported_none_of_it(daemon: DaemonProcess) -> None:
    maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert "markupsafe" not in maps  # the only shared object that jinja2 loads

    code = "import sys, compiler_daemon.app, compiler_daemon.cli; print(*sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"h11", "jinja2", "prometheus_client", "opentelemetry", "compiler_daemon.http.routes"} & set(modules)


def test_a_port_that_is_taken_is_said_with_what_to_do(
    start_daemon: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = DaemonProcess(tmp_path / "taken", daemon={"page_port": taken.getsockname()[1]})
        launched = process.launch()
        assert launched.wait(DEADLINE_S) == 1
        assert launched.stdout is not None
        launched.stdout.close()

    assert "choose another --page-port" in process.log.read_text()


def test_a_page_that_nobody_asked_for_does_not_keep_a_daemon_from_serving(
    start_daemon: Callable[..., DaemonProcess],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        daemon = start_daemon("taken", daemon={"page_port": taken.getsockname()[1], "page_optional": True})

        assert daemon.health() == "SERVING"
        assert "no page is served: port" in daemon.log.read_text()


def test_the_verb_prints_an_address_that_lets_in(page: PageVisitor) -> None:
    directory = page.daemon.directory
    command = [sys.executable, "-m", "compiler_daemon", "page", "--dir", str(directory)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)

    url = ended.stdout.strip()

    assert url.startswith(page.url)
    assert page.ask(url.removeprefix(page.url.rstrip("/")), token=False).status == 200


def test_open_hands_the_browser_a_private_file_and_no_address(page: PageVisitor, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf "%s" "$1" > {seen}\n')
    browser.chmod(0o755)
    directory = page.daemon.directory
    command = [sys.executable, "-m", "compiler_daemon", "page", "--open", "--dir", str(directory)]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"BROWSER": f"{browser} %s", "PATH": "/bin"}
    )

    wait_until(seen.exists, what="the browser was started")
    file = Path(seen.read_text().removeprefix("file://"))

    assert ended.stdout == ""
    assert "code=" not in seen.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert "login?code=" in file.read_text()


def test_a_graph_is_shown_with_its_inputs_sizes_operators_and_code(page: PageVisitor) -> None:
    publish(page.daemon, "a-real-graph", b"entry of a real graph", program="sweep.py", graph=graph_of(4))
    paths = [line.split('"')[0] for line in page.ask("/").text.split('href="') if "a-real-graph" in line]

    text = page.ask(next(path for path in paths if path.startswith("/graphs/"))).text

    assert "6 nodes, captured by torch 2.13.0" in text
    assert "l_x_" in text
    assert "f32[s77, 4]" in text
    assert "torch.matmul" in text
    assert "def forward(" in text
    assert "Sizes that may change" in text


def test_a_graph_whose_artifact_has_no_graph_says_so(page: PageVisitor) -> None:
    publish(page.daemon, "no-graph", b"entry without a graph", program="sweep.py", graph=b"")
    paths = [line.split('"')[0] for line in page.ask("/").text.split('href="') if "no-graph" in line]

    text = page.ask(next(path for path in paths if path.startswith("/graphs/"))).text

    assert "could not describe this graph as data" in text
