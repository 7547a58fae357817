"""What `status` and the log report about a tier: real daemons, real directories, a real Redis."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benches.harness.redis_server import redis_running
from compiler_daemon import metrics
from compiler_daemon.compiles.single_flight import _Compile
from compiler_daemon.compiles.turns import Turn, Turns
from compiler_daemon.errors import JobRefusedError, UsageError
from compiler_daemon.jobs import Job, RunningEvent
from compiler_daemon.tier.address import masked, tier_places
from compiler_daemon.tier.leases import Refused, Waiting
from tests.daemon.daemon_process import ENVIRONMENT, DaemonProcess, wait_until
from tests.daemon.page_samples import PageVisitor
from tests.daemon.tier.sharing import Said, StartDaemon, signing, start_sharing, waiting_for

SECRET = "hunter2-swordfish"


@pytest.fixture
def tier(tmp_path: Path) -> str:
    (tmp_path / "tier").mkdir()
    return f"file://{tmp_path / 'tier'}"


def status_of(daemon: DaemonProcess) -> dict[str, Any]:
    told = Said("status", "--json", "--dir", str(daemon.directory)).json
    assert len(told["tiers"]) == 1
    return dict(told["tiers"][0])


def words_of(daemon: DaemonProcess) -> str:
    return Said("status", "--dir", str(daemon.directory)).words


def written(daemon: DaemonProcess, count: int = 1) -> None:
    wait_until(lambda: daemon.status().counters.get("tier_written", 0) >= count, what="it is in the tier")


# What it has done


def test_status_says_what_was_written_here_and_found_there(
    start_daemon: StartDaemon, tier: str, tmp_path: Path
) -> None:
    line = signing(tmp_path / "a")
    a = start_sharing(start_daemon, tier, "a")
    a.compiled("key-1", b"ok")
    written(a)
    b = start_sharing(start_daemon, tier, "b", trusts=(line,))

    assert len(b.lookup("key-1")) == 1

    assert (status_of(a)["address"], status_of(a)["counts"]["written"]) == (tier, 1)
    found = status_of(b)
    assert (found["counts"]["hits"], found["counts"]["misses"], found["waiting_bytes"]) == (1, 0, 0)
    assert found["counts"]["bytes_read"] >= status_of(a)["counts"]["bytes_written"]
    assert (found["reads"]["state"], found["rejected"]) == ("closed", {})
    assert "1 hits, 0 misses" in words_of(b)


def test_status_says_who_signed_what_is_not_used_and_the_command_to_trust_him(
    start_daemon: StartDaemon, tier: str, tmp_path: Path
) -> None:
    line = signing(tmp_path / "a")
    a = start_sharing(start_daemon, tier, "a")
    a.compiled("key-1", b"ok")
    written(a)
    b = start_sharing(start_daemon, tier, "b")

    assert b.lookup("key-1") == []

    assert status_of(b)["rejected"]["unknown_signer"] >= 1
    assert f"compiler-daemon keys trust {line}" in status_of(b)["rejections"][-1]
    assert "unknown signer" in words_of(b)
    # A long line is folded at the terminal's edge, within words.
    assert line in "".join(Said("status", "--dir", str(b.directory)).out.split())


def test_no_line_of_status_about_tiers_is_longer_than_a_terminal(
    start_daemon: StartDaemon, tier: str, tmp_path: Path
) -> None:
    signing(tmp_path / "a")
    a = start_sharing(start_daemon, tier, "a")
    a.compiled("key-1", b"ok")
    written(a)
    b = start_sharing(start_daemon, tier, "b")
    b.lookup("key-1")

    shown = Said("status", "--dir", str(b.directory)).out

    assert max(len(text) for text in shown.splitlines()) <= 80


def test_a_daemon_without_a_tier_says_nothing_of_one(daemon: DaemonProcess) -> None:
    assert Said("status", "--json", "--dir", str(daemon.directory)).json["tiers"] == []
    assert "tier" not in Said("status", "--dir", str(daemon.directory)).out.split()


def test_statistics_say_what_came_from_tiers_and_how_many_compiles_other_nodes_spared_this_one(
    start_daemon: StartDaemon, tier: str, tmp_path: Path
) -> None:
    lines = signing(tmp_path / "a"), signing(tmp_path / "b", "lab-2")
    a = start_sharing(start_daemon, tier, "a", trusts=lines[1:])
    b = start_sharing(start_daemon, tier, "b", trusts=lines[:1])
    slow = a.compile("key-1", b"ok 1.5")
    assert next(slow)
    wait_until(lambda: any("lease" in str(path) for path in tmp_path.glob("tier/lease/*/*")), what="a has the lease")

    phases = [answer.running.phase for answer in b.compile("key-1", b"ok 1.5") if answer.HasField("running")]
    assert [answer for answer in slow if answer.HasField("artifact")]

    assert any(phase.startswith("compiled on ") for phase in phases)
    told = Said("stats", "--json", "--dir", str(b.directory)).json["tiers"]
    assert (told["hits"], told["merged"], told["duplicates"], told["written"]) == (1, 1, 0, 0)
    assert told["bytes_read"] > 0
    words = Said("stats", "--dir", str(b.directory)).words
    assert "from tiers 1 artifact" in words
    assert "duplicates avoided 1 compiles that other nodes did meanwhile" in words
    assert b.jobs("key-1") == []


def test_statistics_of_a_daemon_without_a_tier_say_nothing_of_one(daemon: DaemonProcess) -> None:
    assert "tiers" not in Said("stats", "--json", "--dir", str(daemon.directory)).json
    assert "tier" not in Said("stats", "--dir", str(daemon.directory)).out


def test_the_page_and_the_metrics_have_a_tier_without_its_password(start_daemon: StartDaemon, tmp_path: Path) -> None:
    with redis_running(tmp_path, "--requirepass", SECRET) as server:
        places = [f"unix://:{SECRET}@{server.path}", f"file://{tmp_path / '<gone>'}"]
        daemon = start_daemon("d", tier={"places": places}, daemon={"page_port": 0})
        daemon.handshake()
        daemon.lookup("key-1")
        page = PageVisitor(daemon)
        shown, figures, told = (page.ask(path).text for path in ("/", "/metrics", "/status.json"))

    assert f"unix://:***@{server.path}" in shown
    assert "there is no directory" in shown
    assert "&lt;gone&gt;" in shown
    assert "<gone>" not in shown
    assert 'compile_daemon_tier_lookups_total{result="miss",tier="unix://:***@' in figures
    assert json.loads(told)["status"]["tiers"][0]["counts"]["tier_misses"] == 1
    assert SECRET not in shown + figures + told


def test_the_page_of_a_daemon_without_a_tier_has_no_table_of_tiers(page: PageVisitor) -> None:
    assert "h-tiers" not in page.ask("/").text


# What is wrong with it


def test_a_tier_that_is_not_there_is_said_in_the_log_at_once_and_in_status_with_when_it_is_tried_again(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    missing = tmp_path / "nowhere"

    daemon = start_sharing(start_daemon, f"file://{missing}")
    wait_until(waiting_for(f"there is no directory {missing}", daemon.log), what="the log says it")
    daemon.lookup("key-1")

    told = status_of(daemon)["reads"]
    assert (told["state"], told["kind"]) == ("open", "missing")
    assert 0 < told["retry_in_s"] <= 80
    assert "reads paused, tried again in" in words_of(daemon)


def test_a_daemon_without_a_key_of_its_own_says_at_the_start_that_it_shares_nothing(
    start_daemon: StartDaemon, tier: str
) -> None:
    daemon = start_sharing(start_daemon, tier)

    assert wait_until(waiting_for("this daemon reads, and shares nothing", daemon.log), what="the log says it")
    assert "exclusive" not in daemon.log.read_text(), "what is right is not worth a line"


# Passwords


def test_a_password_is_in_neither_status_nor_log_nor_doctor(start_daemon: StartDaemon, tmp_path: Path) -> None:
    with redis_running(tmp_path, "--requirepass", SECRET) as server:
        right = f"unix://{'lab'}:{SECRET}@{server.path}"
        daemon = start_daemon("d", tier={"places": [right, f"unix://:{SECRET}-wrong@{server.path}"]})
        daemon.handshake()
        daemon.lookup("key-1")
        wait_until(waiting_for("does not allow", daemon.log), what="the log says that a password is wrong")
        shown = [
            Said("status", "--dir", str(daemon.directory)),
            Said("status", "--json", "--dir", str(daemon.directory)),
            Said("doctor", "--no-trainer", "--dir", str(daemon.directory), COMPILER_DAEMON_TIER=right),
            Said("doctor", "--no-trainer", "--json", "--dir", str(daemon.directory), COMPILER_DAEMON_TIER=right),
        ]

    assert ":***@" in shown[1].out
    assert ":***@" in shown[2].out
    for said in (*(said.out + said.err for said in shown), daemon.log.read_text()):
        assert SECRET not in said


@pytest.mark.parametrize(
    "slip",
    [
        f"redis://lab:{SECRET}@host:port",
        f"redis:/lab:{SECRET}@host",
        f"lab:{SECRET}@host",
        f"redis://:{SECRET}/@host/x/y",
        f"redis://host?password={SECRET}&db=1",
        f"http://lab:{SECRET}@host",
    ],
)
def test_a_slip_in_an_address_does_not_show_the_password_in_it(slip: str) -> None:
    with pytest.raises(UsageError) as raised:
        tier_places((), {"COMPILER_DAEMON_TIER": slip})

    assert SECRET not in str(raised.value)


def test_an_address_without_a_password_is_shown_as_it_is() -> None:
    for address in ("redis://host:6379/0", "file:///srv/tier", "s3://bucket/prefix"):
        assert masked(address) == address


# Waiting for another node


class WaitingTiers:
    """Tiers on which another node holds every lease."""

    def __init__(self, host: str, since: float, expected_s: float = 30.0) -> None:
        self._waiting = Waiting(host=host, since=since, expected_s=expected_s, look_again_s=0.2)

    async def take(self, environment: str, key: str, expected_s: float) -> Waiting:
        return self._waiting


class AsyncAnswer:
    """Answers every question in the same way."""

    def __init__(self, answer: object) -> None:
        self._answer = answer

    async def __call__(self, *arguments: object) -> object:
        return self._answer


def waited_for(tiers: Any) -> tuple[Turn, str]:
    """Return what the daemon knows of another node's turn, and what it tells the trainers that wait."""
    job = Job(kind="graphs", environment=ENVIRONMENT, key="k", graph=b"", program="p", interpreter="")
    turns = Turns(tiers, cache=SimpleNamespace(), counters=metrics.Counters())  # type: ignore[arg-type]

    async def ask() -> tuple[Turn, str]:
        async with turns.turn(job, (), 1.0) as turn:
            compile_ = _Compile(job, position=0, tried=frozenset())
            compile_.wait_for(turn)
            event = compile_.event()
            assert isinstance(event, RunningEvent)
            return turn, event.phase

    return asyncio.run(ask())


def test_who_waits_for_another_node_is_told_which_and_how_far_it_is() -> None:
    _, phase = waited_for(WaitingTiers("node-07", time.time() - 12.2))

    assert phase == "compiled on node-07, 12 s of about 30 s"


def test_where_the_clocks_of_two_nodes_disagree_nothing_is_said_of_how_far_it_is() -> None:
    for since in (time.time() + 3600, 0.0):
        assert waited_for(WaitingTiers("node-07", since))[1] == "compiled on node-07"


def test_what_somebody_has_written_into_a_lease_as_a_host_cannot_end_the_stream() -> None:
    turn, phase = waited_for(WaitingTiers("node\ud800\x1b[2J\n", time.time() - 1))

    assert turn.host.isascii()
    assert turn.host.isprintable()
    phase.encode()


@pytest.mark.parametrize("reason", ["COMPILE_ERROR: no \ud800\x1b[2J", "deadly \ud800\x1b[2J"])
def test_what_somebody_has_written_as_a_reason_to_refuse_a_graph_is_plain_text(reason: str) -> None:
    tiers = SimpleNamespace(take=AsyncAnswer(Refused(reason=reason, deaths=0)))

    with pytest.raises(JobRefusedError) as raised:
        waited_for(tiers)

    assert str(raised.value).isprintable()
    assert "\ud800" not in str(raised.value)


def test_where_it_cannot_be_read_who_compiles_it_is_another_node() -> None:
    assert waited_for(WaitingTiers("", 0.0))[1] == "compiled on another node"
