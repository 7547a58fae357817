"""A part of the twins: each kind, and each kind that was ever confused. `make twins` plays all of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.twins.judging import Result, play_briefly
from tests.twins.pairs import all_pairs
from tests.twins.stage import Stage
from tests.twins.thing import Pair, Position, Thing, Times, Twins
from tests.twins.things import THINGS
from tests.twins.weakening import known_parts, pairs_of, weakened

_SLICE: dict[str, str] = {
    # the key is a thing; the value has its places, as position or position/times, separated by blanks
    "autocast dtype, autocast off": "top/dynamic checkpoint/static",
    "default dtype": "submodule/static",
    "threads": "top/static",
    "inductor.fallback_random": "top",
    "TORCHINDUCTOR_EMULATE_PRECISION_CASTS": "top",
    "both limits of a clamp": "top submodule",
    "delta of Huber's loss": "checkpoint",
    "range of a size": "top",
    "formula: a dict": "top/static backward/static",
    "formula: the environment": "top/static",
    "formula: a default argument": "top/dynamic",
    "formula: a partial": "submodule/static",
    "formula: a list in a list": "checkpoint/static",
    "formula: text that was executed": "top/static",
    "what an operator writes to": "top/static",
    "what a library's operator writes to": "submodule/static",
    "opaque: a dict": "checkpoint/static function/static cond/static",
    "number in a table of a subclass": "top/static",
    "context that a subclass's hash leaves out": "top/static",
    "rank: half of a sum": "top",
    "rank: a formula asks for it": "top",
    "pass that is a plain function": "top",
    "graph kept": "top checkpoint",
    "two gradients before the backward": "top",
}
_SERVED: dict[str, str] = {
    "harmless: another folder": "top/static function/dynamic",
    "harmless: other lines": "submodule/static",
    "harmless: hash seed": "top/static",
    "harmless: rank": "top/dynamic",
    "harmless: order of imports": "checkpoint/static",
}


@pytest.fixture(scope="module")
def stage(headers: Path) -> Iterator[Stage]:
    folder = Path(tempfile.mkdtemp(prefix="twins-", dir="/tmp"))  # the name is short because of the sockets in it
    with Stage(folder / "s", headers) as made:
        yield made
    shutil.rmtree(folder)


def _twins(name: str, places: str) -> Twins:
    known = {pair.place: pair for pair in all_pairs() if pair.thing.name == name}
    chosen = [next(known[at] for at in known if at.replace(", ", "/").startswith(place)) for place in places.split()]
    return Twins(chosen[0].thing, tuple(chosen))


def _wrong(results: list[Result]) -> list[str]:
    return [f"{result.name}: {said}" for result in results for said in (*result.differences, *result.lost)]


_LONG = {
    "autocast dtype, autocast off",
    "delta of Huber's loss",
    "TORCHINDUCTOR_EMULATE_PRECISION_CASTS",
    "rank: half of a sum",
    "rank: a formula asks for it",
    "harmless: another folder",
    "harmless: hash seed",
}
"""Those of about half a minute each: their programs are processes of their own, or in several places."""
_ALIKE = {"formula: a default argument", "formula: a partial", "formula: a list in a list", "both limits of a clamp"}
"""Each is a brother of another one of the slice."""
_SLOW = _LONG | _ALIKE


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in _SLOW else []) for n in _SLICE])
def test_a_program_computes_the_same_after_its_twin_as_without_a_daemon(stage: Stage, name: str) -> None:
    results = play_briefly(stage, _twins(name, _SLICE[name]))

    assert _wrong(results) == []
    assert all(result.graphs for result in results)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in _SLOW else [], id=name) for name in _SERVED]
)
def test_a_harmless_twin_is_served_what_was_made_for_the_other(stage: Stage, name: str) -> None:
    results = play_briefly(stage, _twins(name, _SERVED[name]))

    assert _wrong(results) == []
    assert all(result.graphs and not result.refused for result in results)


@pytest.mark.slow
def test_a_program_that_is_another_one_every_time_is_found_out(stage: Stage) -> None:
    core = "return torch.tanh(x @ w) * SCALE"
    restless = Thing(
        name="restless",
        kind="harmless",
        differs="nothing that is known",
        setup="import time\n\nSCALE = time.time_ns() % 1_000_003 + 1",
        core=core,
    )

    (result,) = play_briefly(stage, Twins(restless, (Pair(restless, "top", "static", 60_000),)))

    assert result.differences
    assert result.lost, "it was compiled again, although it is said to be harmless"


@pytest.mark.slow
def test_a_missing_part_of_the_key_is_noticed(headers: Path, tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="twins-", dir="/tmp"))

    assert weakened("user_code", folder, seed=0, jobs=2, temporary=headers)

    shutil.rmtree(folder)


def test_each_part_of_the_key_keeps_some_twins_apart() -> None:
    assert [part for part in known_parts() if not pairs_of(part)] == []


def test_things_have_names_of_their_own_and_at_least_one_place() -> None:
    names = [thing.name for thing in THINGS]

    assert len(set(names)) == len(names) >= 60
    assert all(thing.fits and thing.times and thing.differs for thing in THINGS)


def test_every_position_and_every_way_of_sizes_has_its_pairs() -> None:
    pairs = all_pairs()

    assert {pair.position for pair in pairs} == set(Position.__args__)  # type: ignore[attr-defined]
    assert {pair.times for pair in pairs} == set(Times.__args__)  # type: ignore[attr-defined]
    assert len({pair.number for pair in pairs}) == len(pairs)
