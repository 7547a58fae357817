"""What the store does when the disk fails, shown in child processes, because a process cannot undo its limits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from compile_wire.digest import digest_of
from compiler_daemon.store import Store, StoreError, StoreVanishedError
from tests.store.store_samples import assert_whole, config, found, put, sample

FULL = """
import os, resource, sys
from pathlib import Path
from tests.store.store_samples import *
from compiler_daemon.store import DiskFullError, Store, StoreError

root = Path(sys.argv[1])
store = Store.open(config(root))
put(store, sample(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
big = noise(5, 2_000_000)
for attempt in range(3):
    try:
        store.put_blob(digest_of(big), big)
    except DiskFullError as error:
        assert error.code == "RESOURCE_EXHAUSTED"
        assert "free some room" in str(error), error
    else:
        raise AssertionError("the put went through")
    assert os.listdir(root / "incoming") == []
    assert not store.has_blob(digest_of(big))
assert_whole(store, sample(1))

# Nothing can be written at all: not a record, not the index.
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
before = store.usage()
for attempt in (
    lambda: put(store, sample(2)),
    lambda: store.add_counts({"puts": 1}),
    lambda: store.put_graph(ENVIRONMENT, "key", b"graph", program=""),
    lambda: store.put_environment({"torch": "2.13"}),
    lambda: store.set_pinned(sample(1).digest, True),
):
    try:
        attempt()
    except StoreError as error:
        assert str(root) in str(error), error
    else:
        raise AssertionError("it went through")
for _ in range(3):
    assert_whole(store, sample(1))
    assert len(store.artifacts()) == 1  # this would write the use stamps
assert store.usage() == before

# And with room again, everything goes on.
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert put(store, sample(2))
store.add_counts({"puts": 1})
assert store.counts() == {"puts": 1}
assert store.put_blob(digest_of(big), big)
store.close()
with Store.open(config(root)) as store:
    assert_whole(store, sample(1))
    assert_whole(store, sample(2))
print("went on")
"""

READ_ONLY = """
import os, sys
from pathlib import Path
from tests.store.store_samples import *
from compiler_daemon.store import BlobDamagedError, Store, StoreReadOnlyError

# Root may write anywhere, so the test is run as somebody who may not.
if os.geteuid() == 0:
    os.chown(sys.argv[1], 65534, 65534)
    os.setgid(65534)
    os.setuid(65534)
root = Path(sys.argv[1]) / "store"
store = Store.open(config(root))
put(store, sample(1))
folders = [root, *(path for path in root.rglob("*") if path.is_dir())]

for folder in folders:
    folder.chmod(0o500)
for attempt in (
    lambda: put(store, sample(2)),
    lambda: store.put_graph(ENVIRONMENT, "key", b"graph", program=""),
    lambda: store.put_environment({"torch": "2.13"}),
    lambda: store.remove(sample(1).digest),
):
    try:
        attempt()
    except StoreReadOnlyError as error:
        assert error.code == "FAILED_PRECONDITION"
        assert "make the directory writable" in str(error), error
    else:
        raise AssertionError("it went through")
assert_whole(store, sample(1))

# A damaged blob cannot be moved away, and is a miss all the same.
path = blob_path(root, sample(1).blob_digests[1])
os.chmod(path, 0o600)
change_one_byte(path)
try:
    store.read_blob(sample(1).blob_digests[1])
except BlobDamagedError:
    pass
else:
    raise AssertionError("damaged bytes were handed out")
assert found(store) == []

for folder in folders:
    folder.chmod(0o700)
assert not store.has_blob(sample(1).blob_digests[1])
put(store, sample(1))
assert_whole(store, sample(1))
store.close()

for path in [*(path for path in root.rglob("*") if path.is_file())]:
    path.chmod(0o400)
for folder in folders:
    folder.chmod(0o500)
try:
    Store.open(config(root))
except StoreReadOnlyError as error:
    assert "make the directory writable" in str(error), error
else:
    raise AssertionError("it was opened")
for folder in folders:
    folder.chmod(0o700)
print("went on")
"""


def run(program: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "went on\n"), done.stderr


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user can reach, because pytest's own folders are closed to others."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    shutil.rmtree(folder)


def test_full_disk_is_said_in_words_and_survived(root: Path) -> None:
    run(FULL, root)


def test_read_only_disk_is_said_in_words_and_survived(open_folder: Path) -> None:
    run(READ_ONLY, open_folder)


@pytest.mark.parametrize("how", ["removed", "moved away", "replaced by an empty one", "replaced by another store"])
def test_vanished_directory_is_said_in_words_by_every_call(root: Path, how: str) -> None:
    store = Store.open(config(root))
    put(store, sample(1))
    if how == "removed":
        shutil.rmtree(root)
    else:
        root.rename(root.with_name("elsewhere"))
    if how == "replaced by an empty one":
        root.mkdir()
    if how == "replaced by another store":
        Store.open(config(root)).close()

    for attempt in (
        lambda: found(store),
        lambda: store.has_blob(sample(1).blob_digests[0]),
        lambda: store.read_blob(sample(1).blob_digests[0]),
        lambda: list(store.iter_blob(sample(1).blob_digests[0], 10)),
        lambda: put(store, sample(2)),
        lambda: store.put_environment({"torch": "2.13"}),
        lambda: store.get_graph(digest_of(b"graph")),
        lambda: store.put_graph(digest_of(b"environment"), "key", b"graph", program=""),
    ):
        with pytest.raises(StoreVanishedError, match="mount it again"):
            attempt()
    store.close()


def test_store_that_comes_back_is_used_again(root: Path) -> None:
    with Store.open(config(root)) as store:
        put(store, sample(1))
        root.rename(root.with_name("elsewhere"))
        with pytest.raises(StoreVanishedError):
            found(store)

        root.with_name("elsewhere").rename(root)

        assert_whole(store, sample(1))


def test_folder_lost_from_inside_is_said_in_words(root: Path) -> None:
    with Store.open(config(root)) as store:
        os.rmdir(root / "incoming")

        with pytest.raises(StoreError, match="restart the daemon"):
            put(store, sample(1))

    with Store.open(config(root)) as store:
        assert put(store, sample(1))
