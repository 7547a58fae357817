"""The engines of a tier, the only modules that know obstore or redis-py. Enter by `open_engine`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

from compiler_daemon.errors import UsageError
from compiler_daemon.tier.address import TierAddress
from compiler_daemon.tier.engines.engine import Engine, EngineTimeouts, Stored

__all__ = ["Engine", "EngineTimeouts", "Stored", "check_packing", "open_engine"]


def check_packing() -> None:
    """Raise `UsageError` where the library is not installed that objects are packed with."""
    if importlib.util.find_spec("zstandard") is None:
        raise UsageError("a tier needs zstandard: `pip install 'compiler-daemon[s3]'`")


def open_engine(
    address: TierAddress, environ: Mapping[str, str] | None = None, timeouts: EngineTimeouts | None = None
) -> Engine:
    """Return the engine of an address, which was not asked for anything yet.

    Raises `UsageError` where its library is not installed, and `TierError` where its settings are of no use.
    """
    try:
        match address.scheme:
            case "file":
                from compiler_daemon.tier.engines.directory import DirectoryEngine

                return DirectoryEngine(Path(address.place), timeouts)
            case "redis" | "rediss" | "unix":
                from compiler_daemon.tier.engines.redis import RedisEngine

                return RedisEngine(address, timeouts)
            case _:
                from compiler_daemon.tier.engines.objects import ObjectsEngine

                return ObjectsEngine(address, os.environ if environ is None else environ, timeouts)
    except ModuleNotFoundError as error:
        extra = "redis" if error.name == "redis" else "s3"
        raise UsageError(f"{address} needs {error.name}: `pip install 'compiler-daemon[{extra}]'`") from error
