"""The worker's program around its compiler: it does one job after another, each with its own priority."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from compiler_daemon.worker import confinement
from compiler_daemon.worker.protocol import read_frame, write_frame
from tests.worker.worker_samples import Worker

_WORKER = """
import os, subprocess, threading
from concurrent.futures import ThreadPoolExecutor
import compiler_daemon.worker.__main__ as program

class Telling:
    spent = False

    def run(self, job_id, key, graph, /, *, replay):
        with ThreadPoolExecutor(1) as pool:
            thread = pool.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result()
        child = subprocess.run(["nice"], capture_output=True, text=True).stdout
        yield {"type": "told", "id": job_id, "thread": thread, "child": int(child), "key": key}

program._graphs = lambda: (Telling(), {}, b"")
program.main()
"""


def test_a_job_that_nobody_waits_for_stands_back_with_all_that_it_starts_and_the_next_one_does_not() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with subprocess.Popen([sys.executable, "-c", _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        told: list[Any] = [read_frame(worker.stdout)]
        for number, urgency in enumerate(({}, {"niceness": 5}, {})):
            frame = {"type": "job", "id": number, "key": f"key {number}", "graph": b"", "trace": ""}
            write_frame(worker.stdin, {**frame, **urgency})
            worker.stdin.flush()
            told.append(read_frame(worker.stdout))
        worker.stdin.close()
        assert worker.wait(timeout=30) == 0

    assert told[0]["type"] == "hello"
    assert [(one["thread"] - before, one["child"] - before) for one in told[1:]] == [(0, 0), (5, 5), (0, 0)]


def test_a_signal_to_all_processes_of_a_job_ends_neither_a_worker_nor_its_compilers() -> None:
    code = _WORKER.replace('["nice"]', '["sh", "-c", "kill -TERM $$ $PPID; echo 7"]')
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert read_frame(worker.stdout) is not None
        write_frame(worker.stdin, {"type": "job", "id": 1, "key": "key", "graph": b"", "trace": ""})
        worker.stdin.flush()
        told: Any = read_frame(worker.stdout)
        worker.stdin.close()
        ended = worker.wait(timeout=30)

    assert (told["type"], told["child"], ended) == ("told", 7, 0)


def test_the_worker_of_these_tests_is_confined_where_the_kernel_can(worker: Worker) -> None:
    assert worker.hello["unconfined"] == confinement.why_not()
