"""The file of settings, and `config`, which says where each value comes from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.inventory_samples import cli, cli_process, done


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in [name for name in os.environ if name.startswith("COMPILER_DAEMON_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "config" / "compiler-daemon" / "config.toml"
    path.parent.mkdir(parents=True)
    return path


def settings(directory: Path) -> dict[str, tuple[str, str]]:
    told: dict[str, Any] = json.loads(done(directory, "config", "--json"))
    return {one["name"]: (one["value"], one["from"]) for one in told["settings"]}


def test_without_a_file_everything_is_the_default_or_a_variables(file: Path, tmp_path: Path) -> None:
    found = settings(tmp_path / "d")

    assert found["dir"] == (str(tmp_path / "d"), "COMPILER_DAEMON_DIR")
    assert found["store-size"] == ("20GiB", "default")
    assert found["workers"] == ("half of the cores", "default")


def test_what_the_file_says_counts_and_a_variable_counts_more(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('[serve]\nstore-size = "5GB"\nworkers = 3\nprewarm = false\ntier = ["file:///srv/one"]\n')
    before = settings(tmp_path)
    monkeypatch.setenv("COMPILER_DAEMON_TIER", "redis://:secret@host/0")
    after = settings(tmp_path)

    assert before["store-size"] == ("5GB", str(file))
    assert before["prewarm"] == ("false", str(file))
    assert before["tier"] == ("file:///srv/one", str(file))
    assert after["tier"] == ("redis://***@host/0", "COMPILER_DAEMON_TIER")


def test_a_daemon_serves_as_the_file_says_and_an_option_counts_more(file: Path, tmp_path: Path) -> None:
    file.write_text('[serve]\nstore-size = "5GB"\nprewarm = false\nidle = "1h"\n')
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    sizes = []
    for options in ((), ("--store-size", "7GB")):
        assert cli_process(tmp_path / "d", "serve", "--detach", *options, **environ).returncode == 0
        sizes.append(json.loads(done(tmp_path / "d", "status", "--json"))["store_max_bytes"])
        assert cli_process(tmp_path / "d", "stop").returncode == 0

    assert sizes == [5 * 10**9, 7 * 10**9]
    assert (tmp_path / "d" / "users.lock").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[serve\n", "is not TOML"),
        ("[server]\nworkers = 1\n", "'server' is no verb with options: is serve meant?"),
        ("serve = 1\n", "serve is a table: write [serve]"),
        ("[serve]\nworker = 1\n", "serve has no option 'worker': is workers meant?"),
        ("[serve]\ndetach = true\n", "serve has no option 'detach'"),
        ('[serve]\ndir = "/srv"\n', "set COMPILER_DAEMON_DIR for both"),
        ("[serve]\nworkers = [1]\n", "is a text, a number"),
        ("[keys]\nx = 1\n", "is no verb with options"),
    ],
)
def test_a_slip_in_the_file_is_one_sentence_for_every_verb(file: Path, tmp_path: Path, text: str, words: str) -> None:
    file.write_text(text)

    for verb in ("config", "dir"):
        ended = cli(tmp_path, verb)

        assert ended.returncode == 2
        assert words in ended.stderr
        assert str(file) in ended.stderr
    assert cli(tmp_path, "serve", "--help").returncode == 0


def test_a_value_that_is_none_is_refused_as_on_the_command_line(file: Path, tmp_path: Path) -> None:
    file.write_text('[serve]\nstore-size = "20G"\n')

    ended = cli(tmp_path / "d", "serve")

    assert ended.returncode == 2
    assert "20GB or 20GiB" in ended.stderr


def test_a_file_that_is_named_and_not_there_is_wrong_use(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPILER_DAEMON_CONFIG", str(tmp_path / "nothing.toml"))

    assert "there is no such file" in cli(tmp_path, "dir").stderr


def test_a_persons_config_fits_into_eighty_columns(file: Path, tmp_path: Path) -> None:
    lines = cli(tmp_path, "config", columns=80).stdout.splitlines()

    assert lines[0].split() == ["setting", "value", "from"]
    assert max(map(len, lines[:-1])) <= 80
    assert lines[-1] == f"file: {file} (there is none)"
