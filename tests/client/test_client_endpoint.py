"""What is wrong with the way to the daemon becomes a failure of the client, with a reason that is counted."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compile_client.errors import AbsentError, AddressError, CredentialsError, UnsafeError
from compile_client.transport.endpoint import UnixAddress, find_address, probe, read_credentials
from tests.client.fake_daemon import RawListener


@pytest.fixture
def listener(directory: Path) -> Iterator[UnixAddress]:
    with RawListener(directory / "s", greeting=None):
        yield UnixAddress(directory / "s")


@pytest.mark.parametrize("text", ["here", "unix:", "127.0.0.1:0", "a b:80", "10.0.0.1:80", "example.org:80"])
def test_what_is_no_address_is_the_clients_trouble_with_its_advice(directory: Path, text: str) -> None:
    with pytest.raises(AddressError) as raised:
        find_address(text, directory)

    assert "COMPILER_DAEMON_ADDRESS" in raised.value.advice


@pytest.mark.parametrize("name", ["missing", "x" * 200])
def test_nobody_there_is_absent(directory: Path, name: str) -> None:
    with pytest.raises(AbsentError, match="no daemon at"):
        probe(UnixAddress(directory / name), 0.2)


def test_a_listener_of_this_machine_that_accepts_nobody_is_absent_within_the_time(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock, socket.socket(socket.AF_UNIX) as first:
        sock.bind(f"{directory}/full")
        sock.listen(0)
        first.connect(f"{directory}/full")
        start = time.monotonic()
        with pytest.raises(AbsentError):
            probe(UnixAddress(directory / "full"), 0.1)

    assert time.monotonic() - start < 2


def test_the_given_address_wins_over_the_one_written_down(directory: Path) -> None:
    (directory / "daemon.json").touch(mode=0o600)
    (directory / "daemon.json").write_text('{"address": "127.0.0.1:7"}')

    assert str(find_address("unix:/s", directory)) == "unix:/s"
    assert str(find_address("", directory)) == "127.0.0.1:7"


def test_an_address_that_others_could_have_written_is_unsafe(directory: Path) -> None:
    (directory / "daemon.json").touch(mode=0o600)
    (directory / "daemon.json").chmod(0o660)

    with pytest.raises(UnsafeError, match="chmod 600"):
        find_address("", directory)


def test_a_stranger_behind_the_socket_is_unsafe(listener: UnixAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)

    with pytest.raises(UnsafeError, match=f"served by user {user}, not by user {user + 1}"):
        probe(listener, 0.2)


def test_a_directory_that_others_reach_is_unsafe(directory: Path) -> None:
    directory.chmod(0o755)

    with pytest.raises(UnsafeError, match="chmod 700"):
        read_credentials(directory)


def test_a_missing_directory_and_a_missing_token_are_credentials(directory: Path) -> None:
    with pytest.raises(CredentialsError, match=r"the daemon's directory .* cannot be read"):
        read_credentials(directory / "missing")
    with pytest.raises(CredentialsError, match="token cannot be read"):
        read_credentials(directory)
