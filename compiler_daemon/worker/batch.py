"""Several of inductor's C++ kernels compiled by one run of the compiler, and linked into the objects torch would make.

Nearly all of a small kernel's compile is reading torch's header, compiled beforehand or not, and looking up symbols in
torch's libraries at the link: 0.3 to 0.6 of 0.65 s. So kernels with one command line become one source, each in a
namespace of its own, compiled with torch's own flags into a section for each function; each object is then linked from
the sections that its own entry reaches, against libraries that are empty but for their names.

What is built is what torch would have built: the same source by the same compiler with the same flags that decide about
code. A kernel of a form that is not known here is none of ours: `NotBatchableError`, and torch builds it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*(\S+)", re.MULTILINE)
_DIRECTIVE = re.compile(r"^[ \t]*#[ \t]*(define|undef|if|ifdef|ifndef|else|elif|endif|error|line)\b(.*)$", re.MULTILINE)
_INCLUDES = ("<torch/csrc/inductor/cpp_prefix.h>", "<Python.h>", "<sstream>", "<cstdlib>", "<cerrno>")
"""What a kernel with Python bindings includes; all of them guard against being read twice."""
_DIRECTIVES = ("define PY_SSIZE_T_CLEAN", "ifdef Py_GIL_DISABLED", "endif")

_ENTRY = "kernel"
_INIT = f"PyInit_{_ENTRY}"
_RENAMED = (_ENTRY, _INIT)
"""Names of C linkage, which a namespace does not keep apart."""

EXPORTS = f"{{ global: {_INIT}; {_ENTRY}; inductor_cpu_*; local: *; }};\n"
"""The linker's version script: what other objects may see is what they see of an object of torch's."""


class NotBatchableError(Exception):
    """The kernel's source or command line is of a form that is not known; the text says what."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel as torch would build it."""

    source: str
    """Its text."""
    path: str
    """Of the source."""
    target: str
    """Path of the object."""
    compiler: str
    flags: tuple[str, ...]
    """Of the compiler, without source, target and libraries."""
    libraries: tuple[str, ...]
    """`-L` and `-l`, in torch's order."""

    @classmethod
    def read(cls, command: str, *, target: str) -> Kernel:
        """Take torch's command line apart; raise `NotBatchableError` where it is not one compile and link."""
        words = shlex.split(command)
        sources = [word for word in words if word.endswith(".cpp")]
        if len(sources) != 1 or words.count("-o") != 1 or words[words.index("-o") + 1 :][:1] != [target]:
            raise NotBatchableError("the command does not make one object from one source")
        at = words.index("-o")
        rest = [word for word in (*words[1:at], *words[at + 2 :]) if word != sources[0]]
        if "-shared" not in rest or "-c" in rest or "-E" in rest:
            raise NotBatchableError("the command does not compile and link")
        if "-l" in rest or "-L" in rest or any(word.startswith("-Wl,") for word in rest):
            raise NotBatchableError("the command tells the linker what is not known here")
        source = Path(sources[0]).read_text()
        _check_source(source)
        libraries = tuple(word for word in rest if re.match(r"-[lL].", word))
        flags = tuple(word for word in rest if word not in libraries and word != "-shared")
        return cls(source, sources[0], target, words[0], flags, libraries)

    @property
    def mark(self) -> str:
        """What its names end in where it is built beside others: its own, and not its place among them."""
        name = os.path.basename(self.path)  # torch's digest of the source and of how it is built
        return f"{int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], 'big'):015d}"

    @property
    def alike(self) -> tuple[object, ...]:
        """What is equal for kernels that may be compiled together."""
        return (self.compiler, self.flags, self.libraries)


def shared_out(kernels: Sequence[Kernel], ways: int) -> list[list[Kernel]]:
    """Distribute kernels of one command line over at most `ways` compiles of about equal length, two or more each."""
    count = max(1, min(ways, len(kernels) // 2))
    shares: list[list[Kernel]] = [[] for _ in range(count)]
    for kernel in sorted(kernels, key=lambda one: len(one.source), reverse=True):
        min(shares, key=lambda share: sum(len(one.source) for one in share)).append(kernel)
    return shares


def composed(kernels: Sequence[Kernel]) -> str:
    """Return one source for all; a kernel's entry is `PyInit_kernel_` and its mark.

    The texts of a kernel's assertions name its own file and line.
    """
    if len({kernel.mark for kernel in kernels}) < len(kernels):
        raise NotBatchableError("two kernels have one mark")
    parts = ["#define PY_SSIZE_T_CLEAN\n", *(f"#include {name}\n" for name in _INCLUDES)]
    for kernel in kernels:
        parts += [f"#define {name} {name}_{kernel.mark}\n" for name in _RENAMED]
        parts += [f"namespace batched_{kernel.mark} {{\n", f"#line 1 {_quoted(kernel.path)}\n", kernel.source, "\n}\n"]
        parts += [f"#undef {name}\n" for name in _RENAMED]
    return "".join(parts)


def compile_command(kernel: Kernel, source_path: str, object_path: str) -> list[str]:
    """Return what compiles a composed source of kernels like this one."""
    sections = ("-ffunction-sections", "-fdata-sections", "-w")  # torch does not read the warnings either
    return [kernel.compiler, *kernel.flags, *sections, "-c", source_path, "-o", object_path]


def link_command(kernel: Kernel, object_path: str, *, exports: str, stand_ins: str) -> list[str]:
    """Return what links a kernel's object, but for its target; `stand_ins` is a folder of libraries."""
    linker = (
        "--gc-sections",
        "-S",
        f"-u,{_INIT}_{kernel.mark}",
        *(f"--defsym={name}={name}_{kernel.mark}" for name in _RENAMED),
        f"--version-script={exports}",
    )
    # A stand-in defines nothing, so that a linker which leaves out what nobody needs would leave it out.
    own = [word for word in kernel.libraries if _stands_in(word, stand_ins)]
    rest = [word for word in kernel.libraries if word not in own]
    return [
        kernel.compiler,
        "-shared",
        *(word for word in kernel.flags if word.startswith(("-f", "-m")) or word == "-pthread"),
        object_path,
        *(f"-Wl,{option}" for option in linker),
        f"-L{stand_ins}",
        "-Wl,--push-state,--no-as-needed",
        *own,
        "-Wl,--pop-state",
        *rest,
    ]


def stand_in_names(kernel: Kernel) -> list[str]:
    """Return the libraries of torch's that the kernel is linked with: they are loaded wherever it is."""
    folders = [word[2:] for word in kernel.libraries if word.startswith("-L")]
    names = [word[2:] for word in kernel.libraries if word.startswith("-ltorch") or word == "-lc10"]
    return [
        name
        for name in names
        if any(os.path.exists(os.path.join(folder, f"lib{name}.so")) and _is_torch(folder) for folder in folders)
    ]


def stand_in_command(compiler: str, name: str, path: str) -> list[str]:
    """Return what makes a library that has a name and nothing else."""
    return [compiler, "-shared", "-nostdlib", f"-Wl,-soname,lib{name}.so", "-x", "c", os.devnull, "-o", path]


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _stands_in(word: str, folder: str) -> bool:
    return word.startswith("-l") and os.path.exists(os.path.join(folder, f"lib{word[2:]}.so"))


def _is_torch(folder: str) -> bool:
    return os.path.basename(os.path.dirname(folder)) == "torch"


def _check_source(source: str) -> None:
    for name in _INCLUDE.findall(source):
        if name not in _INCLUDES:
            raise NotBatchableError(f"it includes {name}")
    for kind, rest in _DIRECTIVE.findall(source):
        directive = f"{kind} {rest.strip()}".strip()
        if directive not in _DIRECTIVES:
            raise NotBatchableError(f"it has the directive {directive[:40]}")
    if source.count(f"{_INIT}(") != 1:
        raise NotBatchableError("it has no Python binding of the known form")
