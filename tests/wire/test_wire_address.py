"""Addresses are read in one way, and the client knows who listens at one before it shows any secret there."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compile_wire.endpoint.address import (
    Address,
    TcpAddress,
    UnixAddress,
    check_path_length,
    dialled,
    find_address,
    parse_address,
)
from compile_wire.endpoint.peer import Peer, find_peer, probe
from compile_wire.errors import AddressError, PeerError, UnsafeFileError

Write = Callable[[str, str], None]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory for the daemon: it is private, and its path is short enough for a socket's name."""
    path = tmp_path / "d"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def write(directory: Path) -> Write:
    def write(name: str, text: str) -> None:
        (directory / name).touch(mode=0o600)
        (directory / name).write_text(text, encoding="latin-1")

    return write


@contextmanager
def listening(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen(8)
        yield


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/d.sock", UnixAddress(Path("/run/d.sock"))),
        ("unix:///run/d.sock", UnixAddress(Path("/run/d.sock"))),
        ("unix:d.sock", UnixAddress(Path.cwd() / "d.sock")),
        ("localhost:50051", TcpAddress("localhost", 50051)),
        ("127.0.0.1:80", TcpAddress("127.0.0.1", 80)),
        ("gpu-7.example.org:80", TcpAddress("gpu-7.example.org", 80)),
        ("[::1]:0", TcpAddress("::1", 0)),
        ("[0:0::1]:7", TcpAddress("::1", 7)),
    ],
)
def test_an_address_is_read_and_written_in_one_form(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["", "here", "host:", ":1", "127.0.0.1:65536", "host:-1", "host:\u00b9", "host:x"])
def test_what_has_not_the_form_of_an_address_is_none(text: str) -> None:
    with pytest.raises(AddressError) as raised:
        parse_address(text)

    assert raised.value.flaw == "form"


@pytest.mark.parametrize("text", ["unix:", "unix:a\0b"])
def test_a_socket_needs_a_path(text: str) -> None:
    with pytest.raises(AddressError) as raised:
        parse_address(text)

    assert raised.value.flaw == "path"


@pytest.mark.parametrize("text", ["a b:80", "a/b:80", "dns:///x:80", "x" * 300 + ":80", "b\u00e4d:80", "*:80"])
def test_a_host_is_a_number_or_a_name(text: str) -> None:
    with pytest.raises(AddressError, match="no host"):
        parse_address(text)


def test_a_sockets_path_may_be_as_long_as_the_system_allows_and_no_longer() -> None:
    check_path_length(parse_address("unix:/" + "x" * 106))
    with pytest.raises(AddressError, match="108 bytes") as raised:
        check_path_length(parse_address("unix:/" + "x" * 107))

    assert raised.value.flaw == "length"


@pytest.mark.parametrize(
    ("text", "secured", "target"),
    [
        ("unix:/run/d.sock", False, "unix:/run/d.sock"),
        ("127.0.0.1:80", False, "ipv4:127.0.0.1:80"),
        ("localhost:80", False, "ipv4:127.0.0.1:80"),
        ("[::1]:80", False, "ipv6:[::1]:80"),
        ("localhost:80", True, "ipv4:127.0.0.1:80"),
        ("gpu7.example.org:80", True, "dns:///gpu7.example.org:80"),
        ("10.0.0.1:80", True, "ipv4:10.0.0.1:80"),
        ("[2001:db8::1]:80", True, "ipv6:[2001:db8::1]:80"),
    ],
)
def test_an_address_is_dialled_by_its_number_or_over_tls_by_its_name(text: str, secured: bool, target: str) -> None:
    assert dialled(parse_address(text), secured=secured).grpc_target == target


@pytest.mark.parametrize("text", ["10.0.0.1:80", "0.0.0.0:80", "[2001:db8::1]:80"])
def test_another_machine_is_not_spoken_to_in_the_clear(text: str) -> None:
    with pytest.raises(AddressError, match="not this machine"):
        dialled(parse_address(text), secured=False)


def test_a_name_is_not_looked_up_for_a_connection_in_the_clear() -> None:
    with pytest.raises(AddressError, match="without keys for TLS a host is named by its number"):
        dialled(parse_address("example.org:80"), secured=False)


@pytest.mark.parametrize("secured", [False, True])
def test_port_0_is_listened_at_and_never_dialled(secured: bool) -> None:
    with pytest.raises(AddressError):
        dialled(parse_address("127.0.0.1:0"), secured=secured)


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("unix:/s", True),
        ("localhost:1", True),
        ("127.8.9.1:1", True),
        ("[::1]:1", True),
        ("0.0.0.0:1", False),
        ("10.0.0.1:1", False),
        ("localhost.example.org:1", False),
    ],
)
def test_only_the_loopback_interface_and_sockets_are_of_this_machine(text: str, local: bool) -> None:
    assert parse_address(text).is_local == local


def test_the_daemons_note_wins_over_the_clients_card_over_the_usual_socket(directory: Path, write: Write) -> None:
    assert find_address(directory) == UnixAddress(directory / "daemon.sock")

    write("client.json", json.dumps({"address": "gpu7:7", "expires": 1.0}))
    assert str(find_address(directory)) == "gpu7:7"

    write("daemon.json", json.dumps({"address": "127.0.0.1:7"}))
    assert str(find_address(directory)) == "127.0.0.1:7"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"address": 3}', "[" * 10_000, "\xff", " " * 70_000])
def test_a_note_that_cannot_be_read_is_no_note(directory: Path, write: Write, text: str) -> None:
    write("daemon.json", text)

    assert find_address(directory) == UnixAddress(directory / "daemon.sock")


@pytest.mark.parametrize("name", ["daemon.json", "client.json"])
def test_a_note_that_others_could_have_written_is_not_believed(directory: Path, write: Write, name: str) -> None:
    write(name, json.dumps({"address": "127.0.0.1:7"}))
    (directory / name).chmod(0o620)

    with pytest.raises(UnsafeFileError, match="chmod 600"):
        find_address(directory)


def test_a_note_behind_a_link_is_no_note(directory: Path, write: Write) -> None:
    write("elsewhere", json.dumps({"address": "127.0.0.1:7"}))
    (directory / "daemon.json").symlink_to(directory / "elsewhere")

    assert find_address(directory) == UnixAddress(directory / "daemon.sock")


def test_a_listener_of_this_user_is_found(directory: Path) -> None:
    with listening(directory / "s"):
        assert probe(UnixAddress(directory / "s"), 0.2) == Peer(os.getpid(), os.geteuid())


def test_a_listener_of_another_user_is_a_stranger(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address, user = UnixAddress(directory / "s"), os.geteuid()
    monkeypatch.setattr("compile_wire.endpoint.peer.os.geteuid", lambda: user + 1)

    with listening(directory / "s"):
        with pytest.raises(PeerError, match=f"served by user {user}, not by user {user + 1}") as raised:
            probe(address, 0.2)
        assert find_peer(address, 0.2) == Peer(os.getpid(), user)
    assert raised.value.whose == f"process {os.getpid()} of user {user}, not of user {user + 1}"


@pytest.mark.parametrize("path", ["missing", "x" * 200])
def test_where_nobody_listens_is_an_error_of_the_system(directory: Path, path: str) -> None:
    with pytest.raises(OSError, match=r"No such file|too long"):
        probe(UnixAddress(directory / path), 0.2)


def test_over_tcp_nobody_can_say_who_listens() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # the port is bound without listening, so that nobody else gets it meanwhile
        address = TcpAddress("127.0.0.1", sock.getsockname()[1])
        with pytest.raises(ConnectionRefusedError):
            probe(address, 0.2)
        sock.listen()

        assert probe(address, 0.2) is None
