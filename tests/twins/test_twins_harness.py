"""The harness's verdicts on runs that went wrong, its programs, and the compiler with a memory."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.twins import kept
from tests.twins.compilers import remembering_compiler
from tests.twins.judging import judge
from tests.twins.pairs import all_pairs, drawn, named, programs
from tests.twins.program import text_of
from tests.twins.report import page, summary
from tests.twins.stage import Run
from tests.twins.thing import PHASES, Pair, Phase, Thing

_COUNTED = {"graphs": 1, "hits": 1, "hits_local": 0, "compiled_by_daemon": 0, "compiled_here": 0}


def _run(phase: Phase, way: str, value: float = 1.0, *, code: int = 0, last: str = "", **counted: Any) -> Run:
    told = {"top, static": {"steps": [{"step": "3 rows", "y": {"data": [value], "dtype": "f"}}], "random": [0.5]}}
    places = {"top, static": {**_COUNTED, "refused": {}, "fallbacks": {}, **counted}}
    return Run(phase, way, code, last or json.dumps(told), places, "ValueError: no", {}, 1.0)


def _pair(**about: Any) -> Pair:
    return Pair(Thing(**({"name": "scale", "kind": "burned in", "differs": "a number"} | about)), "top", "static", 7)


_PLAIN: dict[Phase, Run] = {"A": _run("A", "A, plain", 2.0), "B": _run("B", "B, plain", 1.0)}


def test_equal_runs_pass_and_twins_that_differ_plainly_are_telling() -> None:
    result = judge(_pair(), _PLAIN, [_run("A", "A, cold", 2.0), _run("B", "B after A", 1.0)], 1.0)

    assert result.passed
    assert result.telling


def test_what_was_computed_for_the_twin_is_a_difference_in_words() -> None:
    result = judge(_pair(), _PLAIN, [_run("B", "B after A", 2.0)], 1.0)

    assert result.differences == ["B after A: 3 rows: y: data[0] 2.0, plainly 1.0"]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (_run("B", "B, warm", code=1), "B, warm: exit code 1, plainly 0: ValueError: no"),
        (_run("B", "B, warm", last="no JSON"), "its last line is 'no JSON'"),
        (_run("B", "B, warm", last='{"top, static": {"steps": [], "random": [0.5]}}'), "B, warm: number of steps"),
    ],
)
def test_another_end_is_a_difference(run: Run, said: str) -> None:
    (difference,) = judge(_pair(), _PLAIN, [run], 1.0).differences

    assert said in difference


def test_other_random_streams_are_a_difference() -> None:
    run = _run("B", "B, warm")
    other = run.last.replace('"random": [0.5]', '"random": [0.25]')

    result = judge(_pair(), _PLAIN, [_run("B", "B, warm", last=other)], 1.0)

    assert result.differences == ["B, warm: random streams"]


def test_a_warm_run_that_compiles_again_has_lost_a_hit() -> None:
    result = judge(_pair(), _PLAIN, [_run("B", "B, warm", compiled_by_daemon=1)], 1.0)

    assert result.lost == ["B, warm: 1 of 1 graphs were compiled by the daemon again"]


def test_a_harmless_twin_that_is_not_served_has_lost_a_hit_and_others_have_not() -> None:
    run = _run("B", "B after A", compiled_here=1, refused={"not_carried": 1})

    assert judge(_pair(), _PLAIN, [run], 1.0).lost == []
    (lost,) = judge(_pair(kind="harmless"), _PLAIN, [run], 1.0).lost
    assert "the program 1 {'not_carried': 1}" in lost


def test_a_graph_that_torch_itself_caches_nowhere_is_no_lost_hit() -> None:
    run = _run("B", "B after A", compiled_here=1, refused={"uncacheable": 1})

    assert judge(_pair(kind="harmless"), _PLAIN, [run], 1.0).lost == []


def test_every_program_is_python_and_twins_are_one_text_unless_their_texts_differ() -> None:
    for twins in programs(all_pairs(), seed=0, at_most=100):
        texts = [text_of(twins, phase) for phase in PHASES]

        for text in texts:
            ast.parse(text)
        assert (texts[0] != texts[1]) == bool(twins.thing.edits), twins.name


def test_a_draw_is_the_same_for_the_same_seed_and_has_each_thing() -> None:
    pairs = all_pairs()
    draw = drawn(pairs, seed=3, each=1)

    assert draw == drawn(pairs, seed=3, each=1) != drawn(pairs, seed=4, each=1)
    assert len(draw) == len({pair.thing.name for pair in pairs})
    assert sorted(p.number for t in programs(pairs, seed=3) for p in t.pairs) == [pair.number for pair in pairs]


def test_a_pattern_names_pairs_things_and_kinds() -> None:
    pairs = all_pairs()

    assert {pair.thing.name for pair in named(pairs, ["formula: a dict @ *"])} == {"formula: a dict"}
    assert {pair.thing.kind for pair in named(pairs, ["harmless"])} == {"harmless"}


def test_the_page_has_the_numbers_and_what_is_wrong() -> None:
    good = judge(_pair(), _PLAIN, [_run("B", "B after A", 1.0)], 1.0)
    bad = judge(_pair(), _PLAIN, [_run("B", "B after A", 2.0)], 1.0)
    run = {"command": "c", "commit": "abc", "ended": "now", "python": "3", "drawn": 4, **summary([good, bad])}

    text = page({"2.13.0": run | {"results": [vars(good), vars(bad)]}})

    assert "2 of 4 pairs that were drawn, of 1 things, **1 differ**, 0 lost a hit" in text
    assert "**scale @ top, static** (burned in): B after A: 3 rows: y: data[0] 2.0, plainly 1.0" in text


def test_a_remembered_object_is_what_the_compiler_makes(tmp_path: Path) -> None:
    variables = os.environ | remembering_compiler(tmp_path / "compiler")
    real = shutil.which("g++")
    assert real
    made = []
    for folder, compiler in (("direct", real), ("first", "g++"), ("second", "g++")):
        place = tmp_path / folder
        place.mkdir()
        (place / "k.cpp").write_text(
            '#include <cmath>\nextern "C" double kernel(double x) { return std::sin(x) * 2; }\n'
        )
        command = [
            compiler,
            str(place / "k.cpp"),
            "-O3",
            "-g1",
            "-march=native",
            "-shared",
            "-fPIC",
            "-o",
            str(place / "k.so"),
        ]
        subprocess.run(command, check=True, env=variables)
        made.append(place / "k.so")

    stripped = []
    for path in made:
        # The only trace of a folder in an object is in its debug section, which nothing here reads.
        subprocess.run(["strip", "--strip-debug", "--remove-section=.note.gnu.build-id", str(path)], check=True)
        stripped.append(path.read_bytes())
    assert stripped[0] == stripped[1] == stripped[2]
    assert len([path for path in (tmp_path / "compiler" / "kept").iterdir() if path.suffix == ""]) == 1


def test_another_source_or_another_flag_is_another_object(tmp_path: Path) -> None:
    variables = os.environ | remembering_compiler(tmp_path / "compiler")
    for number, flag in ((1, "-O1"), (2, "-O1"), (2, "-O2")):
        source, target = tmp_path / "k.cpp", tmp_path / "k.so"
        source.write_text(f"int kernel() {{ return {number}; }}\n")
        subprocess.run(["g++", str(source), flag, "-shared", "-fPIC", "-o", str(target)], check=True, env=variables)

    assert len([path for path in (tmp_path / "compiler" / "kept").iterdir() if path.suffix == ""]) == 3


def test_an_error_of_the_compiler_is_not_remembered(tmp_path: Path) -> None:
    variables = os.environ | remembering_compiler(tmp_path / "compiler")
    (tmp_path / "k.cpp").write_text("this is no program\n")

    for _ in range(2):
        done = subprocess.run(
            ["g++", "k.cpp", "-o", "k.so"], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "k.cpp:1" in done.stderr


def test_what_passed_is_kept_and_drawn_first_and_what_did_not_is_played_again(tmp_path: Path) -> None:
    pair = _pair()
    own = [dataclasses.replace(pair, position="submodule", number=8), pair]
    good = judge(pair, _PLAIN, [_run("B", "B, warm")], 1.0)
    bad = judge(pair, _PLAIN, [_run("B", "B, warm", compiled_by_daemon=1)], 1.0)

    kept.append(tmp_path / "kept", good, "abc")
    before = kept.load(tmp_path / "kept")
    assert before[pair.name].commit == "abc"
    assert drawn(own, seed=5, each=1, played=before) == [pair]
    assert len(drawn(own, seed=5, each=2, played=before)) == 2

    kept.append(tmp_path / "kept", bad, "def")
    assert kept.load(tmp_path / "kept") == {}
