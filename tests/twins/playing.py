"""Plays many twins, several at a time, with a line for each and a limit of time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from rich.console import Console

from tests.twins.judging import Result, play, play_briefly
from tests.twins.stage import Stage
from tests.twins.thing import Twins


def play_all(
    stage: Stage,
    programs: Sequence[Twins],
    *,
    jobs: int,
    minutes: float = 0,
    talk: Console | None = None,
    briefly: bool = False,
) -> Iterator[Result]:
    """Yield the result of each pair; begin no program after so many minutes, if a number is given."""
    one = play_briefly if briefly else play
    began = time.monotonic()
    waiting = list(reversed(programs))
    running: set[Future[list[Result]]] = set()
    done = 0
    with ThreadPoolExecutor(jobs) as pool:
        while waiting or running:
            late = minutes and time.monotonic() - began > minutes * 60
            while waiting and len(running) < jobs and not late:
                running.add(pool.submit(one, stage, waiting.pop()))
            if not running:
                return
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                done += 1
                for result in future.result():
                    if talk:
                        talk.print(_line(result, done, len(programs)), markup=False, soft_wrap=True)
                    yield result


def _line(result: Result, done: int, of: int) -> str:
    said = "differs" if result.differences else "hit lost" if result.lost else "same"
    about = (*result.differences[:1], *result.lost[:1])
    return f"{done:4}/{of}  {said:8}  {result.name} ({result.seconds:.0f} s)" + "".join(
        f"\n          {a}" for a in about
    )
