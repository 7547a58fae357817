"""The installer guards the folder of installed objects, because what is in there will be loaded as code."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from compile_client.graphs.installer import Installer
from compile_client.transport.messages import Artifact
from compile_wire.digest import digest_of
from compile_wire.manifest import BlobRef, Manifest

NAME = "0" * 64 + ".so"
DATA = b"\x7fELF, and what follows"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    return tmp_path / "compile_daemon"


def artifact(data: bytes = DATA) -> Artifact:
    digest = digest_of(data)
    manifest = Manifest(
        key="key",
        environment=digest_of(b"environment"),
        guards="",
        graph="",
        compile_s=1.0,
        origin="worker",
        blobs=(BlobRef(role="object", name=NAME, sha256=digest, size=len(data)),),
    )
    return Artifact(manifest, digest_of(b"manifest"), {digest: data})


def test_an_object_is_installed_once_and_left_alone_where_it_lies_byte_for_byte(folder: Path) -> None:
    first = Installer().install(artifact(), "key")
    there = (folder / NAME).stat().st_ino
    second = Installer().install(artifact(), "key")

    assert first == second == []
    assert (folder / NAME).read_bytes() == DATA
    assert (folder / NAME).stat().st_ino == there
    assert [path.name for path in folder.iterdir()] == [NAME]


@pytest.mark.parametrize("damage", [bytes(len(DATA)), DATA[:-1] + b"?"])
def test_a_file_of_the_right_name_and_length_with_other_bytes_is_replaced_and_named(
    folder: Path, damage: bytes
) -> None:
    Installer().install(artifact(), "key")
    (folder / NAME).write_bytes(damage)

    assert Installer().install(artifact(), "key") == [NAME]
    assert (folder / NAME).read_bytes() == DATA


def built(number: bytes, code: bytes) -> bytes:
    return b"\x7fELF" + struct.pack("=3I", 4, 20, 3) + b"GNU\0" + number * 20 + code


@pytest.mark.parametrize(
    ("there", "damaged"),
    [(built(b"2", b"one"), []), (built(b"1", b"one"), [NAME]), (bytes(len(built(b"1", b"two"))), [NAME])],
    ids=["another build", "the same build", "no build"],
)
def test_a_file_of_another_build_is_replaced_without_a_word(folder: Path, there: bytes, damaged: list[str]) -> None:
    Installer().install(artifact(built(b"1", b"two")), "key")
    (folder / NAME).write_bytes(there)

    assert Installer().install(artifact(built(b"1", b"two")), "key") == damaged
    assert (folder / NAME).read_bytes() == built(b"1", b"two")


def test_a_file_of_another_length_is_replaced_without_a_word(folder: Path) -> None:
    Installer().install(artifact(DATA + b" with a longer path"), "key")

    assert Installer().install(artifact(), "key") == []
    assert (folder / NAME).read_bytes() == DATA
