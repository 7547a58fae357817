"""A worker does not ask the machine for what the daemon already knows about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compile_torch.probes import Probes, probe_name
from compile_wire.digest import Digest
from compile_wire.environment import environment_id
from compile_wire.facts import Facts, decode_facts
from compiler_daemon.worker.known_facts import read_known, write_known
from tests.worker.worker_samples import Worker

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


def test_a_worker_takes_over_what_is_known_of_its_environment(tmp_path: Path, headers: Path) -> None:
    def told(name: str, known: tuple[Digest, Facts] | None = None) -> tuple[Digest, Facts]:
        folder = tmp_path / name
        folder.mkdir()
        worker = Worker(folder, headers, known=known)
        worker.end()
        return environment_id(worker.hello["environment"]), decode_facts(worker.hello["facts"])

    environment, found = told("first")
    assert any(found.vec_isa.values())

    assert told("second", (environment, found)) == (environment, found)
    # A probe that failed elsewhere or earlier says nothing about this machine, so the worker asks again.
    worse = Facts(vec_isa=dict.fromkeys(found.vec_isa, False))
    assert told("third", (environment, worse)) == (environment, found)
    assert told("fourth", (ELSEWHERE, worse)) == (environment, found)


def test_a_probe_that_went_well_is_taken_over_and_the_machine_not_asked() -> None:
    class Set:
        def build_arch_flags(self) -> str:
            return "-mavx2"

        def __str__(self) -> str:
            return "avx2"

    asked: list[str] = []

    def ask(_: Any, code: str) -> bool:
        asked.append(code)
        return True

    name = probe_name(Set(), "code")
    assert Probes(lambda: {name: True}).checking(ask)(Set(), "code")
    assert asked == []
    assert Probes(lambda: {name: False}).checking(ask)(Set(), "code")
    assert asked == ["code"]
