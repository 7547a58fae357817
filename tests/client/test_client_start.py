"""A trainer that starts a daemon for itself, with `TORCH_COMPILE_CLIENT=auto`."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from compile_client.config import ClientConfig
from compile_client.errors import AbsentError
from compile_client.session.client import DaemonClient
from compile_client.transport.start_daemon import DaemonStarter
from compile_wire.endpoint.address import USERS_NAME
from compile_wire.endpoint.presence import be_present
from compiler_daemon.access.users import Users

MakeClient = Callable[..., DaemonClient]


def config_of(directory: Path) -> ClientConfig:
    return ClientConfig(directory=directory, starts_daemon=True)


def starter_of(program: str) -> DaemonStarter:
    return DaemonStarter(lambda config: [sys.executable, "-c", program])


@pytest.fixture
def stopped(directory: Path) -> Iterator[None]:
    yield
    command = [sys.executable, "-m", "compiler_daemon", "stop", "--now", "--dir", str(directory)]
    subprocess.run(command, check=True, timeout=60)


@pytest.mark.usefixtures("stopped")
def test_a_client_that_finds_no_daemon_has_one_started_and_keeps_it(make_client: MakeClient, directory: Path) -> None:
    client = make_client(starts_daemon=True)

    assert client.available()

    assert client.counters.as_dict()["fallbacks"] == {}
    with Users(directory) as users:
        assert users.are_there()


def test_a_client_that_is_not_told_to_starts_none(make_client: MakeClient, directory: Path) -> None:
    assert not make_client().available()
    assert list(directory.iterdir()) == []


def test_why_a_daemon_did_not_start_is_said_and_not_tried_again_at_once(directory: Path) -> None:
    tries = directory / "tries"
    starter = starter_of(
        f"import sys; open({str(tries)!r}, 'a').write('x'); sys.exit('compiler-daemon: the disk is full')"
    )

    for _ in range(2):
        with pytest.raises(AbsentError, match=r"no daemon could be started: the disk is full$"):
            starter.wait(config_of(directory), 20.0)

    assert tries.read_text() == "x"


def test_a_start_that_takes_long_is_waited_for_no_longer_than_the_graph_may_wait(directory: Path) -> None:
    starter = starter_of("import sys; sys.stdin.close(); import time; time.sleep(0.7)")

    with pytest.raises(AbsentError, match="not ready after 0 s"):
        starter.wait(config_of(directory), 0.1)
    starter.wait(config_of(directory), 20.0)


def test_all_graphs_together_wait_for_one_start_no_longer_than_it_is_given(directory: Path) -> None:
    starter = starter_of("import sys; sys.stdin.close(); import time; time.sleep(30)")
    config = replace(config_of(directory), start_s=0.5)

    def wait_s(_: int) -> float:
        begun = time.monotonic()
        with pytest.raises(AbsentError, match="not ready after"):
            starter.wait(config, 20.0)
        return time.monotonic() - begun

    first = wait_s(0)
    later = [wait_s(number) for number in range(3)]
    assert starter._process is not None
    starter._process.kill()

    assert 0.4 < first < 5.0
    assert max(later) < 0.2


def test_a_thread_waits_for_a_start_as_long_as_its_own_graph_may_whoever_else_waits(directory: Path) -> None:
    starter = starter_of("import sys; sys.stdin.close(); import time; time.sleep(30)")
    config = config_of(directory)
    starter.begin(config)
    with ThreadPoolExecutor(1) as pool:
        patient = pool.submit(starter.wait, config, 3.0)
        time.sleep(0.2)
        begun = time.monotonic()
        with pytest.raises(AbsentError):
            starter.wait(config, 0.1)
        took_s = time.monotonic() - begun
        assert not patient.done()
        with pytest.raises(AbsentError):
            patient.result()
    assert starter._process is not None
    starter._process.kill()

    assert took_s < 1.0


def test_a_command_that_is_not_there_is_an_absent_daemon(directory: Path) -> None:
    starter = DaemonStarter(lambda config: [str(directory / "nothing")])

    with pytest.raises(AbsentError, match="No such file"):
        starter.wait(config_of(directory), 1.0)


def test_a_forked_child_begins_anew(directory: Path) -> None:
    starter = starter_of("import time; time.sleep(0.5)")
    starter.begin(config_of(directory))
    with starter._lock:
        child = os.fork()
        if not child:
            starter.wait(config_of(directory), 10.0)
            os._exit(3)
        _, status = os.waitpid(child, 0)
    starter.wait(config_of(directory), 20.0)

    assert os.waitstatus_to_exitcode(status) == 3


def test_a_daemon_without_an_end_of_its_own_is_not_marked_as_used(directory: Path) -> None:
    assert not be_present(directory)
    assert not (directory / USERS_NAME).exists()


def test_a_lock_that_is_never_given_back_does_not_stop_a_trainer(directory: Path) -> None:
    with open(directory / USERS_NAME, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        assert not be_present(directory)
