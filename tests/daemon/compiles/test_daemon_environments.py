"""Environments that callers make up have a price, and the caller pays it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from compile_wire.environment import environment_bytes, environment_id
from compile_wire.limits import MAX_ENVIRONMENT_BYTES
from compiler_daemon.compiles.environments import Environments
from compiler_daemon.errors import EnvironmentUnknownError
from compiler_daemon.store import Store, StoreConfig
from tests.daemon.daemon_process import ENVIRONMENT, FIELDS, DaemonProcess, manifest_of, wait_until


def made_up(number: int) -> dict[str, str]:
    """Return one of the largest environments that the daemon accepts."""
    fields = {"torch": f"{number:06}", "gpu": "x" * 8190}
    return {**fields, "libc": "y" * (MAX_ENVIRONMENT_BYTES - environment_bytes(fields) - 4)}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(StoreConfig(root=tmp_path / "store")) as opened:
        yield opened


def knows(environments: Environments, fields: dict[str, str]) -> bool:
    try:
        environments.fields(environment_id(fields))
    except EnvironmentUnknownError:
        return False
    return True


def test_one_caller_has_a_few_names_and_drops_its_own_oldest_and_nobody_elses(store: Store) -> None:
    environments = Environments(store, secret=b"s" * 32)
    environments.register(FIELDS, caller="trainer")
    for number in range(1000):
        environments.register(made_up(number), caller="reader")

    assert knows(environments, FIELDS)
    assert [knows(environments, made_up(number)) for number in (0, 990, 992, 999)] == [False, False, True, True]
    assert store.environments() == {}


def test_a_name_that_two_callers_use_stays_when_one_of_them_drops_it(store: Store) -> None:
    environments = Environments(store, secret=b"s" * 32)
    for caller in ("trainer", "reader"):
        environments.register(FIELDS, caller=caller)
    for number in range(100):
        environments.register(made_up(number), caller="reader")

    assert knows(environments, FIELDS)


def test_environments_and_facts_have_their_place_in_the_stores_room(store: Store) -> None:
    before = store.usage().bytes
    store.put_environment(made_up(1))
    store.put_facts(environment_id(made_up(1)), b"f" * 100)

    assert store.usage().bytes - before == MAX_ENVIRONMENT_BYTES + 100


def test_an_environment_is_kept_once_something_is_stored_for_it(
    start_daemon: Callable[..., DaemonProcess], key: str
) -> None:
    daemon = start_daemon(pool={"prewarm": False})
    for fields in (FIELDS, {"torch": "never needed"}):
        daemon.handshake(fields)
    kept = daemon.directory / "store" / "environments"

    assert [path for path in kept.rglob("*") if path.is_file()] == []
    daemon.publish(key, manifest_of(key, b"entry"), b"entry")
    assert [path.name for path in kept.rglob("*") if path.is_file()] == [ENVIRONMENT]

    daemon.kill()
    daemon.start()
    assert len(daemon.lookup(key)) == 1
    with pytest.raises(grpc.RpcError) as raised:
        daemon.lookup(key, environment=environment_id({"torch": "never needed"}))
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"colour": "red"}, id="unknown name"),
        pytest.param({**made_up(1), "compiler": "z"}, id="too long"),
    ],
)
def test_an_environment_that_is_none_is_refused_with_the_reason(daemon: DaemonProcess, fields: dict[str, str]) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        daemon.handshake(fields)

    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "environment" in raised.value.details()


def has_worker(daemon: DaemonProcess) -> bool:
    return any(worker.state == "idle" for worker in daemon.status().workers)


def test_what_trainers_remember_of_sources_is_forgotten_when_a_worker_has_found_others(
    start_daemon: Callable[..., DaemonProcess],
) -> None:
    daemon = start_daemon()
    remembered = daemon.directory / "digests.json"
    remembered.write_text("{}")

    daemon.handshake({**FIELDS, "torch_key": "of files as they were"})

    wait_until(lambda: not remembered.exists(), what="the digests are forgotten")


def test_what_trainers_remember_of_sources_stays_while_workers_find_the_same(
    start_daemon: Callable[..., DaemonProcess],
) -> None:
    daemon = start_daemon()
    remembered = daemon.directory / "digests.json"
    remembered.write_text("{}")

    daemon.handshake()
    wait_until(lambda: has_worker(daemon), what="a worker is up")
    daemon.handshake()
    assert remembered.exists()

    daemon.handshake({**FIELDS, "torch_key": "of files as they were"})
    wait_until(lambda: not remembered.exists(), what="the digests are forgotten")
