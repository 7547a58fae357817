"""Python's collector, held back until the first step: in processes of their own, which say their thresholds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

PYTHONS_OWN = [700, 10, 10]

PRELUDE = """
import gc, json, os, sys, time
from compile_client.hooks import collector

def hold():
    collector.hold_collector(os.environ)

def said():
    return list(gc.get_threshold())

def collected(until):
    # Allocates until the collector has looked at the clock, or for twenty seconds.
    end = time.monotonic() + 20
    kept = []
    while not until() and time.monotonic() < end:
        kept.append([[] for _ in range(1000)])
    return said()

before = said()
"""

pytestmark = pytest.mark.skipif(sys.version_info[:2] > (3, 12), reason="there the collector is left alone")


def run(program: str, *, code: int = 0, **variables: str) -> Any:
    """Run a program; return the JSON document on its last line."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + program],
        capture_output=True,
        text=True,
        env=os.environ | variables,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_full_collections_wait_and_young_objects_are_collected_as_always() -> None:
    held = run("hold(); print(json.dumps(said()))")

    assert held[:2] == PYTHONS_OWN[:2]
    assert held[2] > 1000


@pytest.mark.parametrize(
    "alone",
    [
        "gc.set_threshold(800, 10, 10)",
        "gc.set_threshold(0)",
        "gc.disable()",
        "os.environ['TORCH_COMPILE_CLIENT_WITHOUT'] = 'digests,collector'",
    ],
)
def test_a_collector_that_was_set_up_otherwise_is_left_alone(alone: str) -> None:
    before, after, callbacks = run(
        f"{alone}; before = said(); hold(); print(json.dumps([before, said(), len(gc.callbacks)]))"
    )

    assert after == before
    assert callbacks == 0


def test_the_thresholds_are_put_back_a_second_after_the_last_graph() -> None:
    held, after, seconds = run("""
hold()
collector.graph_was_compiled()
start = time.monotonic()
held = said()
after = collected(lambda: said() == before)
print(json.dumps([held, after, time.monotonic() - start]))
""")

    assert held != PYTHONS_OWN
    assert after == PYTHONS_OWN
    assert 1 <= seconds < 20


def test_the_thresholds_are_put_back_after_a_while_without_any_graph() -> None:
    after = run("""
collector._AT_MOST_S = 0.2
hold()
print(json.dumps([said(), collected(lambda: said() == before)]))
""")

    assert after[0] != PYTHONS_OWN
    assert after[1] == PYTHONS_OWN


def test_a_forked_child_has_pythons_thresholds_and_its_parent_goes_on_as_it_was() -> None:
    child, parent, callbacks = run("""
hold()
reader, writer = os.pipe()
if os.fork() == 0:
    os.write(writer, json.dumps([said(), len(gc.callbacks)]).encode())
    os._exit(0)
os.wait()
child, callbacks = json.loads(os.read(reader, 1000))
print(json.dumps([child, said(), callbacks]))
""")

    assert child == PYTHONS_OWN
    assert callbacks == 0
    assert parent != PYTHONS_OWN


@pytest.mark.parametrize(("end", "code"), [("", 0), ("raise SystemExit(3)", 3), ("raise ValueError", 1)])
def test_the_thresholds_are_put_back_when_the_process_ends(end: str, code: int) -> None:
    at_exit = run(
        f"""
import atexit
atexit.register(lambda: print(json.dumps([said(), len(gc.callbacks)])))
hold()
{end}
""",
        code=code,
    )

    assert at_exit == [PYTHONS_OWN, 0]


def test_switching_the_client_off_puts_the_thresholds_back() -> None:
    held, after = run("""
import compile_client
hold()
held = said()
compile_client.uninstall()
print(json.dumps([held, said()]))
""")

    assert held != PYTHONS_OWN
    assert after == PYTHONS_OWN


def test_thresholds_that_the_program_sets_meanwhile_are_never_overwritten() -> None:
    after = run("""
hold()
gc.set_threshold(5000, 20, 30)
collector.graph_was_compiled()
first = collected(lambda: time.monotonic() > collector._hold._end + 0.5)
collector.release_collector()
print(json.dumps([first, said()]))
""")

    assert after == [[5000, 20, 30], [5000, 20, 30]]


def test_a_program_that_puts_back_what_it_had_read_from_us_gets_pythons_own_again() -> None:
    between, after = run("""
hold()
read = gc.get_threshold()
gc.set_threshold(1000, 10, 10)
collector.graph_was_compiled()
between = collected(lambda: time.monotonic() > collector._hold._end + 0.5)
gc.set_threshold(*read)
print(json.dumps([between, collected(lambda: said() == before)]))
""")

    assert between == [1000, 10, 10]
    assert after == PYTHONS_OWN


def test_others_who_listen_to_the_collector_hear_every_collection() -> None:
    heard = run("""
phases = []
hold()
gc.callbacks.append(lambda phase, info: phases.append(phase))
collector.graph_was_compiled()
collected(lambda: said() == before)
print(json.dumps([phases.count("start"), phases.count("stop")]))
""")

    assert heard[0] == heard[1] > 0
