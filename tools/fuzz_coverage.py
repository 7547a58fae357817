"""Fuzz the same readers as `fuzz_wire`, led by coverage: what reaches new code is kept and broken further.

    pip install atheris
    python tools/fuzz_coverage.py [--cases N] [--out docs/trust] [TARGET ...]

Each target runs in a process of its own, because libFuzzer ends its process. What it says goes to stderr; the last line
on stdout is one JSON document. Exit code 1 where a reader raised anything but `MalformedError`, took more than ten
seconds for one case, or made the process larger than 1.5 GiB.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TARGETS = ("graph", "manifest", "facts", "frames")
_STATISTICS = {
    "number_of_executed_units": "cases",
    "new_units_added": "found_new_code",
    "peak_rss_mb": "peak_rss_mib",
}


def main() -> int:
    """Run the targets one after the other; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default all)")
    parser.add_argument("--cases", type=int, default=1_000_000, help="for each target (default 1000000)")
    parser.add_argument("--out", type=Path, help="folder for fuzz-coverage.json")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options, more = parser.parse_known_args()
    chosen = options.targets or TARGETS
    if options.inside:
        _fuzz(chosen[0], more)
    if more or set(chosen) - set(TARGETS):
        parser.error(f"nobody knows {' '.join([*more, *(name for name in chosen if name not in TARGETS)])}")
    found = {name: _run(name, options.cases) for name in chosen}
    text = json.dumps(found, indent=1)
    if options.out is not None:
        (options.out / "fuzz-coverage.json").write_text(text + "\n")
    sys.stdout.write(json.dumps(found) + "\n")
    return 0 if all(one["crashes"] == 0 and one["cases"] >= options.cases for one in found.values()) else 1


def _run(name: str, cases: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        limits = [f"-runs={cases}", "-max_len=20000", "-timeout=10", "-rss_limit_mb=1536", "-print_final_stats=1"]
        command = [sys.executable, __file__, name, "--inside", *limits, folder]
        done = subprocess.run(command, stderr=subprocess.PIPE, cwd=folder, check=False)
    said = done.stderr.decode("utf-8", "replace")
    sys.stderr.write("".join(line for line in said.splitlines(keepends=True) if not line.startswith(("#", "\tNEW"))))
    statistics = dict(re.findall(r"^stat::(\w+):\s+(\d+)$", said, re.MULTILINE))
    figures = {ours: int(statistics.get(theirs, 0)) for theirs, ours in _STATISTICS.items()}
    return {**figures, "crashes": int(done.returncode != 0)}


def _fuzz(name: str, arguments: list[str]) -> None:
    """Never return: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["compile_wire", "compiler_daemon.worker", "msgpack"]):
        import fuzz_wire

        from compile_wire.errors import MalformedError
    target = fuzz_wire._targets()[name]
    for number, seed in enumerate(target.seeds):
        Path(arguments[-1], f"seed-{number}").write_bytes(seed)

    def one(data: bytes) -> None:
        with contextlib.suppress(MalformedError):
            target.read(data)

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
