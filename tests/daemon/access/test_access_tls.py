"""Who may connect over TLS, with which credentials, and what they may do: a real daemon and real handshakes."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import socket
import ssl
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

import compile_wire.v1
from compile_wire.digest import digest_of
from compile_wire.endpoint.tls_diagnosis import explain
from compile_wire.limits import MAX_GRAPH_BYTES
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compiler_daemon.access.register import KeyFiles, Register
from compiler_daemon.admin.keys import commands as keys
from compiler_daemon.admin.keys.certificates import issue_client, issue_server, make_authority
from compiler_daemon.rpc.auth import READER_CALLS, TRAINER_CALLS
from compiler_daemon.rpc.tls import CurrentKeys
from tests.daemon.daemon_process import ENVIRONMENT, manifest_of, wait_until
from tests.daemon.tls_daemon import Remote, TlsDaemon, refusal, run

UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture(scope="module")
def tls() -> Iterator[TlsDaemon]:
    """One daemon that asks for certificates, for all tests that leave it as it is."""
    with tempfile.TemporaryDirectory(prefix="tls-") as folder, TlsDaemon(Path(folder) / "d") as daemon:
        daemon.handshake()
        yield daemon


@pytest.fixture
def start_tls(tmp_path: Path) -> Iterator[Callable[..., TlsDaemon]]:
    with ExitStack() as scope:

        def start(**settings: Any) -> TlsDaemon:
            return scope.enter_context(TlsDaemon(tmp_path / "d", **settings))

        yield start


# Roles


def test_a_trainers_certificate_opens_lookup_compile_and_publish(tls: TlsDaemon, key: str) -> None:
    with tls.remote("alice") as alice:
        welcome = alice.handshake()
        alice.publish(ENVIRONMENT, key, manifest_of(key, b"entry"), b"entry")

        assert welcome.may_publish
        assert [entry.manifest for entry in alice.lookup(ENVIRONMENT, key)] == [manifest_of(key, b"entry")]
        assert alice.status().address == tls.tls_address


def test_a_readers_certificate_opens_lookup_and_compile_and_no_publishing(tls: TlsDaemon, key: str) -> None:
    tls.publish(key, manifest_of(key, b"entry"), b"entry")
    request = pb.CompileGraphRequest(environment_id=ENVIRONMENT, key=f"{key}-2", graph=pb.Graph(data=b"ok"))
    with tls.remote("rita", role="reader") as rita:
        welcome = rita.handshake()
        found = rita.lookup(ENVIRONMENT, key)
        *_, compiled = rita.compile_service.CompileGraph(request, **rita.options())
        code, text = refusal(lambda: rita.publish(ENVIRONMENT, f"{key}-3", manifest_of(f"{key}-3", b"e"), b"e"))

    assert not welcome.may_publish
    assert len(found) == 1
    assert compiled.HasField("artifact")
    assert code is DENIED
    assert "rita" in text
    assert "reader" in text
    assert tls.lookup(f"{key}-3") == []


def test_a_reader_hands_in_graphs_and_nothing_larger_than_a_graph(tls: TlsDaemon, key: str) -> None:
    graph = f"ok # {key}".encode()
    with tls.remote("rolf", role="reader") as rolf:
        rolf.handshake()

        assert rolf.write_blob(digest_of(graph), len(graph), graph)
        code, text = refusal(lambda: rolf.write_blob("0" * 64, MAX_GRAPH_BYTES + 1, b"x"))

    assert code is DENIED
    assert "graph" in text


def test_a_remote_client_never_names_the_interpreter_that_is_started(tls: TlsDaemon, key: str, tmp_path: Path) -> None:
    request = pb.CompileGraphRequest(
        environment_id=ENVIRONMENT, key=key, graph=pb.Graph(data=b"ok"), interpreter=str(tmp_path / "evil")
    )
    with tls.remote("ivan") as ivan:
        ivan.handshake()
        *_, last = ivan.compile_service.CompileGraph(request, **ivan.options())

    assert last.HasField("artifact")


def _methods() -> list[MethodDescriptor]:
    names = [name for _, name, _ in pkgutil.iter_modules(compile_wire.v1.__path__) if name.endswith("_pb2")]
    files = [importlib.import_module(f"compile_wire.v1.{name}").DESCRIPTOR for name in names]
    return [method for file in files for service in file.services_by_name.values() for method in service.methods]


def _called(client: Remote, method: MethodDescriptor) -> list[Any]:
    kinds = ["stream" if streams else "unary" for streams in (method.client_streaming, method.server_streaming)]
    call = getattr(client.channel, "_".join(kinds))(_path(method))
    answer = call(iter([b""]) if method.client_streaming else b"", timeout=20)
    return list(answer) if method.server_streaming else [answer]


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


@pytest.mark.parametrize(("role", "allowed"), [("trainer", TRAINER_CALLS), ("reader", READER_CALLS)])
def test_every_call_that_a_role_does_not_name_takes_an_operator(tls: TlsDaemon, role: str, allowed: set[str]) -> None:
    with tls.remote(f"every-{role}", role=role) as client:
        refused = set()
        for method in _methods():
            if _path(method) not in allowed:
                code, _ = refusal(lambda method=method: _called(client, method))
                assert code is DENIED, _path(method)
                refused.add(method.name)

    assert {"Shutdown", "RemoveArtifacts", "ImportArtifact", "Collect", "OpenPage"} <= refused
    assert tls.health() == "SERVING"


def test_an_operators_certificate_may_stop_the_daemon(start_tls: Callable[..., TlsDaemon]) -> None:
    daemon = start_tls()
    with daemon.remote("olga", role="operator") as olga:
        olga.shutdown()

    assert daemon.process.wait(20) == 0


# Certificates that do not open it


def _explained(daemon: TlsDaemon, directory: Path, certificate: Path | None) -> str:
    return explain(
        "127.0.0.1", daemon.port, authority=directory / "ca.pem", certificate=certificate, expires=0, timeout_s=10
    ).text


@pytest.mark.parametrize(
    ("what", "in_log", "said"),
    [
        ("none", "PEER_DID_NOT_RETURN_A_CERTIFICATE", "there is none here"),
        ("expired", "certificate has expired", "does not believe this client's certificate"),
        ("foreign", "unable to get local issuer certificate", "does not believe this client's certificate"),
        ("a server's", "unsupported certificate purpose", "does not believe this client's certificate"),
    ],
)
def test_a_certificate_that_is_not_good_is_refused_in_words_on_both_sides(
    tls: TlsDaemon, tmp_path: Path, what: str, in_log: str, said: str
) -> None:
    directory = tls.made("mallory")
    identity = {
        "none": None,
        "expired": issue_client(tls.authority, "mallory", "operator", -1),
        "foreign": issue_client(make_authority(10), "mallory", "operator", 10),
        "a server's": issue_server(tls.authority, (), 10),
    }[what]
    file = None
    if identity is not None:
        file = tmp_path / "identity.pem"
        file.write_bytes(identity.key + identity.certificate)
    before = len(tls.log.read_text())

    with Remote(directory, tls.tls_address, identity=identity, bare=True) as mallory:
        code, _ = refusal(mallory.status)
    text = _explained(tls, directory, file)

    assert code is UNAVAILABLE
    assert said in text
    assert "keys client" in text
    wait_until(lambda: in_log in tls.log.read_text()[before:], what="the daemon says why")
    keys.revoke(tls.directory, "mallory")


def test_a_certificate_of_our_authority_that_is_in_no_register_opens_nothing(tls: TlsDaemon) -> None:
    stolen = issue_client(tls.authority, "root", "operator", 10)
    with Remote(tls.made("eve"), tls.tls_address, identity=stolen) as eve:
        code, text = refusal(eve.status)

    assert code is UNAUTHENTICATED
    assert "not in this daemon's register" in text


def test_a_revoked_client_is_refused_on_the_connection_that_it_has(tls: TlsDaemon) -> None:
    with tls.remote("rex") as rex:
        rex.handshake()
        keys.revoke(tls.directory, "rex")
        code, text = refusal(rex.handshake)

    assert code is UNAUTHENTICATED
    assert "rex is revoked" in text
    wait_until(lambda: "rex is revoked" in tls.log.read_text(), what="the daemon says so, too")


def test_a_register_that_cannot_be_read_lets_in_the_owner_alone(start_tls: Callable[..., TlsDaemon]) -> None:
    daemon = start_tls()
    with daemon.remote("anna") as anna:
        anna.handshake()
        (daemon.directory / "access.json").write_text('{"version": 1, "clients": [{}]}')

        assert refusal(anna.handshake)[0] is UNAUTHENTICATED
        assert daemon.status().pid == daemon.process.pid


# The daemon's certificate


@pytest.mark.parametrize(
    ("server", "said"),
    [("expired", "has expired"), ("foreign", "of another authority"), ("a client's", "of another authority")],
)
def test_a_client_refuses_a_daemon_whose_certificate_is_not_good(
    start_tls: Callable[..., TlsDaemon], server: str, said: str
) -> None:
    daemon = start_tls()
    directory = daemon.made("bob")
    issued = {
        "expired": lambda: issue_server(daemon.authority, (), -1),
        "foreign": lambda: issue_server(make_authority(10), (), 10),
        "a client's": lambda: issue_client(daemon.authority, "x", "server", 10),
    }[server]()
    file = KeyFiles(daemon.directory).server
    file.write_bytes(issued.key + issued.certificate)

    with Remote(directory, daemon.tls_address) as bob:
        code, _ = refusal(bob.status)
    shown = run("status", "--dir", str(directory))

    assert code is UNAVAILABLE
    assert shown.returncode == 1
    assert said in shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_name_that_the_certificate_does_not_have_is_refused_until_it_is_rotated_in(
    start_tls: Callable[..., TlsDaemon],
) -> None:
    daemon = start_tls(address="127.0.0.2:0")
    directory = daemon.made("bob")

    before = run("status", "--dir", str(directory))
    rotated = run("keys", "rotate", "--dir", str(daemon.directory), "--host", "127.0.0.2")
    after = run("status", "--json", "--dir", str(directory))

    assert before.returncode == 1
    assert "keys rotate --host 127.0.0.2" in before.stderr
    assert rotated.returncode == 0
    assert after.returncode == 0, after.stderr


def test_nothing_older_than_tls_1_2_is_agreed_on_and_nothing_plain_is_answered(tls: TlsDaemon) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=str(KeyFiles(tls.directory).authority))
    with warnings.catch_warnings(action="ignore"):  # the old version is the point of the test
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", tls.port), timeout=10) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="127.0.0.1")
    with grpc.insecure_channel(tls.tls_address) as channel:
        code, _ = refusal(lambda: channel.unary_unary("/compiler_daemon.v1.AdminService/GetStatus")(b"", timeout=10))
    assert code is UNAVAILABLE


# Tokens over TLS


def test_over_tls_with_tokens_each_client_has_one_of_its_own_and_a_role(
    start_tls: Callable[..., TlsDaemon], key: str
) -> None:
    daemon = start_tls(daemon={"client_auth": "token"})
    owner = Remote(KeyFiles(daemon.directory).folder, daemon.tls_address)
    owner.metadata = daemon.metadata
    with (
        daemon.remote("tom", kind="token") as tom,
        daemon.remote("rob", kind="token", role="reader") as rob,
        Remote(tom.directory, daemon.tls_address, bare=True) as nobody,
        owner,
    ):
        assert tom.handshake().may_publish
        assert not rob.handshake().may_publish
        assert refusal(nobody.status)[0] is UNAUTHENTICATED
        assert refusal(tom.shutdown)[0] is DENIED
        assert owner.status().pid == daemon.process.pid

        keys.revoke(daemon.directory, "tom")

        assert refusal(tom.handshake)[0] is UNAUTHENTICATED
        assert rob.handshake().environment_id == ENVIRONMENT
        assert daemon.status().counters["unauthenticated"] == 2


# Rotation


def test_a_rotated_server_certificate_is_shown_to_the_next_connection_and_cuts_none(
    start_tls: Callable[..., TlsDaemon],
) -> None:
    daemon = start_tls()
    with daemon.remote("ada") as ada:
        ada.handshake()
        before = keys.show(daemon.directory).server
        keys.rotate(daemon.directory)
        after = keys.show(daemon.directory).server

        assert ada.handshake().environment_id == ENVIRONMENT
        assert before is not None
        assert after is not None
        assert before.sha256 != after.sha256
        assert _shown(daemon, ada.directory) == after.sha256


def test_clients_of_the_old_authority_and_the_new_both_get_in_during_the_overlap_and_only_the_new_after_it(
    start_tls: Callable[..., TlsDaemon],
) -> None:
    daemon = start_tls()
    old = daemon.made("ada")

    keys.rotate(daemon.directory, authority=True)
    new = daemon.made("ben")
    for directory in (old, new):
        with Remote(directory, daemon.tls_address) as client:
            assert client.handshake().environment_id == ENVIRONMENT
    keys.rotate(daemon.directory)  # this rotates only the server's key; the overlap continues
    with Remote(old, daemon.tls_address) as client:
        client.handshake()
    keys.rotate(daemon.directory, authority=True, overlap_days=0)
    newest = daemon.made("cyd")

    for directory in (old, new):
        with Remote(directory, daemon.tls_address) as client:
            assert refusal(client.handshake)[0] is UNAVAILABLE
    with Remote(newest, daemon.tls_address) as client:
        client.handshake()


def test_an_overlap_ends_by_itself(start_tls: Callable[..., TlsDaemon]) -> None:
    daemon = start_tls()
    old = daemon.made("ada")
    keys.rotate(daemon.directory, authority=True, overlap_days=1)
    with Remote(old, daemon.tls_address) as client:
        client.handshake()

    register = Register.read(daemon.directory)
    fields = {name: getattr(register, name) for name in ("clients", "previous_token", "previous_token_until")}
    Register(**fields, previous_ca_until=time.time() + 1.0).write(daemon.directory)

    def refused() -> bool:
        with Remote(old, daemon.tls_address) as client:
            try:
                client.handshake()
            except grpc.RpcError:
                return True
            return False

    wait_until(refused, what="the authority before is believed no more")


def test_a_new_token_and_the_one_before_open_a_running_daemon_until_the_overlap_ends(
    start_tls: Callable[..., TlsDaemon],
) -> None:
    daemon = start_tls()
    old = daemon.metadata

    keys.rotate(daemon.directory, token=True)
    daemon.status()
    daemon.metadata = (("authorization", f"Bearer {(daemon.directory / 'token').read_text()}"),)
    daemon.status()
    keys.rotate(daemon.directory, token=True, overlap_days=0)

    assert refusal(daemon.status)[0] is UNAUTHENTICATED
    daemon.metadata = old
    assert refusal(daemon.status)[0] is UNAUTHENTICATED
    assert run("status", "--dir", str(daemon.directory)).returncode == 0


def test_keys_that_break_while_the_daemon_runs_leave_those_in_force_and_are_said(
    start_tls: Callable[..., TlsDaemon],
) -> None:
    daemon = start_tls()
    directory = daemon.made("ada")
    KeyFiles(daemon.directory).server.write_text("no key")

    with Remote(directory, daemon.tls_address) as ada:
        ada.handshake()

    assert "the keys in force are kept" in daemon.log.read_text()


class _CountedFiles(KeyFiles):
    """Key files that note each time that somebody asks whether they were replaced."""

    looks: ClassVar[list[float]] = []

    def stamp(self) -> object:
        self.looks.append(time.monotonic())
        return super().stamp()


def test_connections_that_crowd_in_do_not_have_the_key_files_looked_at_for_each_and_the_next_sees_new_keys(
    tmp_path: Path,
) -> None:
    keys.init(tmp_path / "d", ())
    files = _CountedFiles(tmp_path / "d")
    current = CurrentKeys(files)

    began = time.monotonic()
    assert [current.changed() for _ in range(2000)] == [None] * 2000
    took = time.monotonic() - began

    assert len(files.looks) < 20 + took * 100

    keys.rotate(tmp_path / "d")
    assert wait_until(current.changed, what="new keys", deadline_s=1.0) is not None


def _shown(daemon: TlsDaemon, directory: Path) -> str:
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    context.load_cert_chain(str(directory / "client.pem"))
    with (
        socket.create_connection(("127.0.0.1", daemon.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as stream,
    ):
        certificate = stream.getpeercert(binary_form=True)
    assert certificate is not None
    return hashlib.sha256(certificate).hexdigest()


# Starting


def test_without_keys_tcp_is_refused_with_what_makes_them(tmp_path: Path) -> None:
    ended = run("serve", "--dir", str(tmp_path / "d"), "--address", "0.0.0.0:0")

    assert ended.returncode == 2
    assert "compiler-daemon keys init" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_with_keys_nothing_is_served_in_the_clear(tmp_path: Path) -> None:
    keys.init(tmp_path / "d", ())

    ended = run("serve", "--dir", str(tmp_path / "d"), "--address", "127.0.0.1:0", "--insecure-loopback")

    assert ended.returncode == 2
    assert "leave --insecure-loopback out" in ended.stderr


@pytest.mark.parametrize(
    ("name", "mode"), [("keys", 0o770), ("keys", 0o755), ("keys/server.pem", 0o644), ("keys/ca.pem", 0o666)]
)
def test_keys_that_others_can_reach_are_refused(tmp_path: Path, name: str, mode: int) -> None:
    keys.init(tmp_path / "d", ())
    (tmp_path / "d" / name).chmod(mode)

    ended = run("serve", "--dir", str(tmp_path / "d"), "--address", "127.0.0.1:0")

    assert ended.returncode == 1
    assert "chmod" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_keys_behind_a_link_are_refused(tmp_path: Path) -> None:
    keys.init(tmp_path / "d", ())
    (tmp_path / "d" / "keys").rename(tmp_path / "elsewhere")
    (tmp_path / "d" / "keys").mkdir(mode=0o700)
    for path in (tmp_path / "elsewhere").iterdir():
        (tmp_path / "d" / "keys" / path.name).symlink_to(path)

    ended = run("serve", "--dir", str(tmp_path / "d"), "--address", "127.0.0.1:0")

    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
