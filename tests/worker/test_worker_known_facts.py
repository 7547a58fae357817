"""Workers of one place ask the machine once: what the first found, or what the daemon knew, serves the others."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from worker_samples import Worker

from compile_wire.digest import Digest
from compile_wire.environment import environment_id
from compile_wire.facts import Facts, decode_facts
from compiler_daemon.worker.known_facts import read_known, turn, write_known

HERE, ELSEWHERE = environment_id({"torch": "2.13.0"}), environment_id({"torch": "2.11.0"})
FACTS = Facts(vec_isa={"avx2": True, "avx512": False})


def test_what_was_left_is_read_for_its_own_environment_only(tmp_path: Path) -> None:
    write_known(tmp_path / "new", HERE, FACTS)

    assert read_known(tmp_path / "new", HERE) == FACTS
    assert read_known(tmp_path / "new", ELSEWHERE) is None
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["facts"]


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\xc1" * 40, bytes(1 << 20)])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "facts").write_bytes(data)

    assert read_known(tmp_path, HERE) is None
    write_known(tmp_path, HERE, FACTS)
    assert read_known(tmp_path, HERE) == FACTS


def test_whoever_comes_second_waits_for_what_the_first_finds(tmp_path: Path) -> None:
    found: list[Facts | None] = []
    waits = threading.Event()

    def second() -> None:
        waits.set()
        with turn(tmp_path):
            found.append(read_known(tmp_path, HERE))

    with turn(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        waits.wait(5)
        thread.join(0.2)
        write_known(tmp_path, HERE, FACTS)
    thread.join(5)

    assert found == [FACTS]


def test_a_place_that_is_not_there_stops_nobody(tmp_path: Path) -> None:
    with turn(tmp_path / "missing"):
        assert read_known(tmp_path / "missing", HERE) is None


def test_a_worker_takes_over_what_is_known_of_its_environment_and_leaves_what_it_found(
    tmp_path: Path, headers: Path
) -> None:
    def told(name: str, known: tuple[Digest, Facts] | None = None) -> tuple[Digest, Facts]:
        folder = tmp_path / name
        folder.mkdir()
        worker = Worker(folder, headers, known=known)
        worker.end()
        return environment_id(worker.hello["environment"]), decode_facts(worker.hello["facts"])

    environment, found = told("first")
    assert any(found.vec_isa.values())
    assert read_known(tmp_path / "first" / "cache", environment) == found

    # The machine says otherwise: a worker that says this has not asked it.
    plainest = min(found.vec_isa, key=len)
    known = Facts(vec_isa={**found.vec_isa, plainest: not found.vec_isa[plainest]})
    assert told("second", (environment, known)) == (environment, known)
    assert told("third", (ELSEWHERE, known)) == (environment, found)
