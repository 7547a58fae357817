"""Finding a daemon, and trusting its directory."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compile_wire.endpoint.address import Address, find_address, parse_address, probe
from compile_wire.endpoint.credentials import Credentials, has_tls_keys, read_credentials
from compile_wire.errors import AbsentError, AddressError, CredentialsError, UnsafeError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The daemon's directory: a socket's path must be short, and the directory private."""
    path = tmp_path / "d"
    path.mkdir(mode=0o700)
    return path


@contextmanager
def listening(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen(8)
        yield


@pytest.fixture
def credentials(directory: Path) -> Iterator[Path]:
    for name, data in (("token", b"token\n"), ("secret", bytes(32))):
        (directory / name).touch(mode=0o600)
        (directory / name).write_bytes(data)
    return directory


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("unix:/run/d.sock", "unix:/run/d.sock"),
        ("unix:///run/d.sock", "unix:/run/d.sock"),
        ("127.0.0.1:80", "ipv4:127.0.0.1:80"),
        ("localhost:80", "ipv4:127.0.0.1:80"),
        ("[::1]:80", "ipv6:[::1]:80"),
    ],
)
def test_an_address_is_understood(text: str, target: str) -> None:
    assert parse_address(text).grpc_target == target


@pytest.mark.parametrize(
    "text",
    ["", "unix:", "unix:a\0b", "here", "host:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x", "example.org:80"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address(text)


@pytest.mark.parametrize("text", ["10.0.0.1:80", "0.0.0.0:80", "[2001:db8::1]:80"])
def test_another_machine_is_not_spoken_to_in_the_clear(text: str) -> None:
    with pytest.raises(AddressError, match="not this machine"):
        parse_address(text)


def test_the_given_address_wins_over_the_one_written_down_over_the_usual_one(directory: Path) -> None:
    assert str(find_address("", directory)) == f"unix:{directory}/daemon.sock"

    (directory / "daemon.json").write_text(json.dumps({"address": "127.0.0.1:7"}))
    assert str(find_address("", directory)) == "127.0.0.1:7"

    assert str(find_address("unix:/s", directory)) == "unix:/s"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"address": 3}', "[" * 10_000, "\xff"])
def test_a_note_that_cannot_be_read_is_no_note(directory: Path, text: str) -> None:
    (directory / "daemon.json").write_text(text, encoding="latin-1")

    assert find_address("", directory) == Address(path=f"{directory}/daemon.sock")


def test_a_listener_of_this_user_is_found(directory: Path) -> None:
    with listening(directory / "s"):
        probe(Address(path=f"{directory}/s"), 0.2)


def test_a_listener_of_another_user_is_unsafe(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compile_wire.endpoint.address.os.geteuid", lambda: 12345)

    with listening(directory / "s"), pytest.raises(UnsafeError, match="served by user"):
        probe(Address(path=f"{directory}/s"), 0.2)


@pytest.mark.parametrize("path", ["missing", "x" * 200])
def test_no_listener_is_absent(directory: Path, path: str) -> None:
    with pytest.raises(AbsentError):
        probe(Address(path=f"{directory}/{path}"), 0.2)


def test_a_closed_port_is_absent() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port meanwhile
        with pytest.raises(AbsentError):
            probe(Address(host="127.0.0.1", port=sock.getsockname()[1]), 0.2)


def test_a_listener_that_accepts_nobody_costs_a_bounded_time(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{directory}/s")
        sock.listen(0)
        start = time.monotonic()
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(f"{directory}/s")
            with pytest.raises(AbsentError):
                probe(Address(path=f"{directory}/s"), 0.1)

    assert time.monotonic() - start < 2


def test_token_and_secret_are_read(credentials: Path) -> None:
    assert read_credentials(credentials) == Credentials("token", bytes(32))


def test_credentials_do_not_show(credentials: Path) -> None:
    shown = repr(read_credentials(credentials))

    assert "token'" not in shown
    assert "x00" not in shown


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_directory_that_others_reach_is_unsafe(credentials: Path, mode: int) -> None:
    credentials.chmod(mode)

    with pytest.raises(UnsafeError, match="chmod 700"):
        read_credentials(credentials)


@pytest.mark.parametrize("name", ["token", "secret"])
def test_a_file_that_others_reach_is_unsafe(credentials: Path, name: str) -> None:
    (credentials / name).chmod(0o640)

    with pytest.raises(UnsafeError, match="chmod 600"):
        read_credentials(credentials)


@pytest.mark.parametrize("name", ["token", "secret"])
def test_a_file_behind_a_link_is_not_read(credentials: Path, name: str) -> None:
    (credentials / name).rename(credentials / "elsewhere")
    (credentials / name).symlink_to(credentials / "elsewhere")

    with pytest.raises(CredentialsError):
        read_credentials(credentials)


def test_what_belongs_to_another_user_is_unsafe(credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compile_wire.endpoint.credentials.os.geteuid", lambda: 12345)

    with pytest.raises(UnsafeError, match="belongs to user"):
        read_credentials(credentials)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("token", b""),
        ("token", b"\xff\xfe"),
        ("token", b"a\nb"),
        ("token", b"t" * 600),
        ("secret", b"short"),
        ("secret", bytes(33)),
    ],
)
def test_a_token_or_secret_of_another_form_is_refused(credentials: Path, name: str, data: bytes) -> None:
    (credentials / name).write_bytes(data)

    with pytest.raises(CredentialsError):
        read_credentials(credentials)


def test_a_missing_directory_has_no_credentials(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError):
        read_credentials(tmp_path / "missing")


def test_a_pipe_in_place_of_a_token_is_refused_at_once(credentials: Path) -> None:
    import os

    (credentials / "token").unlink()
    os.mkfifo(credentials / "token", 0o600)

    with pytest.raises(UnsafeError, match="not a plain file"):
        read_credentials(credentials)


# With keys for TLS


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("gpu7.example.org:80", "dns:///gpu7.example.org:80"),
        ("10.0.0.1:80", "ipv4:10.0.0.1:80"),
        ("[2001:db8::1]:80", "ipv6:[2001:db8::1]:80"),
        ("localhost:80", "ipv4:127.0.0.1:80"),
    ],
)
def test_with_keys_for_tls_other_machines_are_spoken_to(text: str, target: str) -> None:
    assert parse_address(text, secured=True).grpc_target == target


@pytest.mark.parametrize("text", ["a b:80", "a/b:80", ":80", "dns:///x:80", "x" * 300 + ":80", "b\u00e4d:80"])
def test_what_is_no_host_is_refused_with_keys_as_well(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address(text, secured=True)


def test_a_clients_directory_names_its_daemon(directory: Path) -> None:
    (directory / "client.json").write_text(json.dumps({"address": "gpu7:7", "expires": 1.0}))

    assert str(find_address("", directory, secured=True)) == "gpu7:7"


@pytest.fixture
def clients(credentials: Path) -> Path:
    (credentials / "token").unlink()
    pem = "-----BEGIN {0}-----\nAAAA\n-----END {0}-----\n"
    for name, text in (
        ("ca.pem", pem.format("CERTIFICATE")),
        ("client.pem", pem.format("PRIVATE KEY") + pem.format("CERTIFICATE")),
    ):
        (credentials / name).touch(mode=0o600)
        (credentials / name).write_text(text)
    return credentials


def test_a_certificate_takes_the_place_of_the_token(clients: Path) -> None:
    read = read_credentials(clients, tls=True)

    assert has_tls_keys(clients)
    assert read.token == ""
    assert read.tls is not None
    assert read.tls.key is not None
    assert b"PRIVATE KEY" in read.tls.key
    assert read.tls.certificate is not None
    assert b"PRIVATE KEY" not in read.tls.certificate


def test_a_certificate_without_its_key_is_refused(clients: Path) -> None:
    (clients / "client.pem").write_bytes((clients / "ca.pem").read_bytes())

    with pytest.raises(CredentialsError, match="private key"):
        read_credentials(clients, tls=True)


def test_without_certificate_the_token_is_needed(clients: Path) -> None:
    (clients / "client.pem").unlink()

    with pytest.raises(CredentialsError, match="token"):
        read_credentials(clients, tls=True)


@pytest.mark.parametrize("name", ["ca.pem", "client.pem"])
def test_keys_that_others_reach_are_unsafe(clients: Path, name: str) -> None:
    (clients / name).chmod(0o644)

    with pytest.raises(UnsafeError, match="chmod 600"):
        read_credentials(clients, tls=True)
