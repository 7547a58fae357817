"""What a kernel's text may ask for: Triton's own language, and no assembly that could name a file.

The text is looked at after Triton's parser has read it, so that there is one way to write each thing. LLVM's assembler
knows directives that read files (`.incbin`, `.include`), and macros that put such a directive together: assembly from
the wire is refused for every target whose text goes there. NVIDIA's assembler has neither.
"""

from __future__ import annotations

import re
from typing import Any

from compile_wire.errors import MalformedError

_DIALECTS = frozenset({"arith", "builtin", "cf", "math", "scf", "tt", "ub"})
"""What Triton's frontend and its first stage write. Others are nearer to the machine, LLVM's own above all."""

_ASSEMBLY = "tt.elementwise_inline_asm"
_ASSEMBLED_ELSEWHERE = frozenset({"cuda"})
"""Backends whose text LLVM does not assemble."""

_QUOTED_SYMBOL = re.compile(r'@"')
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_.$]*")


def check_module(module: Any, backend: str) -> None:
    """Raise `MalformedError` where a parsed module asks for more than a kernel needs."""
    seen: list[str] = []

    def look(operation: Any) -> None:
        name = operation.get_name()
        if name.partition(".")[0] not in _DIALECTS:
            seen.append(f"the kernel's text has {name}, which is none of Triton's first language")
        elif name == _ASSEMBLY and backend not in _ASSEMBLED_ELSEWHERE:
            seen.append(f"the kernel has assembly of its own, which is not taken for {backend}")
        elif name == "tt.extern_elementwise" and not _SYMBOL.fullmatch(operation.get_str_attr("symbol") or ""):
            seen.append("the kernel calls a library's function by what is no name")

    module.walk(look)
    text = module.str_nodebug()
    if "module_asm" in text:
        seen.append("the kernel's module has assembly of its own")
    if _QUOTED_SYMBOL.search(text):
        seen.append("the kernel's text has a symbol that is no plain name")
    if seen:
        raise MalformedError(seen[0])
