"""What the client costs where it has nothing to do: at import, with the daemon absent, with everything local, per step.

    python -m benches.overhead

Rows: `off` (the variable unset), `absent` (set, and no daemon), `idle` (the client's own import alone), `local_off` and
`local_on` (a compiled trainer whose graphs torch's local cache has, without and with client and daemon). Figures are
milliseconds of a whole process, and of a steady step.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benches.contest import ContestError, Home, Ratio, Row, Started, arguments, finish, talk
from benches.served import ServedDaemon, ServeError, clean_environment

ROWS = ("off", "absent", "client_import", "local_off", "local_on")
_STEPS = 30
_TORCH = "import time; t = time.perf_counter(); import torch; print(time.perf_counter() - t)"
_CLIENT = "import time; t = time.perf_counter(); import compile_client; print(time.perf_counter() - t)"


def main(argv: list[str] | None = None) -> int:
    """Run the bench; return the exit code."""
    parser = arguments("overhead", __doc__, ROWS, rounds=9)
    options = parser.parse_args(argv)
    rows = {name: Row() for name in options.rows}
    try:
        with tempfile.TemporaryDirectory(prefix="overhead-") as text:
            folder = Path(text)
            _rounds(folder, rows, options.rounds)
    except (ContestError, ServeError) as error:
        talk.print(f"[red]{error}[/red]", soft_wrap=True)
        return 1
    more = {}
    if {"off", "absent"} <= set(rows):
        added = (rows["absent"].median("process_ms") - rows["off"].median("process_ms"),)
        more = {"absent_adds_ms": round(added[0], 2), "absent_adds_goal_ms": 10}
    ratios = [Ratio("local_on", "local_off", None, "step_ms"), Ratio("local_on", "local_off", None, "process_ms")]
    finish("overhead", rows, ratios, options.out, **more)
    return 0


def _rounds(folder: Path, rows: dict[str, Row], rounds: int) -> None:
    absent = {"TORCH_COMPILE_CLIENT": "1", "COMPILER_DAEMON_DIR": str(folder / "nobody")}
    local: dict[str, tuple[Home, dict[str, str]]] = {}
    daemon = ServedDaemon(folder / "served")
    if "local_on" in rows:
        daemon.start()
    try:
        for name in ("local_off", "local_on"):
            if name in rows:
                home = Home.fresh(folder / name)
                client = {"TORCH_COMPILE_CLIENT": "1", "COMPILER_DAEMON_DIR": str(daemon.directory)}
                local[name] = (home, client if name == "local_on" else {})
                _trainer(*local[name])  # fills its caches
        for number in range(rounds):
            for name, row in rows.items():
                if name in local:
                    row.add(_trainer(*local[name]))
                else:
                    row.add(_python(_CLIENT if name == "client_import" else _TORCH, absent if name == "absent" else {}))
            talk.print(f"round {number + 1} of {rounds}")
    finally:
        if "local_on" in rows:
            daemon.stop()


def _python(program: str, more: dict[str, str]) -> dict[str, float]:
    """Run a few lines in a fresh process; return milliseconds of the process and of what they print."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program], env=clean_environment() | more, capture_output=True, text=True, check=True
    )
    return {"process_ms": (time.perf_counter() - begun) * 1000, "import_ms": float(done.stdout) * 1000}


def _trainer(home: Home, more: dict[str, str]) -> dict[str, float]:
    command = ["-m", "benches.startup_trainer", "--resolutions", "16", "--steps", str(_STEPS)]
    ended = Started(command, home, **more).end()
    if ended.result["cpp_builds"] and (home.path / "filled").exists():
        raise ContestError(f"a trainer built something although all was local: {json.dumps(ended.result)}")
    (home.path / "filled").touch()
    steady = sorted(taken for _, taken in ended.result["steps"][5:])
    return {"process_ms": ended.seconds * 1000, "step_ms": steady[len(steady) // 2] * 1000}


if __name__ == "__main__":
    sys.exit(main())
