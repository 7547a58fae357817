"""One model: its folders, its daemon, and one way to start its trainer for each row."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benches.harness.daemon import ServedDaemon
from benches.harness.measure import BenchError, CacheDirs, RunningTrainer, TrainerFailedError, TrainerResult
from benches.startup.journal import Journal
from benches.startup.rows import MAY_FAIL, WITHOUT, needed

_AT_ONCE = 8
_SKIP = {"TORCH_COMPILE_CLIENT_SKIP_TRACE": "1"}
_PRECOMPILE = {"TORCH_CACHING_PRECOMPILE": "1"}
_TRACES = ("skipped", "missed")


class Startup:
    """Starts the trainer of one model. What a start leaves behind stays in the folder, also for a later process."""

    def __init__(self, folder: Path, model: str, resolutions: str, redis: Path | None, journal: Journal) -> None:
        """Nothing is started yet."""
        self._folder = folder
        name, _, depth = model.partition("@")
        self._command = ["-m", "benches.startup.trainer", "--model", name, "--resolutions", resolutions]
        self._command += ["--depth", depth] if depth else []
        self._redis = redis
        self._journal = journal
        self._daemon: ServedDaemon | None = None

    def run(self, row: str, say: Callable[[str], None]) -> dict[str, Any]:
        """Start the trainer in one way, after what it lives on, wait for it, and return its figures with its losses."""
        try:
            self._prepare(row, say)
            ended = self._started(row)
        except TrainerFailedError as error:
            if row not in MAY_FAIL:
                raise
            return {"failed": error.last_line or str(error)}
        ended.result.pop("steps", None)
        return {**ended.result, "process_s": ended.seconds, "cpu_s": ended.cpu_s}

    def _prepare(self, row: str, say: Callable[[str], None]) -> None:
        before = needed(row)
        if before and self._journal.left(before) is None:
            self._prepare(before, say)
            say(f"{before}, for the rows that need it")
            self._started(before)

    def _started(self, row: str) -> TrainerResult:
        return self._without(row.removeprefix(WITHOUT)) if row.startswith(WITHOUT) else self._ways()[row]()

    def close(self) -> None:
        """Stop the daemon."""
        if self._daemon is not None:
            self._daemon.stop()
            self._daemon = None

    def _ways(self) -> dict[str, Callable[[], TrainerResult]]:
        portable, precompiled = (str(self._folder / name) for name in ("portable.bin", "precompiled.bin"))
        return {
            "eager": lambda: self._start(self._fresh("eager"), "--eager"),
            "traced": lambda: self._start(self._fresh("eager"), "--traced"),
            "torch_cold": lambda: self._leaving("torch_cold", "torch", "--save-portable", portable),
            "torch_local_warm": lambda: self._start(self._kept("torch")),
            "torch_portable_empty": lambda: self._start(self._fresh("portable"), "--load-portable", portable),
            "torch_redis_filled": lambda: self._leaving("torch_redis_filled", "redis", **self._remote()),
            "torch_redis_empty": lambda: self._start(self._fresh("redis"), **self._remote()),
            "torch_precompile_cold": lambda: self._leaving(
                "torch_precompile_cold", "precompile", "--save-portable", precompiled, **_PRECOMPILE
            ),
            "torch_precompile_local": lambda: self._start(self._kept("precompile"), **_PRECOMPILE),
            "torch_precompile_portable": lambda: self._start(
                self._fresh("portable"), "--load-portable", precompiled, **_PRECOMPILE
            ),
            "daemon_cold": self._daemon_cold,
            "daemon_recorded": self._daemon_recorded,
            "daemon_warm_empty": lambda: self._served(self._fresh("daemon")),
            "daemon_warm_local": lambda: self._served(self._kept("daemon")),
            "daemon_skip_empty": lambda: self._served(self._fresh("daemon"), **_SKIP),
            "eager_x8": lambda: self._together(
                lambda number: RunningTrainer([*self._command, "--eager"], self._fresh(f"eager-{number}"))
            ),
            "daemon_skip_x8": lambda: self._together(
                lambda number: self._client(self._fresh(f"daemon-{number}"), **_SKIP)
            ),
        }

    def _fresh(self, name: str) -> CacheDirs:
        return CacheDirs.fresh(self._folder / name)

    def _kept(self, name: str) -> CacheDirs:
        return CacheDirs(self._folder / name)

    def _start(self, home: CacheDirs, *more: str, **environment: str) -> TrainerResult:
        return RunningTrainer([*self._command, *more], home, home.path / "log", **environment).end()

    def _leaving(self, what: str, name: str, *more: str, **environment: str) -> TrainerResult:
        ended = self._start(self._fresh(name), *more, **environment)
        self._journal.leave(what)
        return ended

    def _remote(self) -> dict[str, str]:
        return {
            "TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE": "1",
            "TORCHINDUCTOR_AUTOGRAD_REMOTE_CACHE": "1",
            "TORCHINDUCTOR_REDIS_URL": f"unix://{self._redis}",
        }

    def _daemon_cold(self) -> TrainerResult:
        self.close()
        before = self._journal.left("daemon_cold")
        folder = self._folder / f"served-{int(before.partition('-')[2]) + 1 if before else 1}"
        shutil.rmtree(folder, ignore_errors=True)
        daemon = self._daemon = ServedDaemon(folder)
        daemon.start()
        ended = self._served(self._fresh("daemon"))
        self._journal.leave("daemon_cold", folder.name)
        self._recorded_by(daemon)
        return ended

    def _daemon_recorded(self) -> TrainerResult:
        """Return a start that traced, and told the daemon what came of it: each daemon gets one when it is filled."""
        return self._recorded_by(self._served_by())

    def _recorded_by(self, daemon: ServedDaemon) -> TrainerResult:
        ended = self._served(self._fresh("recorded"), **_SKIP)
        self._journal.leave("daemon_recorded", daemon.directory.parent.name)
        return ended

    def _served_by(self) -> ServedDaemon:
        if self._daemon is None:
            there = self._journal.left("daemon_cold")
            assert there is not None, "a row that needs a daemon was run before there was one"
            self._daemon = ServedDaemon(self._folder / there)
            self._daemon.start()
        return self._daemon

    def _without(self, part: str) -> TrainerResult:
        """Start the trainer as `daemon_skip_empty` does, less one part of the fast start."""
        if part == "traces":
            return self._served(self._fresh("daemon"))
        return self._served(self._fresh("daemon"), TORCH_COMPILE_CLIENT_WITHOUT=part, **_SKIP)

    def _client(self, home: CacheDirs, **more: str) -> RunningTrainer:
        daemon = self._served_by()
        return RunningTrainer(
            self._command,
            home,
            home.path / "log",
            TORCH_COMPILE_CLIENT="1",
            TORCH_COMPILE_CLIENT_REPORT=str(home.path / "report.json"),
            COMPILER_DAEMON_DIR=str(daemon.directory),
            **more,
        )

    def _served(self, home: CacheDirs, **more: str) -> TrainerResult:
        ended = self._client(home, **more).end()
        client = json.loads((home.path / "report.json").read_text())
        ended.result.update({f"client_{name}": client[name] for name in ("hits", "compiled_here", "seconds_waited")})
        ended.result.update({f"client_{name}_s": seconds for name, seconds in client["phases"].items()})
        if (traces := client.get("traces")) is not None:
            ended.result.update({f"traces_{name}": traces[name] for name in _TRACES})
            ended.result["traces_refused"] = sum(traces["refused"].values())
        if client["fallbacks"]:
            raise BenchError(f"the client counted failures with a daemon that is well: {client['fallbacks']}")
        return ended

    def _together(self, start: Callable[[int], RunningTrainer]) -> TrainerResult:
        """Start several at once; the seconds are from the first one's start to the last one's end."""
        begun = time.monotonic()
        ended = [one.end() for one in [start(number) for number in range(_AT_ONCE)]]
        seconds = time.monotonic() - begun
        losses = [one.result["losses"] for one in ended]
        if any(found != losses[0] for found in losses):
            raise BenchError(f"the losses differ: {losses}")
        sums = {
            name: sum(one.result[name] for one in ended) for name in ("frames_traced", "cpp_builds", "triton_compiles")
        }
        result = {"seconds": seconds, "losses": losses[0], **sums}
        return TrainerResult(seconds, sum(one.cpu_s for one in ended), result)
