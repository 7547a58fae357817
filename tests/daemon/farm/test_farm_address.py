from __future__ import annotations

from pathlib import Path

import pytest

from compiler_daemon.config import FarmConfig
from compiler_daemon.errors import DirectoryError, UsageError
from compiler_daemon.farm.address import (
    CA_VARIABLE,
    CERTIFICATE_VARIABLE,
    FARM_VARIABLE,
    KEY_VARIABLE,
    farm_of,
)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / f"{name}.pem" for name in ("ca", "certificate", "key")}
    for path in paths.values():
        path.touch(0o600)
    return paths


def read(address: str | None, environ: dict[str, str] | None = None, **files: Path) -> FarmConfig | None:
    wanted: dict[str, Path | None] = {"ca": None, "certificate": None, "key": None, **files}
    return farm_of(
        environ or {}, address=address, ca=wanted["ca"], certificate=wanted["certificate"], key=wanted["key"], wait_s=2
    )


def test_no_farm_is_none() -> None:
    assert read(None) is None


def test_a_farm_over_tls_is_read_from_options_or_from_variables(files: dict[str, Path]) -> None:
    environ = {
        FARM_VARIABLE: "tls://h:8786",
        CA_VARIABLE: str(files["ca"]),
        CERTIFICATE_VARIABLE: str(files["certificate"]),
        KEY_VARIABLE: str(files["key"]),
    }

    assert read("tls://h:8786", **files) == read(None, environ)
    assert read(None, environ | {FARM_VARIABLE: "tls://elsewhere:1"}) != read(None, environ)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:8786", "tcp://[::1]:8786", "tcp://localhost:8786"])
def test_plain_tcp_is_for_the_loopback_interface(address: str) -> None:
    assert read(address) == FarmConfig(address=address, wait_s=2)


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:8786", "tcp://scheduler:8786", "tcp://0.0.0.0:8786"])
def test_plain_tcp_anywhere_else_is_refused_and_says_what_to_do(address: str) -> None:
    with pytest.raises(UsageError, match=r"can run code on all of its workers.*--tls-ca-file"):
        read(address)


@pytest.mark.parametrize(
    "address", ["scheduler:8786", "http://h:1", "tls://h", "tls://h:x", "tls://:1", "tls://h:1/x", "tls://u:p@h:1"]
)
def test_what_is_no_address_of_a_farm_is_refused(address: str, files: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="is no farm: write tls://HOST:PORT"):
        read(address, **files)


@pytest.mark.parametrize("missing", ["ca", "certificate", "key"])
def test_tls_without_one_of_its_files_is_refused(missing: str, files: dict[str, Path]) -> None:
    left = {name: path for name, path in files.items() if name != missing}

    with pytest.raises(UsageError, match="needs --farm-"):
        read("tls://h:1", **left)


def test_a_key_that_others_can_read_is_refused(files: dict[str, Path]) -> None:
    files["key"].chmod(0o644)

    with pytest.raises(DirectoryError, match="chmod 600"):
        read("tls://h:1", **files)
