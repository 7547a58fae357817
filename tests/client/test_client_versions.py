"""With a torch or a Python that nobody has run this with, the client stays off, says so, and torch compiles."""

from __future__ import annotations

import subprocess
import sys

import pytest

_COMPILES = (
    "import compile_client\nprint(compile_client.install(), torch.compile(lambda x: x + 1, backend='eager')(2))\n"
)


@pytest.mark.parametrize(
    ("strange", "said"),
    [
        ("torch.__version__ = '2.16.0'", "torch 2.16.0 is not one of the versions known (2.11 to 2.15)"),
        ("torch.__version__ = '2.10.1'", "torch 2.10.1 is not one of the versions known (2.11 to 2.15)"),
        ("torch.__version__ = 'of my own'", "torch of my own is not one of the versions known"),
        ("versions.has_no_global_lock = lambda: True", "this Python is free-threaded"),
    ],
)
def test_a_version_that_is_not_known_is_said_in_one_line_and_torch_compiles(strange: str, said: str) -> None:
    program = f"import torch\nfrom compile_torch import versions\n{strange}\n{_COMPILES}"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)

    assert ended.stdout == "False 3\n"
    (line,) = [line for line in ended.stderr.splitlines() if "the compile client stays off" in line]
    assert said in line
