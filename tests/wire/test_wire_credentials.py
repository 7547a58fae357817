"""The client reads keys and secrets only from places where nobody else can have written or read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from compile_wire.endpoint.credentials import Credentials, has_tls_keys, read_credentials, read_keys, read_secret_file
from compile_wire.endpoint.private_files import read_private, split_pem, write_private
from compile_wire.errors import UnsafeDirectoryError, UnsafeError, UnusableFileError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "d"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def credentials(directory: Path) -> Path:
    for name, data in (("token", b"token\n"), ("secret", bytes(32))):
        (directory / name).touch(mode=0o600)
        (directory / name).write_bytes(data)
    return directory


def test_token_and_secret_are_read(credentials: Path) -> None:
    assert read_credentials(credentials) == Credentials("token", secret=bytes(32))


def test_credentials_do_not_show(credentials: Path) -> None:
    shown = repr(read_credentials(credentials))

    assert "token'" not in shown
    assert "x00" not in shown


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_directory_that_others_reach_is_unsafe(credentials: Path, mode: int) -> None:
    credentials.chmod(mode)

    with pytest.raises(UnsafeDirectoryError, match="chmod 700"):
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

    with pytest.raises(OSError, match="symbolic links"):
        read_credentials(credentials)


def test_what_belongs_to_another_user_is_unsafe(credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compile_wire.endpoint.private_files.os.geteuid", lambda: 12345)

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

    with pytest.raises(UnusableFileError):
        read_credentials(credentials)


def test_a_missing_directory_has_no_credentials(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_credentials(tmp_path / "missing")


def test_a_pipe_in_place_of_a_token_is_refused_at_once(credentials: Path) -> None:
    (credentials / "token").unlink()
    os.mkfifo(credentials / "token", 0o600)

    with pytest.raises(UnsafeError, match="not a plain file"):
        read_credentials(credentials)


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

    with pytest.raises(UnusableFileError, match="private key"):
        read_credentials(clients, tls=True)


def test_without_certificate_the_token_is_needed(clients: Path) -> None:
    (clients / "client.pem").unlink()

    with pytest.raises(FileNotFoundError, match="token"):
        read_credentials(clients, tls=True)


@pytest.mark.parametrize("name", ["ca.pem", "client.pem"])
def test_keys_that_others_reach_are_unsafe(clients: Path, name: str) -> None:
    (clients / name).chmod(0o644)

    with pytest.raises(UnsafeError, match="chmod 600"):
        read_credentials(clients, tls=True)


def test_tls_is_never_left_out_where_it_was_asked_for(credentials: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"ca\.pem"):
        read_keys(credentials, tls=True)


def test_the_end_of_a_certificate_is_as_its_maker_wrote_it_down(clients: Path) -> None:
    def expires() -> float:
        read = read_keys(clients, tls=True)
        return read.tls.expires if read.tls else -1.0

    assert expires() == 0.0
    write_private(clients / "client.json", b'{"expires": 7}')
    assert expires() == 7.0
    write_private(clients / "client.json", b'{"expires": "7"}')
    assert expires() == 0.0


# Files


def test_a_file_is_written_for_its_owner_alone_and_whole(directory: Path) -> None:
    write_private(directory / "f", b"one")
    write_private(directory / "f", b"two")

    assert read_private(directory / "f") == b"two"
    assert stat.S_IMODE((directory / "f").stat().st_mode) == 0o600
    assert [path.name for path in directory.iterdir()] == ["f"]


def test_a_write_that_fails_leaves_nothing_behind(directory: Path) -> None:
    (directory / "f").mkdir()

    with pytest.raises(OSError, match="directory"):
        write_private(directory / "f", b"data")

    assert [path.name for path in directory.iterdir()] == ["f"]


def test_a_file_may_be_as_long_as_it_is_told_and_no_longer(directory: Path) -> None:
    write_private(directory / "f", bytes(8))

    assert read_private(directory / "f", 8) == bytes(8)
    with pytest.raises(UnusableFileError, match="longer than 7 bytes"):
        read_private(directory / "f", 7)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_secret_in_a_file_of_another_name_has_the_same_form(directory: Path, size: int) -> None:
    write_private(directory / "other", bytes(size))

    with pytest.raises(UnusableFileError, match=f"{size} bytes, not 32"):
        read_secret_file(directory / "other")


def test_key_and_certificates_of_a_file_are_told_apart() -> None:
    def block(label: str, text: str) -> bytes:
        return f"-----BEGIN {label}-----\n{text}\n-----END {label}-----".encode()

    key, chain = block("EC PRIVATE KEY", "AA"), [block("CERTIFICATE", text) for text in ("BB", "CC")]
    data = b"\n".join([chain[0], key, block("X509 CRL", "DD"), block("PRIVATE KEY", "EE"), chain[1]])

    assert split_pem(data) == (key + b"\n", chain[0] + b"\n" + chain[1] + b"\n")
    assert split_pem(b"none") == (b"", b"")
