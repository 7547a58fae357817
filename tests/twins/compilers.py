"""A g++ with a memory: all processes of a stage together build equal sources with equal commands only once.

Plain runs, workers and both orders would build the same few kernels over and over, in different folders. The memory
holds files that the real compiler wrote, under a digest of everything it was told: the command without its working
folder, and the texts of its sources. Commands of any other form go to the real compiler.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

_SCRIPT = """#!{python} -IS
import fcntl, hashlib, os, shutil, subprocess, sys

REAL, KEPT = {real!r}, {kept!r}
words = sys.argv[1:]
sources = [word for word in words if word.endswith((".cpp", ".hpp", ".cc")) and os.path.isfile(word)]
if words.count("-o") != 1 or len(sources) != 1:
    os.execv(REAL, [REAL, *words])
source, target = sources[0], words[words.index("-o") + 1]
folder = os.path.dirname(source) + os.sep
told = [word.replace(folder, "@/") if folder != os.sep else word for word in words]
told[told.index("-o") + 1] = os.path.basename(target) if target.startswith(folder) else target
with open(source, "rb") as file:
    text = file.read()
if folder.encode() in text:
    os.execv(REAL, [REAL, *words])
name = hashlib.sha256(repr((told, text)).encode()).hexdigest()
place = os.path.join(KEPT, name)
with open(place + ".lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not os.path.exists(place):
        done = subprocess.run([REAL, *words])
        if done.returncode:
            sys.exit(done.returncode)
        shutil.copyfile(target, place + ".new")
        os.replace(place + ".new", place)
        sys.exit(0)
os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
shutil.copyfile(place, target)
os.chmod(target, 0o755)
"""


def remembering_compiler(folder: Path) -> dict[str, str]:
    """Put this compiler into `folder`, unless it is there; return the variables that put it first on the path."""
    real = shutil.which("g++")
    assert real, "there is no g++: install it, as for everything that compiles here"
    script = folder / "bin" / "g++"
    if not script.exists():
        (folder / "kept").mkdir(parents=True, exist_ok=True)
        script.parent.mkdir(exist_ok=True)
        made = script.with_suffix(f".{os.getpid()}")
        made.write_text(_SCRIPT.format(python=sys.executable, real=real, kept=str(folder / "kept")))
        made.chmod(0o755)
        made.replace(script)
    return {"PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}"}
