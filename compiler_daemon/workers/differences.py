"""Why a worker cannot compile for a trainer, in words that say which of the two is to be changed."""

from __future__ import annotations

from collections.abc import Mapping

_UPGRADED = ("torch", "torch_key", "triton", "python")


def other_environment(worker: Mapping[str, str], trainer: Mapping[str, str]) -> str:
    """Return a sentence about a worker and a trainer of one interpreter that are two environments."""
    differ = [name for name in sorted(worker.keys() | trainer.keys()) if worker.get(name, "") != trainer.get(name, "")]
    return f"the daemon's worker runs in another environment than this process: {_what_to_do(differ, worker, trainer)}"


def _what_to_do(differ: list[str], worker: Mapping[str, str], trainer: Mapping[str, str]) -> str:
    if "compiler" in differ:
        if not trainer.get("compiler"):
            return "this process finds no C++ compiler, and the worker does. Put it on the trainer's PATH"
        if not worker.get("compiler"):
            return "the worker finds no C++ compiler, and this process does. Start the daemon with it on its PATH"
        return "they find two C++ compilers. Start both with the same PATH and CXX"
    if changed := [name for name in _UPGRADED if name in differ]:
        return f"its {changed[0]} was changed since one of them has started. Start the older one anew"
    return (
        f"they differ in {' and '.join(differ) or 'no known part'}, which a variable of the trainer's shell may "
        "decide. Start the daemon from the same shell, or name the variable in COMPILER_DAEMON_WORKER_VARIABLES"
    )
