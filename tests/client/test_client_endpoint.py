"""What is wrong with the way to the daemon is one of the client's own troubles, with a reason that is counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_daemon import RawListener

from compile_client.errors import AbsentError, AddressError, CredentialsError, UnsafeError
from compile_client.transport.endpoint import Address, find_address, probe, read_credentials


@pytest.fixture
def listener(directory: Path) -> Iterator[Address]:
    with RawListener(directory / "s", greeting=None):
        yield Address(path=f"{directory}/s")


@pytest.mark.parametrize("text", ["here", "unix:", "127.0.0.1:0", "a b:80", "10.0.0.1:80", "example.org:80"])
def test_what_is_no_address_is_the_clients_trouble_with_its_advice(directory: Path, text: str) -> None:
    with pytest.raises(AddressError) as raised:
        find_address(text, directory)

    assert "COMPILER_DAEMON_ADDRESS" in raised.value.advice


@pytest.mark.parametrize("name", ["missing", "x" * 200])
def test_nobody_there_is_absent(directory: Path, name: str) -> None:
    with pytest.raises(AbsentError, match="no daemon at"):
        probe(Address(path=f"{directory}/{name}"), 0.2)


def test_a_stranger_behind_the_socket_is_unsafe(listener: Address, monkeypatch: pytest.MonkeyPatch) -> None:
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
