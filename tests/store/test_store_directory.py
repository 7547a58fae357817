from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compiler_daemon.store import Store, StoreClosedError, StoreError, StoreLockedError, StoreUnsafeError
from compiler_daemon.store import errors as store_errors
from tests.store.store_samples import config, found, put, sample

HOLDER = """
import sys
from pathlib import Path
from compiler_daemon.store import Store, StoreConfig
store = Store.open(StoreConfig(root=Path(sys.argv[1]), address="unix:/run/first.sock"))
print("open", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_daemon(root: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        try:
            yield process
        finally:
            process.kill()


def test_new_directory_is_closed_to_others_whatever_the_umask(root: Path) -> None:
    before = os.umask(0)
    try:
        Store.open(config(root)).close()
    finally:
        os.umask(before)

    assert root.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_directory_that_others_may_write_to_is_refused_naming_the_fix(root: Path, mode: int) -> None:
    root.mkdir()
    root.chmod(mode)

    with pytest.raises(StoreUnsafeError, match=f"chmod 700 {root}"):
        Store.open(config(root))

    assert list(root.iterdir()) == []


def test_directory_of_another_user_is_refused(root: Path) -> None:
    # For the child process, the directory belongs to somebody else, whoever runs the test.
    if os.geteuid() == 0:
        root.mkdir(mode=0o700)
        os.chown(root, 65534, 65534)
        theirs = root
    else:
        theirs = Path("/usr")

    with pytest.raises(StoreUnsafeError, match="belongs to uid"):
        Store.open(config(theirs))


def test_readable_directory_of_our_own_is_closed(root: Path) -> None:
    root.mkdir()
    root.chmod(0o755)

    Store.open(config(root)).close()

    assert root.stat().st_mode & 0o777 == 0o700


def test_file_in_place_of_the_directory_is_refused(root: Path) -> None:
    root.write_text("mine")

    with pytest.raises(StoreError, match="not a directory"):
        Store.open(config(root))

    assert root.read_text() == "mine"


def test_second_daemon_is_refused_naming_the_first(root: Path) -> None:
    with another_daemon(root) as first:
        with pytest.raises(StoreLockedError) as caught:
            Store.open(config(root))

        assert f"pid {first.pid} unix:/run/first.sock" in str(caught.value)


def test_second_store_of_one_process_is_refused_too(root: Path, store: Store) -> None:
    with pytest.raises(StoreLockedError, match=f"pid {os.getpid()}"):
        Store.open(config(root))

    assert put(store, sample(1))


def test_lock_of_a_killed_daemon_does_not_stay(root: Path) -> None:
    with another_daemon(root) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()

        with Store.open(config(root)) as store:
            assert put(store, sample(1))


def test_closed_store_can_be_opened_again_and_says_that_it_is_closed(root: Path) -> None:
    store = Store.open(config(root))
    put(store, sample(1))
    store.close()
    store.close()

    with pytest.raises(StoreClosedError):
        found(store)
    with pytest.raises(StoreClosedError):
        put(store, sample(2))
    with Store.open(config(root)) as again:
        assert found(again) == [sample(1).digest]


def test_every_error_names_a_status_of_grpc() -> None:
    names = {
        "UNAVAILABLE",
        "NOT_FOUND",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "DATA_LOSS",
    }
    classes = [
        value for value in vars(store_errors).values() if isinstance(value, type) and issubclass(value, StoreError)
    ]

    assert len(classes) == 11
    assert {error.code for error in classes} == names
    assert all(f"{error.__name__} " in (store_errors.__doc__ or "") for error in classes)
