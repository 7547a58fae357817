"""`doctor` on tiers: real directories, a real Redis, and everything that could be wrong with a bucket."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benches.harness.redis_server import RedisServer
from compiler_daemon.admin.keys import signers
from tests.daemon.tier.sharing import Said, StartDaemon, signing, start_sharing
from tests.daemon.tier.tier_samples import CI


class Findings:
    """The findings of one run of `doctor`, by check."""

    def __init__(self, directory: Path, *arguments: str, **environ: str) -> None:
        self.said = Said("doctor", "--no-trainer", "--json", "--dir", str(directory), *arguments, **environ)
        self.all = self.said.json["findings"]

    def text(self, check: str, level: str) -> str:
        return " ".join(one["text"] for one in self.all if (one["check"], one["level"]) == (check, level))

    @property
    def of_tiers(self) -> set[tuple[str, str]]:
        return {(one["check"], one["level"]) for one in self.all if one["check"].startswith("tier")}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tier").mkdir()
    return tmp_path / "tier"


def test_a_tier_that_can_be_used_is_said_to_be_with_a_raced_name_that_is_gone_afterwards(
    root: Path, tmp_path: Path
) -> None:
    signing(tmp_path / "d")
    signers.trust(tmp_path / "d", CI.signer.line)

    found = Findings(tmp_path / "d", "--tier", f"file://{root}")

    assert {level for _, level in found.of_tiers} == {"ok"}
    assert found.text("tier creates", "ok").startswith("exclusive")
    assert (found.text("tier signer", "ok"), found.text("tier signers", "ok")) == ("signs as lab-1", "believes ci-1")
    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_the_tier_of_the_environment_is_looked_at_as_serve_would(root: Path, tmp_path: Path) -> None:
    found = Findings(tmp_path / "d", COMPILER_DAEMON_TIER=f"file://{root} file://{root}-2")

    assert f"there is no directory {root}-2" in found.text("tier", "problem")
    assert f"file://{root}: allowed" in found.text("tier writes", "ok")


def test_without_a_key_and_without_trust_it_is_said_what_the_tier_is_worth(root: Path, tmp_path: Path) -> None:
    found = Findings(tmp_path / "d", "--tier", f"file://{root}")

    assert "this daemon reads, and shares nothing" in found.text("tier signer", "note")
    assert "all that is in the tier is a miss" in found.text("tier signers", "problem")


def test_without_a_tier_nothing_is_said_of_one(tmp_path: Path) -> None:
    assert Findings(tmp_path / "d").of_tiers == set()


def test_what_is_no_address_of_a_tier_is_a_problem_among_others(tmp_path: Path) -> None:
    found = Findings(tmp_path / "d", COMPILER_DAEMON_TIER="ftp://host")

    assert "is no tier: write file:///DIR" in found.text("tier", "problem")
    assert found.said.code == 1


@pytest.mark.parametrize(("library", "place"), [("redis", "redis://127.0.0.1:1"), ("obstore", "s3://bucket")])
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: str, place: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    for engine in ("redis", "objects"):
        monkeypatch.delitem(sys.modules, f"compiler_daemon.tier.engines.{engine}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)

    found = Findings(tmp_path / "d", "--tier", place)

    assert f"needs {library}: `pip install" in found.text("tier", "problem")


def test_a_redis_without_a_limit_is_noted(redis_server: RedisServer, tmp_path: Path) -> None:
    found = Findings(tmp_path / "d", "--tier", f"unix://{redis_server.path}")

    assert "no `maxmemory`" in found.text("tier room", "note")


def test_what_a_running_daemon_says_of_its_tiers_is_said_too(
    start_daemon: StartDaemon, root: Path, tmp_path: Path
) -> None:
    daemon = start_sharing(start_daemon, f"file://{tmp_path / 'gone'}")
    daemon.lookup("key-1")

    found = Findings(daemon.directory, "--tier", f"file://{root}")

    assert "are paused, tried again in" in found.text("tier reads", "note")
    assert "is not used by the daemon that runs" in found.text("tier", "note")
