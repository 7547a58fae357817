"""The outcome of each fault at each step, as a table; see `cell` for the steps, and `kernel_cells` for the last one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.faults.cell import FAULTS, STEPS, WORK_S, Cell, Play
from tests.faults.changed_messages import (
    answer,
    entries_forged,
    event_at,
    facts_forged,
    forged_artifact,
    garbage,
    manifests_forged,
    never,
    other_environment,
    other_lookup,
    published_under_another_key,
    queued_with_other_key,
    request,
    running_forged,
    running_with_other_graph,
    second_answer,
    transfer_of_another_blob,
    transfer_of_garbage,
    transfer_without_end,
    wrong_token,
)
from tests.faults.instants import at
from tests.faults.kernel_cells import KERNEL_STEP, kernel_cells
from tests.faults.scene import Scene
from tests.faults.strikes import (
    garbage_installed,
    idle_worker_first,
    install_disk_full,
    no_memory_to_load,
    running_worker_killed,
    swapped_installed,
    worker_over_its_memory,
)

_STEPS = tuple(step for step in STEPS if step != KERNEL_STEP)

_GONE = ("client:fallbacks.unavailable",)
_LATE = ("client:fallbacks.timeout",)
_FORGED = ("client:fallbacks.bad_signature",)
_INTERNAL = ("client:fallbacks.internal",)
_BAD_BLOB = ("client:fallbacks.bad_digest",)
_INSTALL = ("client:fallbacks.install",)
_MISMATCH = ("client:refused.key_mismatch",)
_DIED = ("daemon:workers_died",)
_LOST = ("daemon:workers_lost",)
_NO_ROOM = ("client:fallbacks.internal", "client:fallbacks.unavailable", "client:fallbacks.timeout")

_FOUND_LATER = "; the graph is served, and the second graph finds it"
_NO_MESSAGE = "64 bytes that are no message"
_FULL = "the store's filesystem has no byte left"

Row = tuple[str, Play, tuple[str, ...], str] | tuple[str, Play, tuple[str, ...], str, dict[str, Any]]
"""A step, what is done, the counters of which one must rise, words for both, and what else the cell says."""
WORKS: dict[str, Any] = {"timeout_s": WORK_S}
"""The daemon compiles in the end in these cells."""


def _scene(*, works: bool = False, **options: Any) -> dict[str, Any]:
    return {"options": options} | (WORKS if works else {})


def _named(step: str, counters: tuple[str, ...]) -> tuple[str, ...]:
    """Return the counters of failures by the names that they have at this step."""
    if step == "publish":
        return tuple(name.replace("client:fallbacks.", "client:unpublished.") for name in counters)
    return counters


def _everywhere(play: Play, counters: tuple[str, ...], what: str, *steps: str, **more: Any) -> list[Row]:
    """Return rows with the same harm at each step, or at the given steps."""
    return [(step, at(step, play), _named(step, counters), what, more) for step in steps or _STEPS]


def _at_install(rows: list[Row], what: str) -> list[Row]:
    """Return the rows with other words for the step "install", where the first graph has arrived already."""
    return [(row[0], row[1], row[2], what, *row[4:]) if row[0] == "install" else row for row in rows]


_KILLED = "the daemon is killed and stays away"
_STOPPED = "the daemon is stopped until the trainer has ended"
_CUT = "all connections are cut; new ones are accepted"
_CUT_FOR_GOOD = "all connections are cut, and no other is accepted: a cut alone is mended by the next call"
_IDLE = "the idle worker is killed; nobody waits for it, and it is counted and replaced when it is needed"
_JUMP = (
    "three days forward for the daemon and its workers, three back for the trainer: no trouble at all, so "
    "the counter is that of success, and none of trouble"
)
_SUCCESS = {"compile queued": "compiled_by_daemon", "compile running": "compiled_by_daemon", "publish": "published"}

_TABLE: dict[str, list[Row]] = {
    "kill -9": _at_install(_everywhere(Scene.kill, _GONE, _KILLED), _KILLED + _FOUND_LATER),
    "SIGSTOP": _at_install(_everywhere(Scene.stop, _LATE, _STOPPED), _STOPPED + _FOUND_LATER),
    "connection cut": [
        *_everywhere(Scene.cut, _GONE, _CUT, *(step for step in _STEPS if step != "install")),
        ("install", at("install", Scene.cut_for_good), _GONE, _CUT_FOR_GOOD + _FOUND_LATER),
    ],
    "garbage reply": [
        ("handshake", answer("Handshake", garbage), _INTERNAL, f"{_NO_MESSAGE} instead of the answer"),
        ("lookup", answer("LookupArtifact", garbage), _INTERNAL, f"{_NO_MESSAGE} instead of the answer"),
        ("compile queued", event_at("compile queued", garbage), _INTERNAL, f"{_NO_MESSAGE} follow the event"),
        ("compile running", event_at("compile running", garbage), _INTERNAL, f"{_NO_MESSAGE} follow the event"),
        (
            "artifact transfer",
            transfer_of_garbage,
            _BAD_BLOB,
            "random bytes of the right length instead of the first blob",
        ),
        (
            "install",
            garbage_installed,
            _INSTALL,
            "random bytes of the right length lie where the objects are to be installed, as after a loss of power; "
            "they are replaced",
        ),
        (
            "publish",
            answer("PublishArtifact", garbage),
            _named("publish", _INTERNAL),
            f"{_NO_MESSAGE} instead of the answer",
        ),
    ],
    "slow reply": [
        ("handshake", answer("Handshake", never), _LATE, "the answer is held until the trainer has ended"),
        ("lookup", answer("LookupArtifact", never), _LATE, "the answer is held until the trainer has ended"),
        (
            "compile queued",
            event_at("compile queued", never),
            _LATE,
            "nothing follows the event until the trainer has ended",
        ),
        (
            "compile running",
            event_at("compile running", never),
            _LATE,
            "nothing follows the event until the trainer has ended",
        ),
        (
            "artifact transfer",
            transfer_without_end,
            _LATE,
            "the second half of the first blob is held until the trainer has ended",
        ),
        (
            "install",
            second_answer(never),
            _LATE,
            "from the install of the first graph on, lookups are not answered; the second graph finds it",
        ),
        (
            "publish",
            answer("PublishArtifact", never),
            _named("publish", _LATE),
            "the answer is held until the trainer has ended",
        ),
    ],
    "disk full": [
        *_everywhere(
            Scene.fill_disk,
            ("daemon:store_unwritable",),
            f"{_FULL}; reading goes on, and the lookup is a hit",
            *("handshake", "lookup", "artifact transfer"),
            **_scene(disk="store"),
        ),
        (
            "compile queued",
            at("compile queued", Scene.fill_disk),
            ("client:fallbacks.full",),
            f"{_FULL}: what is compiled cannot be kept",
            _scene(works=True, disk="store"),
        ),
        (
            "compile running",
            at("compile running", Scene.fill_disk),
            ("client:refused.compile_error",),
            "the filesystem of the workers' scratch folder has no byte left: g++ fails",
            _scene(works=True, disk="scratch"),
        ),
        (
            "install",
            install_disk_full,
            _INSTALL,
            "the filesystem that the trainer installs on has no byte left; torch's own folder has",
            WORKS,
        ),
        ("publish", at("publish", Scene.fill_disk), ("client:unpublished.full",), _FULL, _scene(disk="store")),
    ],
    "worker killed": [
        (
            "handshake",
            at("handshake", lambda scene: scene.run_beside(scene.kill_worker)),
            ("daemon:workers_failed",),
            "the worker that is started for the client is killed before it says hello; the lookup is a hit",
            _scene(prewarm=True),
        ),
        ("lookup", idle_worker_first("lookup"), _DIED, _IDLE, _scene(prewarm=True)),
        ("artifact transfer", idle_worker_first("artifact transfer"), _DIED, _IDLE, _scene(prewarm=True)),
        ("install", idle_worker_first("install"), _DIED, _IDLE, _scene(prewarm=True)),
        ("publish", idle_worker_first("publish"), _DIED, _IDLE, _scene(prewarm=True)),
        (
            "compile queued",
            at("compile queued", Scene.kill_worker),
            _LOST,
            "the worker is killed over the graph before; both graphs are compiled by another",
            WORKS,
        ),
        (
            "compile running",
            running_worker_killed,
            _LOST,
            "the worker is killed in the middle of g++; another compiles the graph",
            WORKS,
        ),
    ],
    "out of memory": [
        *_everywhere(
            Scene.exhaust_memory,
            _NO_ROOM,
            "from here on every allocation of the daemon above 4 KiB fails: it answers with an error, or dies",
            *("handshake", "lookup", "compile queued", "artifact transfer", "publish"),
            **_scene(preload=True),
        ),
        (
            "compile running",
            worker_over_its_memory,
            ("client:refused.limit",),
            "the worker's limit of memory is 64 MiB, less than torch needs: it is killed while it compiles",
            _scene(works=True, arguments=("--job-gib", "0.0625")),
        ),
        (
            "install",
            no_memory_to_load,
            _INSTALL,
            "the trainer's address space has no room left while torch loads the first installed object",
            WORKS,
        ),
    ],
    "wrong key": [
        (
            "handshake",
            answer("Handshake", other_environment),
            ("client:fallbacks.environment",),
            "the answer names another environment, which is part of every key",
        ),
        (
            "lookup",
            request("LookupArtifact", other_lookup),
            _FORGED,
            "the daemon is asked for another key; its answer is well signed, but for that key",
            WORKS,
        ),
        (
            "compile queued",
            queued_with_other_key,
            _MISMATCH,
            "the key of the request is changed; the worker's own comes out different, and nothing is compiled",
            WORKS,
        ),
        (
            "compile running",
            running_with_other_graph,
            _MISMATCH,
            "another graph comes under the key; the worker computes that one's key, and nothing is compiled",
            WORKS,
        ),
        (
            "artifact transfer",
            transfer_of_another_blob,
            _BAD_BLOB,
            "another blob of the store is sent instead of the first",
        ),
        (
            "install",
            swapped_installed,
            _INSTALL,
            "each object's place is taken by another kernel's object, cut or padded to the right length; "
            "they are replaced",
        ),
        (
            "publish",
            request("PublishArtifact", published_under_another_key),
            ("client:unpublished.invalid",),
            "the request names another key than its manifest",
        ),
    ],
    "wrong signature": [
        (
            "handshake",
            answer("Handshake", facts_forged),
            _FORGED,
            "a bit of the signature over the environment's facts is flipped",
        ),
        ("lookup", answer("LookupArtifact", entries_forged), _FORGED, "a bit of each artifact's signature is flipped"),
        (
            "compile queued",
            event_at("compile queued", forged_artifact),
            _FORGED,
            "an artifact that the daemon did not sign is slipped in after the event",
            WORKS,
        ),
        (
            "compile running",
            running_forged,
            _FORGED,
            "a bit of the signature of what was compiled is flipped",
            WORKS,
        ),
        (
            "artifact transfer",
            answer("LookupArtifact", manifests_forged),
            _FORGED,
            "a bit of the signed manifest is flipped; no blob is even asked for",
            WORKS,
        ),
        (
            "install",
            second_answer(entries_forged),
            _FORGED,
            "from the install of the first graph on, signatures are wrong; the second graph finds it",
        ),
        (
            "publish",
            wrong_token,
            ("client:unpublished.unauthenticated",),
            "the request carries a wrong token: that is what a client signs with",
        ),
    ],
    "clock jump": [
        (
            step,
            at(step, Scene.jump),
            (f"client:{_SUCCESS.get(step, 'hits')}",),
            _JUMP,
            _scene(works=True, preload=True),
        )
        for step in _STEPS
    ],
}


def _cells() -> Iterator[Cell]:
    for fault, rows in _TABLE.items():
        for step, play, counters, what, *more in rows:
            options: dict[str, Any] = more[0] if more else {}
            yield Cell(fault=fault, step=step, play=play, counters=counters, what=what, **options)
    yield from kernel_cells()


def _all() -> dict[tuple[str, str], Cell]:
    cells: dict[tuple[str, str], Cell] = {}
    for cell in _cells():
        assert (cell.fault, cell.step) not in cells, cell.name
        cells[cell.fault, cell.step] = cell
    return {(fault, step): cells[fault, step] for fault in FAULTS for step in STEPS}


CELLS = _all()
