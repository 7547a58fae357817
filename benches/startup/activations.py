"""What a second process computes whose activation is another one: with torch's precompile, and with traces skipped.

    python -m benches.startup.activations --out benches/results/speed/activations.json

Two programs: the activation is a global of the module, or an attribute of the object. The first process compiles with
one, the second one starts with another. What it computes is compared with eager; whoever still has the first one's code
is wrong. Ways: `torch_precompile` (`TORCH_CACHING_PRECOMPILE=1`, the same folders), and `daemon_skip` (empty folders,
`TORCH_COMPILE_CLIENT_SKIP_TRACE=1`), with what the client said of it. Exit code 1 where the daemon's is wrong.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benches.harness.daemon import ServedDaemon, ServeError
from benches.harness.machine import machine
from benches.harness.measure import BenchError, CacheDirs, RunningTrainer, TrainerFailedError
from benches.harness.output import complain, last_line, say, write_document
from benches.harness.processes import run_bench

_PAIRS = {"module": ("silu", "gelu"), "attribute": ("sigmoid", "tanh")}
"""What the first process has, and what the second."""
_WAYS = ("torch_precompile", "daemon_skip")
_NO_TRACE_FITS = "no stored trace fits"


def main(argv: list[str] | None = None) -> int:
    """Run the programs; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benches.startup.activations", description=__doc__)
    parser.add_argument("--out", type=Path, help="also write the JSON document to this file; `-` is stdout")
    options = parser.parse_args(argv)
    rows = []
    try:
        for where in _PAIRS:
            for way in _WAYS:
                with tempfile.TemporaryDirectory(prefix="activations-") as folder:
                    rows.append(_row(Path(folder), where, way))
                say(f"{where}, {way}: {rows[-1]['computed']}, {rows[-1]['said'] or 'nothing said'}")
    except (BenchError, ServeError) as error:
        complain(error)
        return 1
    document = {"bench": "activations", "machine": machine(), "rows": rows}
    if options.out is not None:
        write_document(options.out, document)
    last_line(document)
    return 1 if any(row["way"] == "daemon_skip" and row["computed"] != "eager's" for row in rows) else 0


def _row(folder: Path, where: str, way: str) -> dict[str, Any]:
    then, now = _PAIRS[where]
    said = ""
    if way == "torch_precompile":
        home, precompile = CacheDirs.fresh(folder / "torch"), {"TORCH_CACHING_PRECOMPILE": "1"}
        _run(home, where, then, "--save-portable", str(folder / "file"), **precompile)
        try:
            found = _run(home, where, now, **precompile)
        except TrainerFailedError as error:
            return {"where": where, "way": way, "computed": "nothing: it ended", "said": error.last_line}
    else:
        daemon = ServedDaemon(folder / "served")
        daemon.start()
        client = {
            "TORCH_COMPILE_CLIENT": "1",
            "TORCH_COMPILE_CLIENT_SKIP_TRACE": "1",
            "TORCH_COMPILE_CLIENT_LOG": "debug",
            "COMPILER_DAEMON_DIR": str(daemon.directory),
        }
        try:
            _run(CacheDirs.fresh(folder / "first"), where, then, **client)
            home = CacheDirs.fresh(folder / "second")
            found = _run(home, where, now, **client)
        finally:
            daemon.stop()
        lines = (home.path / "log").read_text().splitlines()
        said = next((line.partition(_NO_TRACE_FITS)[2].strip(" :") for line in lines if _NO_TRACE_FITS in line), "")
    computed = "eager's" if found["as_eager"] else "the first process's: wrong"
    return {"where": where, "way": way, "computed": computed, "said": said, **found}


def _run(home: CacheDirs, *arguments: str, **environment: str) -> dict[str, Any]:
    command = ["-m", "benches.startup.activation_program", *arguments]
    return RunningTrainer(command, home, home.path / "log", **environment).end().result


if __name__ == "__main__":
    run_bench(main)
