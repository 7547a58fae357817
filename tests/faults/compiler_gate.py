"""A g++ that stops in front of each kernel while its gate is shut: how a compile is caught in the middle."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_MARK = "at-the-gate"
_SCRIPT = """#!/bin/sh
# Sources of kernels end in .main.cpp; probes, headers and questions for the version pass.
case "$*" in *.main.cpp*)
    if [ -e '{shut}' ]; then : > "$TMPDIR/{at}"; fi
    while [ -e '{shut}' ]; do sleep 0.3; done;;
esac
exec '{real}' "$@"
"""


class CompilerGate:
    """Put `environment` into a daemon's environment: its workers will then pass through here."""

    def __init__(self, folder: Path, *, scratch: Path) -> None:
        """`scratch` is where the daemon's workers have their folders: a confined one can leave its mark only there."""
        real = shutil.which("g++")
        assert real, "there is no g++"
        (folder / "bin").mkdir(parents=True)
        self._shut, self._scratch = folder / "shut", scratch
        wrapper = folder / "bin" / "g++"
        wrapper.write_text(_SCRIPT.format(shut=self._shut, at=_MARK, real=real))
        wrapper.chmod(0o755)
        self.environment = {"PATH": f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}"}

    def shut(self) -> None:
        """From now on no kernel is built."""
        self._shut.touch()

    def open(self) -> None:
        """Let all pass."""
        self._shut.unlink(missing_ok=True)

    @property
    def reached(self) -> bool:
        """Whether a compiler stands in front of it, or did."""
        return any(self._scratch.glob(f"*/tmp/{_MARK}"))
