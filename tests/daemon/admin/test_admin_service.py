"""`service`: a user unit of systemd. systemd itself is a fake that notes what it was told."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compiler_daemon.admin.life.service import unit_text
from tests.daemon.inventory_samples import cli

ROOT = Path(__file__).parents[3]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file in which a fake systemctl notes its arguments."""
    (tmp_path / "bin").mkdir()
    fake, told = tmp_path / "bin" / "systemctl", tmp_path / "told"
    fake.write_text(f'#!/bin/sh\necho "$*" >> {told}\n[ ! -e {tmp_path}/broken ] || {{ echo "no bus" >&2; exit 1; }}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("COMPILER_DAEMON_CONFIG", raising=False)
    return told


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    return tmp_path / "config" / "systemd" / "user" / "compiler-daemon.service"


def test_install_writes_a_unit_for_this_installation_and_starts_it(told: Path, unit: Path, tmp_path: Path) -> None:
    ended = cli(tmp_path / "d", "service", "install")

    text = unit.read_text()
    assert ended.returncode == 0, ended.stderr
    assert f"ExecStart={sys.executable} -m compiler_daemon serve\n" in text
    assert f"Environment=COMPILER_DAEMON_DIR={tmp_path / 'd'}\n" in text
    assert told.read_text().splitlines() == ["--user daemon-reload", "--user enable --now compiler-daemon.service"]


def test_uninstall_stops_it_and_removes_the_unit_and_a_second_time_says_so(
    told: Path, unit: Path, tmp_path: Path
) -> None:
    cli(tmp_path, "service", "install")

    first, second = cli(tmp_path, "service", "uninstall"), cli(tmp_path, "service", "uninstall")

    assert (first.returncode, second.returncode) == (0, 0)
    assert not unit.exists()
    assert "--user disable --now compiler-daemon.service" in told.read_text()
    assert second.stdout == "there was no unit to remove\n"


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_a_unit_that_somebody_else_has_written_is_left_alone(told: Path, unit: Path, tmp_path: Path, verb: str) -> None:
    unit.parent.mkdir(parents=True)
    unit.write_text("[Unit]\n")

    ended = cli(tmp_path, "service", verb)

    assert ended.returncode == 1
    assert "move it out of the way" in ended.stderr
    assert (unit.read_text(), told.exists()) == ("[Unit]\n", False)


def test_a_systemd_that_does_not_do_it_is_said_in_its_own_words(told: Path, unit: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()

    ended = cli(tmp_path, "service", "install")

    assert ended.returncode == 1
    assert "failed: no bus" in ended.stderr
    assert str(unit) in ended.stderr


def test_words_are_quoted_as_systemd_reads_them(tmp_path: Path) -> None:
    text = unit_text({}, tmp_path / "my daemon" / "50%")

    assert f'Environment="COMPILER_DAEMON_DIR={tmp_path}/my daemon/50%%"\n' in text


def test_the_guides_unit_and_the_packages_are_the_same() -> None:
    guide = ROOT / "docs" / "systemd" / "compiler-daemon.service"

    assert guide.read_text() == (ROOT / "compiler_daemon" / "admin" / "life" / "compiler-daemon.service").read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "compiler-daemon.service"
    unit.write_text(unit_text({}, tmp_path / "d"))

    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )

    assert "compiler-daemon.service" not in done.stderr
