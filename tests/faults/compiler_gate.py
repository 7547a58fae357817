"""A g++ that stops before each kernel while its gate is shut, so that a test catches a compile in the middle."""

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
    """A gate in front of g++. The workers of a daemon that is started with `environment` pass through it."""

    def __init__(self, folder: Path, *, scratch: Path) -> None:
        """`scratch` holds the folders of the daemon's workers, the only place where a confined one can leave a mark."""
        real = shutil.which("g++")
        assert real, "there is no g++"
        (folder / "bin").mkdir(parents=True)
        self._shut, self._scratch = folder / "shut", scratch
        wrapper = folder / "bin" / "g++"
        wrapper.write_text(_SCRIPT.format(shut=self._shut, at=_MARK, real=real))
        wrapper.chmod(0o755)
        self.environment = {"PATH": f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}"}

    def shut(self) -> None:
        """Let no kernel be built from now on."""
        self._shut.touch()

    def open(self) -> None:
        """Let all compilers continue."""
        self._shut.unlink(missing_ok=True)

    @property
    def reached(self) -> bool:
        """Whether a compiler waits at the gate, or has waited."""
        return any(self._scratch.glob(f"*/tmp/{_MARK}"))
