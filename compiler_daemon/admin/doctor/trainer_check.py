"""The check of `doctor` that finds what no other can: a trainer with a tiny graph, from `import torch` to its result.

Guarantees: it takes at most a few minutes, writes nothing but into a folder of its own and the daemon's store, and what
the trainer says of tokens and secrets is nothing, as always.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compiler_daemon.config import ADDRESS_VARIABLE, DIRECTORY_VARIABLE, DaemonLocation
from compiler_daemon.text import numbers
from compiler_daemon.text.findings import Finding, ok, problem

_LIMIT_S = 180.0
_PROGRAM = "import torch\nassert torch.compile(lambda x: x * 3 + 1)(torch.arange(8.0)).sum() == 92\n"
_SPEAKER = "compile daemon: "
_NOT_TAKEN_OVER = ("TORCH_COMPILE_CLIENT_WARM", "TORCH_COMPILE_CLIENT_ASYNC", "TORCH_COMPILE_CLIENT_VERIFY")
"""With these a graph does not end in a hit or a compile that is waited for, and that is what is looked at."""


def check_trainer(place: DaemonLocation, environ: Mapping[str, str], *, limit_s: float = _LIMIT_S) -> Finding:
    """Whether a trainer of this interpreter and shell gets its graph from the daemon of a place."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        program, report = Path(folder) / "doctor.py", Path(folder) / "report.json"
        program.write_text(_PROGRAM)
        own = {name: value for name, value in environ.items() if name not in _NOT_TAKEN_OVER}
        own |= {
            DIRECTORY_VARIABLE: str(place.directory),
            "TORCH_COMPILE_CLIENT": "1",
            "TORCH_COMPILE_CLIENT_REPORT": str(report),
            "TORCH_COMPILE_CLIENT_LOG": "info",
            "TORCHINDUCTOR_CACHE_DIR": os.path.join(folder, "inductor"),
            "TRITON_CACHE_DIR": os.path.join(folder, "triton"),
        }
        if place.address is not None:
            own[ADDRESS_VARIABLE] = str(place.address)
        try:
            done = subprocess.run(
                [sys.executable, str(program)],
                env=own,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return problem("trainer", f"a tiny graph was not compiled within {limit_s:g} s: look at DIR/log")
        counters = _read(report)
    return _judged(done.returncode, done.stderr, counters, time.monotonic() - begin)


def _judged(code: int, said: str, counters: Mapping[str, Any], took_s: float) -> Finding:
    lines = said.strip().splitlines()
    words = [line.removeprefix(_SPEAKER) for line in lines if line.startswith(_SPEAKER)]
    if code:
        return problem("trainer", f"a trainer with a tiny graph failed: {lines[-1] if lines else f'exit code {code}'}")
    if counters.get("hits"):
        return ok("trainer", f"a tiny graph came from the daemon's store; {numbers.roughly(took_s)} in all")
    if counters.get("compiled_by_daemon"):
        return ok("trainer", f"a tiny graph was compiled by the daemon; {numbers.roughly(took_s)} in all")
    if not counters.get("graphs"):
        why = (
            words or lines[-1:] or ["torch did not start the client: the checks of `client` and `environment` say why"]
        )
        return problem("trainer", f"a trainer of this shell does without the daemon: {why[0]}")
    reasons = {**counters.get("fallbacks", {}), **counters.get("refused", {})}
    why = words or [", ".join(reasons) or "nothing says why"]
    return problem("trainer", f"torch compiled a tiny graph itself: {why[0]}")


def _read(report: Path) -> dict[str, Any]:
    try:
        counters = json.loads(report.read_text())
    except (OSError, ValueError):
        return {}
    return counters if isinstance(counters, dict) else {}
