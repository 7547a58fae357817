from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from compile_wire.digest import digest_of
from compile_wire.environment import environment_id
from compile_wire.errors import MalformedError
from compile_wire.limits import MAX_GRAPH_BYTES
from compiler_daemon.store import BlobDamagedError, BlobMissingError, Store, StoreFullError
from tests.store.store_samples import ENVIRONMENT, PROGRAM, change_one_byte, config, put, sample, sample_of

OTHER = digest_of(b"another environment")


def test_graph_is_read_back_and_listed_with_its_request(store: Store) -> None:
    digest = store.put_graph(ENVIRONMENT, "key", b"a graph", program=PROGRAM)

    (row,) = store.graphs()
    assert store.get_graph(digest) == b"a graph"
    assert (row.environment, row.key, row.graph, row.program, row.bytes) == (ENVIRONMENT, "key", digest, PROGRAM, 7)


def test_keys_may_share_a_graph(store: Store) -> None:
    digests = {store.put_graph(ENVIRONMENT, key, b"a graph", program=PROGRAM) for key in ("a", "b")}
    digests.add(store.put_graph(OTHER, "a", b"a graph", program=PROGRAM))

    assert digests == {digest_of(b"a graph")}
    assert [(row.environment, row.key) for row in store.graphs()] == [
        (OTHER, "a"),
        (ENVIRONMENT, "b"),
        (ENVIRONMENT, "a"),
    ]
    assert len(store.graphs(environment=OTHER)) == 1


def test_newer_graph_of_a_key_replaces_the_older_one(store: Store, root: Path) -> None:
    old = store.put_graph(ENVIRONMENT, "key", b"old", program=PROGRAM)
    new = store.put_graph(ENVIRONMENT, "key", b"new", program=PROGRAM)

    assert [row.graph for row in store.graphs()] == [new]
    with pytest.raises(BlobMissingError):
        store.get_graph(old)
    assert len([path for path in (root / "graphs").rglob("*") if path.is_file()]) == 1


def test_graphs_have_a_bound_of_their_own_and_the_oldest_go(root: Path) -> None:
    with Store.open(config(root, max_graph_bytes=20_000, max_bytes=1000)) as store:
        for number in range(60):
            store.put_graph(ENVIRONMENT, f"key {number}", bytes([number]) * 1000, program=PROGRAM)
            files = [path for kind in ("graphs", "requests") for path in (root / kind).rglob("*") if path.is_file()]
            assert sum(path.stat().st_size for path in files) == store.usage().graph_bytes <= 20_000

        keys = [row.key for row in store.graphs()]
        assert len(keys) > 10
        assert keys == [f"key {number}" for number in range(59, 59 - len(keys), -1)]
        with pytest.raises(StoreFullError):
            store.put_graph(ENVIRONMENT, "key", b"g" * 20_000, program=PROGRAM)


def test_graph_beyond_the_bound_of_the_wire_is_refused(store: Store) -> None:
    with pytest.raises(MalformedError):
        store.put_graph(ENVIRONMENT, "key", bytes(MAX_GRAPH_BYTES + 1), program=PROGRAM)


def test_damaged_graph_is_quarantined_and_its_requests_forgotten(store: Store, root: Path) -> None:
    digest = store.put_graph(ENVIRONMENT, "key", b"a graph", program=PROGRAM)
    change_one_byte(root / "graphs" / digest[:2] / digest)

    with pytest.raises(BlobDamagedError):
        store.get_graph(digest)

    assert store.graphs() == []
    assert store.usage().quarantined == 1
    assert store.put_graph(ENVIRONMENT, "key", b"a graph", program=PROGRAM) == digest
    assert store.get_graph(digest) == b"a graph"


def test_collection_leaves_graphs_alone(root: Path) -> None:
    with Store.open(config(root, max_age_s=1e-6, orphan_grace_s=0.0)) as store:
        put(store, sample(1))
        store.put_graph(ENVIRONMENT, "key", b"a graph", program=PROGRAM)

        assert store.collect().artifacts == 1
        assert len(store.graphs()) == 1


def test_environments_and_facts_survive_a_restart(root: Path) -> None:
    with Store.open(config(root)) as store:
        environment = store.put_environment({"torch": "2.13", "python": "3.11"})
        store.put_facts(environment, b"old facts")
        store.put_facts(environment, b"facts")

    with Store.open(config(root)) as store:
        assert environment == environment_id({"python": "3.11", "torch": "2.13"})
        assert store.environments() == {environment: {"torch": "2.13", "python": "3.11"}}
        assert store.get_facts(environment) == b"facts"
        assert store.get_facts(OTHER) == b""


def test_facts_of_an_unknown_environment_are_refused(store: Store) -> None:
    with pytest.raises(BlobMissingError):
        store.put_facts(OTHER, b"facts")


def test_malformed_environment_is_refused(store: Store) -> None:
    with pytest.raises(MalformedError):
        store.put_environment({})


def test_environments_are_bounded_and_those_with_artifacts_stay(root: Path) -> None:
    with Store.open(config(root, max_environments=3)) as store:
        fields = {"torch": "2.13"}
        used = store.put_environment(fields)
        put(store, sample_of([b"entry"], environment=used))
        for number in range(5):
            store.put_environment({"torch": str(number)})

        assert [*store.environments().values()] == [fields, {"torch": "3"}, {"torch": "4"}]


def test_expected_seconds_are_those_of_the_key_or_the_mean_of_the_environment(store: Store) -> None:
    assert store.expected_seconds(ENVIRONMENT, "a") is None
    store.note_compile(ENVIRONMENT, "a", 100.0)
    store.note_compile(ENVIRONMENT, "a", 10.0)
    store.note_compile(ENVIRONMENT, "b", 20.0)
    store.note_compile(OTHER, "c", 1000.0)

    assert store.expected_seconds(ENVIRONMENT, "a") == 10.0
    assert store.expected_seconds(ENVIRONMENT, "new") == 15.0


def test_mean_is_of_the_recent_compiles_only(store: Store) -> None:
    for number in range(100):
        store.note_compile(ENVIRONMENT, f"key {number}", 1.0 if number < 60 else 3.0)

    assert store.expected_seconds(ENVIRONMENT, "new") == 3.0


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_senseless_compile_times_are_refused(store: Store, seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds"):
        store.note_compile(ENVIRONMENT, "key", seconds)


def test_counters_and_history_survive_a_kill(root: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from tests.store.store_samples import ENVIRONMENT, config
from compiler_daemon.store import Store
store = Store.open(config(Path(sys.argv[1])))
for _ in range(3):
    store.add_counts({"hits": 2, "misses": 1})
store.note_compile(ENVIRONMENT, "key", 7.0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert done.returncode == -9

    with Store.open(config(root)) as store:
        assert store.counts() == {"hits": 6, "misses": 3}
        assert store.expected_seconds(ENVIRONMENT, "key") == 7.0
