"""Which environment variables the installed Triton reads, and which of them nobody has sorted yet.

    python tools/triton_reads.py            what nobody has sorted; exit code 1 where there is something
    python tools/triton_reads.py --all      everything that was found

Two sources: the declarations in `triton/knobs.py`, and Triton's library in C++, which says of every word in it that
looks like a variable whether it counts it into its keys. Sorted by hand in `compile_torch.key.triton_reads`.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

from compile_torch.key.triton_reads import TRITON_VARIABLES, TRITON_VARIABLES_WITHOUT_EFFECT

_WORD = re.compile(rb"[A-Z][A-Z0-9_]{5,60}(?=\x00)")
_ASKING = """
import json, os, sys
from triton._C.libtriton import get_cache_invalidating_env_vars
os.environ.update(dict.fromkeys(json.load(sys.stdin), "1"))
print(json.dumps(sorted(get_cache_invalidating_env_vars())))
"""


def found_variables() -> set[str]:
    """Return the names of the variables that the installed Triton reads to compile, cache and measure."""
    return declared_variables() | counted_variables()


def declared_variables() -> set[str]:
    """Return what `triton.knobs` declares by a literal name, and the variables of NVIDIA's tools."""
    found = set()
    for call in ast.walk(ast.parse((_triton() / "knobs.py").read_text(encoding="utf-8"))):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or not call.func.id.startswith("env_"):
            continue
        if call.args and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str):
            name = call.args[0].value
            is_tool = call.func.id == "env_nvidia_tool"
            found.add(f"TRITON_{name.upper().replace('-', '_')}_PATH" if is_tool else name)
    return found


def counted_variables() -> set[str]:
    """Return what Triton's library counts into its keys, by asking it in a process where every such word is set."""
    (library,) = (_triton() / "_C").glob("libtriton*.so")
    words = sorted({word.decode() for word in _WORD.findall(library.read_bytes())})
    command = [sys.executable, "-c", _ASKING]
    done = subprocess.run(command, input=json.dumps(words), capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(done.stdout.splitlines()[-1]))


def unsorted_variables() -> list[str]:
    """Return what `compile_torch.key.triton_reads` does not name."""
    return sorted(found_variables() - TRITON_VARIABLES - set(TRITON_VARIABLES_WITHOUT_EFFECT))


def _triton() -> Path:
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        raise SystemExit("Triton is not installed.")
    return Path(spec.origin).parent


def main() -> int:
    """Print what was found; return the exit code."""
    parser = argparse.ArgumentParser(prog="tools/triton_reads.py", description="Which variables Triton reads.")
    parser.add_argument("--all", action="store_true", help="everything that was found")
    if parser.parse_args().all:
        sys.stdout.write("".join(f"{name}\n" for name in sorted(found_variables())))
        return 0
    left = unsorted_variables()
    sys.stdout.write("".join(f"{name}\n" for name in left) or "nothing is left to sort\n")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
