"""Signers: their names, public lines and keys on the disk, and which of them are trusted."""

from __future__ import annotations

import ast
import base64
import contextlib
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import compiler_daemon
from compiler_daemon.access.directory import prepare_directory
from compiler_daemon.errors import DaemonError, DirectoryError, KeysError
from compiler_daemon.tier import ed25519
from compiler_daemon.tier.signer_files import MAX_SIGNERS, SignerFiles, Signers
from compiler_daemon.tier.signers import Listed, Signer, SignerList, SigningKey
from tests.daemon.tier.tier_samples import CI, LAB, STRANGER

SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
]
"""Points under which one signature is good for many messages."""


@pytest.fixture
def files(tmp_path: Path) -> SignerFiles:
    prepare_directory(tmp_path / "d")
    files = SignerFiles(tmp_path / "d")
    files.prepare()
    return files


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


# Public lines


def test_a_public_line_is_read_as_it_was_written() -> None:
    assert Signer.parse(LAB.signer.line) == LAB.signer
    assert Signer.parse(f"  {LAB.signer.line}\n") == LAB.signer
    assert LAB.signer.line == f"lab-1:{base64_of(LAB.signer.public)}"


@pytest.mark.parametrize(
    "name", ["lab", "lab-", "-1", "lab-one", "l b-1", "lab-1\n", "lab-\u0661", "../lab-1", "x" * 70 + "-1", ""]
)
def test_a_name_without_a_number_is_no_signers(name: str) -> None:
    with pytest.raises(KeysError, match=r"is no signer's name.*lab-1"):
        SigningKey.make(name)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "is no public line"),
        ("lab-1", "is no public line"),
        ("lab:" + base64_of(b"x" * 32), "is no signer's name"),
        ("lab-1:", "is not base64"),
        ("lab-1:not base64", "is not base64"),
        (LAB.signer.line[:-3], "is not base64"),
        (LAB.signer.line[:-1], "is not base64"),
        (LAB.signer.line + "=", "is not base64"),
        ("lab-1:" + base64_of(b"x" * 31), "is no public key"),
        ("lab-1:" + base64_of(b"x" * 33), "is no public key"),
        ("lab-1:" + base64_of(b"\xff" * 32), "is no public key"),
        *(("lab-1:" + base64_of(bytes.fromhex(point)), "is no public key") for point in SMALL_ORDER),
    ],
)
def test_a_public_line_that_is_none_is_refused_in_words(line: str, said: str) -> None:
    with pytest.raises(KeysError, match=said):
        Signer.parse(line)


def test_every_key_that_is_made_is_one_and_half_of_all_numbers_are_none() -> None:
    assert all(ed25519.is_public_key(ed25519.generate()[1]) for _ in range(50))
    assert not all(ed25519.is_public_key(bytes([number]) * 32) for number in range(50))


@given(st.text(max_size=60) | st.text("lab-1:=+/AZ9", max_size=60))
def test_any_text_is_a_signer_or_refused(line: str) -> None:
    with contextlib.suppress(KeysError):
        assert Signer.parse(line).line == line.strip()


def test_a_private_key_that_is_taken_for_a_public_line_is_refused_and_not_repeated() -> None:
    secret = base64_of(LAB.seed + LAB.signer.public)
    for line in (f"lab-1:{secret}", f"lab-1:{secret[:-3]}"):
        with pytest.raises(KeysError) as refused:
            Signer.parse(line)
        assert secret[:12] not in str(refused.value)


def test_a_private_key_shows_in_no_repr() -> None:
    shown = repr(LAB) + repr(SignerList(own=LAB))

    assert repr(LAB.seed)[2:-1] not in shown
    assert "lab-1" in shown


def test_a_signature_is_its_keys_and_its_messages() -> None:
    signature = LAB.sign(b"message")

    assert ed25519.verifies(LAB.signer.public, signature, b"message")
    assert not ed25519.verifies(LAB.signer.public, signature, b"another")
    assert not ed25519.verifies(CI.signer.public, signature, b"message")
    assert not ed25519.verifies(LAB.signer.public, signature[:-1], b"message")
    assert not ed25519.verifies(b"short", signature, b"message")


# On the disk


def test_a_key_and_a_list_are_read_as_they_were_written(files: SignerFiles) -> None:
    listed = (
        Listed(signer=CI.signer, since=1_800_000_000.0),
        Listed(signer=STRANGER.signer, since=5.0, distrusted=True),
    )

    files.write_own(LAB)
    files.write_listed(listed)

    assert files.read() == SignerList(own=LAB, listed=listed)
    assert files.read().trusted == (LAB.signer, CI.signer)


def test_the_files_are_their_users_alone(files: SignerFiles) -> None:
    files.write_own(LAB)
    files.write_listed(())

    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (files.folder, files.own, files.trusted)}
    assert modes == {files.folder: 0o700, files.own: 0o600, files.trusted: 0o600}


def test_a_directory_without_signers_trusts_nobody(tmp_path: Path) -> None:
    assert SignerFiles(tmp_path).read() == SignerList()


def test_a_list_may_be_bare_public_lines_that_others_can_read(files: SignerFiles) -> None:
    files.trusted.write_text(f"\n{CI.signer.line}\n\n{LAB.signer.line}\n")
    files.trusted.chmod(0o644)

    assert files.read().trusted == (CI.signer, LAB.signer)


@pytest.mark.parametrize(
    "text",
    [
        f"{CI.signer.line} believed 2026-11-28T12:00:00Z\n",
        f"{CI.signer.line} trusted\n",
        f"{CI.signer.line} trusted yesterday\n",
        f"{CI.signer.line}\nnonsense\n",
        f"{CI.signer.line}\n{CI.signer.line}\n",
        f"{CI.signer.line}\n{CI.signer.line.replace('ci-1', 'ci-2')}\n",
        f"ci-1:{base64_of(bytes(32))}\n",
        "ci-1:ä\n",
        "x" * 70_000,
    ],
)
def test_a_list_with_a_line_that_is_none_is_not_used_at_all(files: SignerFiles, text: str) -> None:
    files.trusted.write_text(text)

    with pytest.raises((KeysError, DirectoryError)):
        files.read_listed()
    assert Signers(files.directory).current() == SignerList()


def test_a_list_has_an_end(files: SignerFiles) -> None:
    many = tuple(Listed(signer=Signer(f"lab-{number}", b""), since=0.0) for number in range(MAX_SIGNERS + 1))

    with pytest.raises(KeysError, match="more than 256 signers"):
        files.write_listed(many)


def another_users(path: Path) -> None:
    path.chmod(0o666)


def a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("spoil", [another_users, a_link, a_pipe])
@pytest.mark.parametrize("name", ["own", "trusted"])
def test_a_file_that_others_may_have_written_is_not_used(files: SignerFiles, name: str, spoil: object) -> None:
    files.write_own(LAB)
    files.write_listed((Listed(signer=CI.signer, since=0.0),))
    assert callable(spoil)
    spoil(getattr(files, name))

    with pytest.raises(DaemonError):
        files.read()
    left = Signers(files.directory).current()
    assert (left.own is None) == (name == "own")
    assert (CI.signer in left.trusted) == (name == "own")


def test_a_folder_that_others_can_reach_is_not_used(files: SignerFiles) -> None:
    files.write_own(LAB)
    files.folder.chmod(0o755)

    with pytest.raises(DirectoryError, match="chmod 700"):
        files.read()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lab-1",
        "lab-1:",
        f"lab-1:{base64_of(LAB.seed)}",
        f"lab-1:{base64_of(LAB.seed + CI.signer.public)}",
        "lab:AAAA",
        "ä",
    ],
)
def test_a_key_file_that_holds_no_key_is_refused_without_its_content(files: SignerFiles, text: str) -> None:
    files.write_own(LAB)
    files.own.write_text(text)

    with pytest.raises(KeysError, match="holds no signing key") as refused:
        files.read_own()
    assert base64_of(LAB.seed)[:12] not in str(refused.value)


# While a daemon runs


def test_trust_and_distrust_hold_for_the_next_question(files: SignerFiles) -> None:
    signers = Signers(files.directory)
    assert signers.current().standing(CI.signer) == "unknown"

    files.write_listed((Listed(signer=CI.signer, since=0.0),))
    trusted = signers.current().standing(CI.signer)
    files.write_listed((Listed(signer=CI.signer, since=0.0, distrusted=True),))
    distrusted = signers.current().standing(CI.signer)
    files.write_own(LAB)

    assert (trusted, distrusted) == ("trusted", "distrusted")
    assert signers.current().own == LAB


def test_files_that_have_not_changed_are_not_read_again(files: SignerFiles) -> None:
    files.write_own(LAB)
    signers = Signers(files.directory)

    assert signers.current() is signers.current()


def test_a_file_that_cannot_be_read_is_said_once_and_used_when_it_can_be(
    files: SignerFiles, caplog: pytest.LogCaptureFixture
) -> None:
    files.write_listed((Listed(signer=CI.signer, since=0.0),))
    files.trusted.chmod(0o666)
    signers = Signers(files.directory)

    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert signers.current().trusted == ()
    files.trusted.chmod(0o600)  # which changes neither time nor size

    assert len(caplog.records) == 1
    assert "no signature in the tier is believed but our own" in caplog.text
    assert signers.current().trusted == (CI.signer,)


# What a daemon without a tier loads


def test_reading_who_is_believed_loads_no_cryptography(files: SignerFiles) -> None:
    files.write_listed((Listed(signer=CI.signer, since=0.0),))
    program = (
        "import sys; from pathlib import Path; from compiler_daemon.tier.signer_files import Signers; "
        f"assert Signers(Path({str(files.directory)!r})).current().trusted; "
        "print('cryptography' in sys.modules, 'zstandard' in sys.modules)"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert said.stdout.split() == ["False", "False"]


def test_two_modules_import_cryptography_and_the_tiers_does_it_when_it_is_needed() -> None:
    root = Path(compiler_daemon.__file__).parent
    importing = {}
    for path in root.rglob("*.py"):
        tree = ast.parse(path.read_text())
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        if any("cryptography" in ast.unparse(node) for node in nodes):
            importing[path.relative_to(root).as_posix()] = any(
                "cryptography" in ast.unparse(node)
                for node in tree.body
                if isinstance(node, ast.Import | ast.ImportFrom)
            )

    assert importing == {"admin/keys/certificates.py": True, "tier/ed25519.py": False}
