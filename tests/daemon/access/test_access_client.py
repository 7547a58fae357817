"""The trainer's client speaks TLS with a real daemon: it is served, or it says once why not and goes on."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compile_client.testing import ClientConfig, DaemonClient, LocalCompile, Part
from compile_wire.endpoint.address import UnixAddress
from compiler_daemon.access.register import KeyFiles
from compiler_daemon.admin.keys import commands as keys
from compiler_daemon.admin.keys.certificates import issue_client, issue_server, make_authority
from compiler_daemon.endpoint import check_peer
from compiler_daemon.errors import PeerError
from tests.daemon.daemon_process import FIELDS, DaemonProcess, wait_until
from tests.daemon.tls_daemon import TlsDaemon, run

Make = Callable[..., DaemonClient]


@pytest.fixture
def start_tls(tmp_path: Path) -> Iterator[Callable[..., TlsDaemon]]:
    with ExitStack() as scope:

        def start(**settings: Any) -> TlsDaemon:
            return scope.enter_context(TlsDaemon(tmp_path / "d", **settings))

        yield start


@pytest.fixture
def make_client() -> Iterator[Make]:
    with ExitStack() as scope:

        def make(directory: Path, address: str = "") -> DaemonClient:
            environment = {"COMPILER_DAEMON_DIR": str(directory), "COMPILER_DAEMON_ADDRESS": address}
            # These deadlines are long, for busy machines.
            config = replace(ClientConfig.from_environment(environment), answer_s=10.0, remote_connect_s=5.0)
            client = DaemonClient(config, lambda: FIELDS, program="test", env={})
            scope.callback(client.close)
            return client

        yield make


def compiled(key: str) -> LocalCompile:
    return LocalCompile(key=key, guards="", compile_s=1.0, parts=(Part("entry", "", b"entry of " + key.encode()),))


def trouble(client: DaemonClient, caplog: pytest.LogCaptureFixture, times: int = 1) -> tuple[dict[str, int], str]:
    """Ask for `times` graphs, none of which can be had; return what was counted and what was logged."""
    with caplog.at_level(logging.INFO, "compile_client"):
        for number in range(times):
            assert client.begin_graph(f"key-{number}").lookup() == []
    return client.counters.fallbacks(), "\n".join(r.getMessage() for r in caplog.records if r.levelno >= logging.INFO)


@pytest.mark.parametrize("kind", ["certificate", "token"])
def test_a_trainer_elsewhere_publishes_and_looks_up_with_nothing_but_its_directory(
    start_tls: Callable[..., TlsDaemon], make_client: Make, key: str, kind: str
) -> None:
    daemon = start_tls(daemon={"client_auth": kind})
    first = make_client(daemon.made("ada", kind=kind))

    assert first.available()
    assert first.may_publish()
    assert first.publish_later(compiled(key))
    first.close()
    second = make_client(daemon.made("ben", kind=kind, role="reader"))
    [found] = second.begin_graph(key).lookup()

    assert found.manifest.key == key
    assert first.counters.as_dict()["published"] == 1
    assert not second.may_publish()
    assert second.counters.fallbacks() == {}


def test_a_host_with_a_name_is_looked_up_and_checked_against_the_certificate(
    start_tls: Callable[..., TlsDaemon], make_client: Make
) -> None:
    if not _resolves(host := socket.gethostname()):
        pytest.skip("this machine's name cannot be looked up")
    daemon = start_tls(address="0.0.0.0:0")
    directory = daemon.made("ada")
    keys.rotate(daemon.directory, hosts=(host,))

    client = make_client(directory, f"{host}:{daemon.port}")

    assert client.available(), client.counters.fallbacks()


def test_the_owner_is_served_over_the_unix_socket_beside_tls(
    start_tls: Callable[..., TlsDaemon], make_client: Make, key: str
) -> None:
    daemon = start_tls()
    client = make_client(daemon.directory)

    assert client.available()
    assert client.publish_later(compiled(key))
    client.close()
    assert client.counters.as_dict()["published"] == 1


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("expired client", "certificate has ended on"),
        ("foreign client", "does not believe this client's certificate"),
        ("expired server", "the daemon at 127.0.0.1"),
        ("foreign server", "of another authority"),
        ("wrong host", "keys rotate --host 127.0.0.2"),
    ],
)
def test_a_certificate_that_is_not_good_is_counted_and_said_once_and_nothing_is_raised(
    start_tls: Callable[..., TlsDaemon], make_client: Make, caplog: pytest.LogCaptureFixture, what: str, text: str
) -> None:
    daemon = start_tls(address="127.0.0.2:0" if what == "wrong host" else "127.0.0.1:0")
    directory = daemon.made("ada")
    if what.endswith("client"):
        expired = what == "expired client"
        authority = daemon.authority if expired else make_authority(10)
        issued = issue_client(authority, "ada", "trainer", -1 if expired else 10)
        (directory / "client.pem").write_bytes(issued.key + issued.certificate)
        card = json.loads((directory / "client.json").read_text())
        (directory / "client.json").write_text(json.dumps({**card, "expires": 1.0 if expired else card["expires"]}))
    elif what.endswith("server"):
        expired = what == "expired server"
        issued = issue_server(daemon.authority if expired else make_authority(10), (), -1 if expired else 10)
        KeyFiles(daemon.directory).server.write_bytes(issued.key + issued.certificate)

    counted, said = trouble(make_client(directory), caplog, times=3)

    assert counted == {"tls": 1, "breaker": 2}
    assert said.count(text) == 1
    assert "torch compiles here" in said


def test_a_revoked_client_is_told_so(
    start_tls: Callable[..., TlsDaemon], make_client: Make, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = start_tls()
    client = make_client(daemon.made("ada"))
    assert client.available()

    keys.revoke(daemon.directory, "ada")
    counted, said = trouble(client, caplog)

    assert counted == {"unauthenticated": 1}
    assert "ada is revoked" in said


def test_a_directory_with_keys_is_never_spoken_to_in_the_clear(
    start_daemon: Callable[..., DaemonProcess],
    make_client: Make,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    plain = start_daemon(address="127.0.0.1:0", daemon={"insecure_loopback": True})
    keys.init(tmp_path / "other", ())
    keys.make_client(tmp_path / "other", "ada", tmp_path / "ada", kind="token", address=plain.address)

    counted, said = trouble(make_client(tmp_path / "ada"), caplog)

    assert counted == {"tls": 1}
    assert "no TLS could be agreed on" in said
    assert plain.status().counters.get("unauthenticated", 0) == 0


def test_another_machine_is_not_spoken_to_without_keys(
    start_daemon: Callable[..., DaemonProcess], make_client: Make, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = start_daemon()

    counted, said = trouble(make_client(daemon.directory, "192.0.2.1:7443"), caplog)

    assert counted == {"address": 1}
    assert "keys client" in said


def test_an_absent_daemon_elsewhere_is_absent(
    make_client: Make, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    keys.init(tmp_path / "d", ())
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # the port is bound without listening, so that nobody else gets it meanwhile
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        keys.make_client(tmp_path / "d", "ada", tmp_path / "ada", address=address)

        counted, _ = trouble(make_client(tmp_path / "ada"), caplog)

    assert counted == {"absent": 1}


@pytest.mark.parametrize("name", ["ca.pem", "client.pem", "secret"])
def test_keys_that_others_can_reach_are_not_used(
    make_client: Make,
    caplog: pytest.LogCaptureFixture,
    start_tls: Callable[..., TlsDaemon],
    name: str,
) -> None:
    directory = start_tls().made("ada")
    (directory / name).chmod(0o644)

    counted, said = trouble(make_client(directory), caplog)

    assert counted == {"unsafe_directory": 1}
    assert "chmod 600" in said


def test_a_trainer_that_runs_takes_up_a_new_token_by_itself(
    start_daemon: Callable[..., DaemonProcess], make_client: Make, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(start_daemon().directory)
    assert client.available()

    keys.rotate(client.config.directory, token=True, overlap_days=0)
    counted, said = trouble(client, caplog)
    wait_until(client.available, what="the new token is read", deadline_s=120)

    assert counted == {"unauthenticated": 1}
    assert "torch compiles here" in said


# Operators


def test_every_operators_verb_works_over_tls_for_an_operator(start_tls: Callable[..., TlsDaemon]) -> None:
    daemon = start_tls()
    olga, ada = daemon.made("olga", role="operator"), daemon.made("ada")

    status = run("status", "--json", "--dir", str(olga))
    doctor = run("doctor", "--no-trainer", "--json", "--dir", str(olga))
    denied = run("stop", "--dir", str(ada))
    stopped = run("stop", "--dir", str(olga))

    findings = {finding["check"]: finding for finding in json.loads(doctor.stdout)["findings"]}
    assert json.loads(status.stdout)["pid"] == daemon.process.pid
    assert findings["tls"]["level"] == findings["answers"]["level"] == findings["certificate"]["level"] == "ok"
    assert denied.returncode == 1
    assert "takes an operator's keys" in denied.stderr
    assert stopped.returncode == 0
    assert daemon.process.wait(20) == 0


def test_an_operator_sends_no_token_to_another_machine_without_keys(start_daemon: Callable[..., DaemonProcess]) -> None:
    daemon = start_daemon()

    refused = run("status", "--dir", str(daemon.directory), "--address", "192.0.2.1:7443")

    assert refused.returncode == 2
    assert "keys client NAME --operator" in refused.stderr


def test_an_operator_shows_the_token_to_no_other_user(
    start_daemon: Callable[..., DaemonProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = start_daemon()
    address = UnixAddress(daemon.directory / "daemon.sock")
    check_peer(address)
    user = os.geteuid()
    monkeypatch.setattr("compile_wire.endpoint.peer.os.geteuid", lambda: user + 1)

    with pytest.raises(PeerError, match=f"process {daemon.process.pid} of user {user}"):
        check_peer(address)


def test_what_listens_for_another_user_hears_nothing_of_an_operators_command(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be two users")
    (tmp_path / "d").mkdir(mode=0o700)
    for name, data in (("token", b"t" * 64), ("secret", bytes(32))):
        (tmp_path / "d" / name).touch(mode=0o600)
        (tmp_path / "d" / name).write_bytes(data)
    path = tmp_path / "d" / "daemon.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        # The kernel notes the credentials of the process that calls `listen`.
        listen = "import os, socket, sys; os.setuid(12345); socket.socket(fileno=int(sys.argv[1])).listen()"
        number = server.fileno()
        subprocess.run([sys.executable, "-c", listen, str(number)], pass_fds=[number], timeout=60, check=True)
        refused = run("status", "--dir", str(tmp_path / "d"))
        server.setblocking(False)
        heard = b""
        while True:
            try:
                connection, _ = server.accept()
            except BlockingIOError:
                break
            with connection:
                heard += connection.recv(65536)

    assert refused.returncode == 1
    assert "of user 12345" in refused.stderr
    assert heard == b""


# doctor


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    keys.init(tmp_path / "d", ())
    return tmp_path / "d"


def findings(directory: Path, check: str) -> list[tuple[str, str]]:
    found = json.loads(run("doctor", "--no-trainer", "--json", "--dir", str(directory)).stdout)["findings"]
    return [(finding["level"], finding["text"]) for finding in found if finding["check"] == check]


@pytest.mark.parametrize(("days", "level"), [(100, "ok"), (5, "note"), (-1, "problem")])
def test_doctor_says_when_a_certificate_ends(directory: Path, days: int, level: str) -> None:
    key, certificate = _authority(directory)
    issued = issue_server(type(make_authority(1))(certificate, key), (), days)
    KeyFiles(directory).server.write_bytes(issued.key + issued.certificate)

    [(found, text)] = findings(directory, "server certificate")

    assert found == level
    assert level == "ok" or "keys rotate" in text


def test_doctor_says_that_key_and_certificate_do_not_belong_together(directory: Path) -> None:
    one, other = make_authority(10), make_authority(10)
    KeyFiles(directory).server.write_bytes(one.key + other.certificate)

    texts = findings(directory, "server certificate")

    assert ("problem", True) in [(level, "do not belong together" in text) for level, text in texts]
    assert ("problem", True) in [(level, "another authority" in text) for level, text in texts]


@pytest.mark.parametrize("name", ["keys", "keys/ca.key", "keys/server.pem"])
def test_doctor_says_that_others_can_reach_keys(directory: Path, name: str) -> None:
    (directory / name).chmod(0o755)

    assert ("problem", True) in [(level, "chmod" in text) for level, text in findings(directory, "keys")]


def test_doctor_tells_who_will_soon_not_get_in(directory: Path, tmp_path: Path) -> None:
    keys.make_client(directory, "ada", tmp_path / "a", days=3)

    assert ("note", True) in [
        (level, "keys client ada --renew" in text) for level, text in findings(directory, "clients")
    ]


def _authority(directory: Path) -> tuple[bytes, bytes]:
    from compile_wire.endpoint.private_files import split_pem

    return split_pem(KeyFiles(directory).authority_key.read_bytes())


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, 1)
    except OSError:
        return False
    return True
