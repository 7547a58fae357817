"""Processes that need Triton kernels, with a daemon that is healthy, goes away, stops answering, or lies."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benches.harness.daemon import ServedDaemon
from tests.e2e.flipping_proxy import FlippingProxy
from tests.kernels.conftest import Bench, needs_triton

pytestmark = needs_triton

FEW = ("vector_add", "softmax", "attention")


def wait_until(condition: Callable[[], Any], *, what: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.01)
    pytest.fail(f"it did not happen that {what}")


def compiles_started(daemon: ServedDaemon) -> int:
    return int(daemon.status().counters["compiles_started"])


def test_processes_at_once_have_each_kernel_compiled_once_and_a_later_one_with_empty_caches_compiles_none(
    bench: Bench,
) -> None:
    daemon, targets = bench.daemon(), "cuda:80,cuda:90,hip:gfx942"

    at_once = [running.wait() for running in [bench.start(targets, *FEW, daemon=daemon) for _ in range(4)]]
    later = bench.run(targets, *FEW, daemon=daemon)
    alone = bench.run(targets, *FEW)

    assert [outcome.code for outcome in at_once] == [0] * 4
    assert [outcome.result["compiles"] for outcome in (*at_once, later, alone)] == [0, 0, 0, 0, 0, 9]
    assert compiles_started(daemon) == 9
    assert later.report["kernel_hits"] == 9
    assert later.report["seconds_saved"] > 0
    # Every file of every kernel, including Triton's own JSON, equals what a compile in this process makes.
    assert all(outcome.result["files"] == alone.result["files"] for outcome in (*at_once, later))
    assert len(alone.result["files"]) == 63  # source, five stages and metadata of each kernel


def test_with_its_own_files_nobody_is_asked_and_half_a_group_is_completed(
    bench: Bench, daemon: ServedDaemon, tmp_path: Path
) -> None:
    cache = tmp_path / "own"
    bench.run("cuda:80", "softmax", daemon=daemon, triton_dir=cache)

    whole = bench.run("cuda:80", "softmax", daemon=daemon, triton_dir=cache)
    (cubin,) = cache.glob("*/softmax.cubin")
    expected = cubin.read_bytes()
    cubin.unlink()
    half = bench.run("cuda:80", "softmax", daemon=daemon, triton_dir=cache)

    assert (whole.report, whole.result["hits"]) == ({}, 1)
    assert half.report["kernel_hits"] == 1
    assert cubin.read_bytes() == expected


def test_what_another_process_may_not_compile_is_compiled_here_and_published(
    bench: Bench, daemon: ServedDaemon
) -> None:
    first = bench.run("cuda:80", "softmax", daemon=daemon, DISABLE_PTXAS_OPT="1")
    second = bench.run("cuda:80", "softmax", daemon=daemon, DISABLE_PTXAS_OPT="1")
    plain = bench.run("cuda:80", "softmax", daemon=daemon)

    assert (first.report["kernels_here"], first.report["published"]) == (1, 1)
    assert (first.report["refused"], first.report["kernels_refused"]) == ({}, {"not_carried": 1})
    assert (second.report["kernel_hits"], second.result["compiles"]) == (1, 0)
    assert second.result["files"] == first.result["files"]
    assert plain.result["files"]["cuda:80 softmax.cubin"] != first.result["files"]["cuda:80 softmax.cubin"]


@pytest.mark.parametrize("what", ["WITH_HOOK", "TRITON_ALWAYS_COMPILE", "TRITON_KERNEL_OVERRIDE"])
def test_what_the_key_does_not_say_is_neither_served_nor_published(
    bench: Bench, daemon: ServedDaemon, what: str
) -> None:
    bench.run("cuda:80", "softmax", daemon=daemon)

    outcome = bench.run("cuda:80", "softmax", daemon=daemon, **{what: "1"})

    assert outcome.result["compiles"] == 1
    assert [outcome.report.get(name, 0) for name in ("kernel_hits", "kernels_by_daemon", "published")] == [0, 0, 0]


def test_a_daemon_that_takes_nothing_from_clients_serves_and_compiles_nothing(bench: Bench) -> None:
    daemon = bench.daemon("--no-publish")

    outcome = bench.run("cuda:80", "softmax", daemon=daemon)

    assert (outcome.result["compiles"], outcome.report["kernels_here"]) == (1, 1)
    assert outcome.report["fallbacks"] == {}
    assert daemon.status().artifacts == 0


def test_a_daemon_killed_during_a_compile_costs_nothing_but_time(bench: Bench) -> None:
    daemon = bench.daemon()
    running = bench.start("cuda:90", *FEW, daemon=daemon)
    wait_until(lambda: compiles_started(daemon), what="a compile started")

    daemon.kill()
    outcome = running.wait()

    assert outcome.code == 0, outcome.err
    assert outcome.result["compiles"] == outcome.report["kernels_here"] >= 1
    assert outcome.report["fallbacks"].keys() <= {"unavailable", "absent"}
    assert len(outcome.result["files"]) == 21


@pytest.mark.parametrize("moment", ["before", "during"])
def test_a_daemon_that_hangs_is_given_up(bench: Bench, moment: str) -> None:
    daemon = bench.daemon()
    if moment == "before":
        os.kill(daemon.pid, signal.SIGSTOP)
    running = bench.start("cuda:80", *FEW, daemon=daemon)
    if moment == "during":
        wait_until(lambda: compiles_started(daemon), what="a compile started")
        os.kill(daemon.pid, signal.SIGSTOP)
    outcome = running.wait()

    assert outcome.code == 0, outcome.err
    assert outcome.result["compiles"] >= 1
    assert outcome.report["fallbacks"]["timeout"] >= 1
    assert outcome.report["seconds_waited"] < 40


def test_a_changed_kernel_is_never_loaded(bench: Bench, daemon: ServedDaemon, tmp_path: Path) -> None:
    expected = bench.run("cuda:90", "attention", daemon=daemon)
    with FlippingProxy(
        tmp_path / "p.sock", str(daemon.directory / "daemon.sock"), after=b"\x7fELF\x02\x01\x01"
    ) as proxy:
        outcome = bench.run(
            "cuda:90", "attention", daemon=daemon, COMPILER_DAEMON_ADDRESS=f"unix:{tmp_path / 'p.sock'}"
        )

    assert proxy.flipped >= 1
    assert outcome.report["fallbacks"]["bad_digest"] >= 1
    assert outcome.result["compiles"] == 1
    assert outcome.result["files"] == expected.result["files"]


def test_another_daemons_signature_is_not_believed(bench: Bench) -> None:
    daemon = bench.daemon()
    bench.run("cuda:80", "softmax", daemon=daemon)
    secret = daemon.directory / "secret"
    secret.write_bytes(bytes(32))  # the client reads this file; the daemon keeps its own secret in memory

    outcome = bench.run("cuda:80", "softmax", daemon=daemon)

    assert outcome.report["fallbacks"]["bad_signature"] >= 1
    assert (outcome.result["compiles"], outcome.report["kernel_hits"]) == (1, 0)


def test_a_cache_manager_of_the_users_stays(bench: Bench, daemon: ServedDaemon) -> None:
    outcome = bench.run(
        "cuda:80", "softmax", daemon=daemon, TRITON_CACHE_MANAGER="triton.runtime.cache:FileCacheManager"
    )

    assert (outcome.result["compiles"], outcome.report) == (1, {})
    assert outcome.err.count("kernels are not served") == 1


def test_an_unknown_version_or_a_changed_signature_leaves_the_hook_off_and_says_so_once(
    bench: Bench, daemon: ServedDaemon
) -> None:
    newer = bench.run("cuda:80", "softmax", daemon=daemon, PRETEND="version")
    changed = bench.run("cuda:80", "softmax", daemon=daemon, PRETEND="signature")

    for outcome, word in ((newer, "triton 4.0.0"), (changed, "make_ir takes")):
        assert (outcome.result["compiles"], outcome.report) == (1, {})
        assert outcome.err.count("kernels are not served") == 1
        assert word in outcome.err


def test_timings_are_measured_once_and_a_second_process_measures_nothing(bench: Bench, daemon: ServedDaemon) -> None:
    first = bench.run(script="tuned.py", daemon=daemon, SIZES="1000")
    second = bench.run(script="tuned.py", daemon=daemon, SIZES="1000")
    other = bench.run(script="tuned.py", daemon=daemon, SIZES="1001")
    by_user = bench.run(script="tuned.py", daemon=daemon, SIZES="1000", TRITON_CACHE_AUTOTUNING="0")

    # All candidates had arrived before the first one was timed.
    assert first.result == {"timed": 3, "best": 128, "compiles": 0, "ready": [3]}
    assert first.report["kernels_by_daemon"] == 3
    assert second.result == {"timed": 0, "best": 128, "compiles": 0, "ready": []}
    assert (second.report["tuning_hits"], second.report["kernel_hits"]) == (1, 1)  # only the winner is needed
    assert (other.result["timed"], other.report["tuning_hits"]) == (3, 0)
    assert by_user.result["timed"] == 3


def test_show_says_what_a_kernel_takes(bench: Bench, daemon: ServedDaemon) -> None:
    bench.run("cuda:80", "layer_norm", daemon=daemon)
    command = [sys.executable, "-m", "compiler_daemon"]
    place = ["--dir", str(daemon.directory)]

    listed = subprocess.run(
        [*command, "ls", "--kind", "kernel", "--json", *place], capture_output=True, text=True, check=True
    )
    shown = "".join(
        subprocess.run([*command, "show", row["key"], *place], capture_output=True, text=True, check=True).stdout
        for row in json.loads(listed.stdout)["artifacts"]
    )

    assert "layer_norm" in shown
    for word in ("registers", "shared", "spills", "stages", "cuda:80", "cubin", "triton kernels", "options"):
        assert word in shown


def test_what_is_shown_of_a_kernel_is_what_nvidias_own_tool_says_of_it(
    bench: Bench, daemon: ServedDaemon, tmp_path: Path
) -> None:
    from triton import knobs

    bench.run("cuda:90", "spilling", daemon=daemon, triton_dir=tmp_path / "cache")
    (cubin,) = (tmp_path / "cache").glob("*/*.cubin")
    asked = [knobs.nvidia.cuobjdump.path, "-res-usage", cubin]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    registers, frame = (int(re.findall(rf"{word}:(\d+)", said)[0]) for word in ("REG", "STACK"))
    command = [sys.executable, "-m", "compiler_daemon"]
    place = ["--dir", str(daemon.directory), "--json"]
    listed = subprocess.run([*command, "ls", "--kind", "kernel", *place], capture_output=True, text=True, check=True)
    newest = json.loads(listed.stdout)["artifacts"][0]["key"]
    shown = subprocess.run([*command, "show", newest, *place], capture_output=True, text=True, check=True)

    about = json.loads(shown.stdout)["artifacts"][0]["about"]
    assert (about["kernel"], about["registers"], about["stack_bytes"]) == ("spilling", registers, frame)
    assert about["spills"] == frame // 4 > 0


def test_show_says_what_an_autotuner_measured(bench: Bench) -> None:
    daemon = bench.daemon()
    bench.run(script="tuned.py", daemon=daemon, SIZES="1000")
    command = [sys.executable, "-m", "compiler_daemon"]
    place = ["--dir", str(daemon.directory)]

    listed = subprocess.run(
        [*command, "ls", "--kind", "tuning", "--json", *place], capture_output=True, text=True, check=True
    )
    (row,) = json.loads(listed.stdout)["artifacts"]
    shown = subprocess.run([*command, "show", row["id"], *place], capture_output=True, text=True, check=True).stdout

    assert "graph" not in shown
    for line in (
        r"kernel +scaled",
        r"tuned for +1000, ",
        r"candidates +3",
        r"best +BLOCK=128, num_warps=4",
        r"is +tuning",
    ):
        assert re.search(line, shown), shown


def test_a_kernel_for_a_blackwell_is_compiled_by_a_daemon_without_any_gpu_and_read_back_whole(
    bench: Bench, daemon: ServedDaemon
) -> None:
    target = "cuda:100"

    made = bench.run(target, "attention", daemon=daemon)
    again = bench.run(target, "attention", daemon=daemon)
    alone = bench.run(target, "attention")

    assert (made.report["kernels_by_daemon"], again.report["kernel_hits"]) == (1, 1)
    assert (again.result["compiles"], alone.result["compiles"]) == (0, 1)
    assert made.result["files"] == again.result["files"]
    # NVIDIA's assembler for these GPUs makes different binaries of the same text, also when it is run by hand.
    binary = "cuda:100 attention.cubin"
    texts = {name: digest for name, digest in alone.result["files"].items() if name != binary}
    assert binary in alone.result["files"]
    assert {name: digest for name, digest in made.result["files"].items() if name != binary} == texts
