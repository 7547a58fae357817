"""An entry's three processes: torch alone, with a daemon that has nothing of it, and with that daemon again.

Each has empty folders for torch's and Triton's caches. TMPDIR, where torch keeps precompiled headers, is one for all,
and the daemon's headers are the last run's, where it left its folder.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benches.corpus.registry import Entry
from benches.harness.daemon import ServedDaemon, clean_environment
from benches.harness.measure import CacheDirs
from benches.harness.output import say
from benches.harness.processes import run_child

_RUN_S = 900.0
_TAIL = 1500
_TURNS = ("plain", "cold", "warm")


class Corpus:
    """Runs entries, one after the other, with one daemon for all; starts it for the first."""

    def __init__(self, folder: Path) -> None:
        """Of what an earlier run has left in `folder` only the headers stay, which are torch's and no entry's."""
        self._folder = folder
        self._daemon: ServedDaemon | None = None
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        for left in (folder / "d").glob("*"):
            if left.name != "headers":
                shutil.rmtree(left) if left.is_dir() else left.unlink()

    def run(self, entry: Entry) -> dict[str, Any]:
        """Return the row of an entry: its figures, or why one of its processes failed."""
        row: dict[str, Any] = {
            "name": entry.name,
            "model": entry.model,
            "package": f"{entry.package} {_version(entry.package)}",
            "traits": entry.traits,
        }
        found = {}
        for turn in _TURNS:
            began = time.monotonic()
            document, error = self._process(entry, turn)
            if document is None:
                return row | {"failed": f"{turn}: {error}"}
            found[turn] = document | {"process_s": round(time.monotonic() - began, 1)}
        return row | _figures(**found)

    def close(self) -> None:
        """Stop the daemon."""
        if self._daemon is not None:
            self._daemon.stop()

    def _process(self, entry: Entry, turn: str) -> tuple[dict[str, Any] | None, str]:
        home = CacheDirs.fresh(self._folder / "home")
        environment = clean_environment() | home.environment | {"TMPDIR": str(self._folder / "tmp")}
        # Models of hubs are never asked for; their packages look for a network all the same.
        environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        if turn != "plain":
            environment |= {
                "TORCH_COMPILE_CLIENT": "1",
                "TORCH_COMPILE_CLIENT_LOG": "debug",
                "COMPILER_DAEMON_DIR": str(self._serving().directory),
            }
        command = [sys.executable, "-m", "benches.corpus.process", entry.name]
        try:
            ended = run_child(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout_s=_RUN_S
            )
        except subprocess.TimeoutExpired:
            return None, f"it ran for more than {_RUN_S:.0f} s"
        finally:
            shutil.rmtree(home.path, ignore_errors=True)
        lines = ended.stdout.decode(errors="replace").splitlines()
        if ended.returncode or not lines:
            said = ended.stderr.decode(errors="replace")
            say(said[-_TAIL:])
            last = next((line for line in reversed(said.splitlines()) if line.strip()), "it said nothing")
            return None, f"exit code {ended.returncode}: {last[:300]}"
        document = dict(json.loads(lines[-1]))
        if turn != "plain" and not document["client"]:
            said = ended.stderr.decode(errors="replace")
            say(said[-_TAIL:])
            return None, "the client was not on"
        return document, ""

    def _serving(self) -> ServedDaemon:
        if self._daemon is None:
            self._daemon = ServedDaemon(self._folder)
            self._daemon.start()
        return self._daemon


def _figures(plain: dict[str, Any], cold: dict[str, Any], warm: dict[str, Any]) -> dict[str, Any]:
    first, second = cold["client"], warm["client"]
    return {
        "graphs": first["graphs"],
        "by_daemon": first["compiled_by_daemon"] + first["hits"],
        "local": first["hits_local"],
        "here": first["compiled_here"],
        "traced_again": first["traced_again"],
        "uncacheable": first["refused"].get("uncacheable", 0),
        "refused": first["refused"],
        "fallbacks": first["fallbacks"],
        "reasons": cold["compiled_here"],
        "uncached": list(dict.fromkeys(cold["uncached"])),
        "compared": len(plain["digests"]),
        "differing": {
            turn: [name for name, digest in plain["digests"].items() if document["digests"].get(name) != digest]
            for turn, document in (("cold", cold), ("warm", warm))
        },
        "warm_graphs": second["graphs"],
        "warm_traced_again": second["traced_again"],
        "warm_hits": second["hits"] + second["hits_local"],
        "warm_builds": warm["cpp_builds"],
        "warm_here": second["compiled_here"],
        "warm_refused": second["refused"],
        "warm_fallbacks": second["fallbacks"],
        "seconds": {
            turn: document["process_s"] for turn, document in (("plain", plain), ("cold", cold), ("warm", warm))
        },
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
