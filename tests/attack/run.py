"""Runs one process's share of the cases."""

from __future__ import annotations

import collections
import contextlib
import faulthandler
import logging
import os
import signal
from pathlib import Path
from typing import Any

_SLOW_S = 60
"""A case that takes longer is given up. It costs a worker, which has limits of its own, and is no success."""


class _TooSlowError(BaseException):
    pass


def run_batch(
    *, folder: str, first: int, count: int, seed: int, trace: int, compiles: int, old: bool
) -> dict[str, Any]:
    """Run `count` cases from number `first` on; return how far they got, what was changed, and which got through."""
    from tests.attack import bases, pools
    from tests.attack.canary import Canary
    from tests.attack.cases import Generator
    from tests.attack.subjects import Reading, old_operators

    faulthandler.enable()
    logging.disable(logging.CRITICAL)  # torch logs every error that it meets while it traces
    place = Path(folder)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(place / "cache")
    progress = (place / "progress").open("wb", buffering=0)
    (place / "c").mkdir()
    canary = Canary(place / "c")
    graphs, kernels = bases.graphs(), bases.kernels()
    hostile = pools.texts(str(canary.file), canary.port)
    of_graphs = Generator(seed, graphs, hostile)
    of_kernels = Generator(seed, kernels, hostile) if kernels else None
    os.chdir(canary.folder)
    reading = Reading()
    canary.install()
    reached: collections.Counter[str] = collections.Counter()
    fields: collections.Counter[str] = collections.Counter()
    successes: list[str] = []
    signal.signal(signal.SIGALRM, _give_up)
    with old_operators() if old else contextlib.nullcontext():
        for number in range(first, first + count):
            kernel = of_kernels is not None and number % 10 == 0
            case = (of_kernels if kernel and of_kernels else of_graphs).case(number)
            os.pwrite(progress.fileno(), b"%12d" % number, 0)
            signal.alarm(_SLOW_S)
            canary.listening = True
            try:
                if kernel:
                    far, found = reading.kernel(case.message)
                else:
                    far, found = reading.graph(case.message, trace=number % trace == 1)
            except _TooSlowError:
                far, found = "given up", []
            finally:
                canary.listening = False
                signal.alarm(0)
            if compiles and far in {"run", "traced"}:
                compiles -= 1
                canary.listening = canary.compiling = True
                far, more = reading.compile(case.message, place / "cache")
                canary.listening = canary.compiling = False
                found = [*found, *more]
            reached[f"{'kernel' if kernel else 'graph'}: {far}"] += 1
            fields.update(f"{'kernel' if kernel else 'graph'}: {name}" for name in set(case.fields))
            successes += [f"{number} {each}" for each in [*found, *canary.caught()]]
    canary.close()
    progress.close()
    return {"reached": dict(reached), "fields": dict(fields), "successes": successes}


def _give_up(_number: int, _frame: Any) -> None:
    raise _TooSlowError
