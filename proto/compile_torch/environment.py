"""The environment of this process: what decides, beside the graph, whether a compiled artifact can run here.

torch's own key names no machine for CPU code, although what is built with `-march=native` runs only on CPUs alike. The
fields are explained in docs/cache-key.md. None holds a path, a host's or a user's name, or a device's index.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from compile_torch.driver import driver_version

_COMPILER_TIMEOUT_S = 10.0


@functools.cache
def process_environment() -> Mapping[str, str]:
    """Return the environment's fields, by name."""
    import torch
    from torch._inductor.codecache import torch_key

    fields = {
        "python": f"{sys.implementation.cache_tag}-{sysconfig.get_config_var('SOABI') or ''}",
        "torch": str(torch.__version__),
        "torch_key": _hex(torch_key()),
        "triton": _triton(),
        "system": f"{platform.system().lower()}-{platform.machine()}",
        "libc": "-".join(part for part in _libc() if part),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_flags": _cpu_flags(),
        "compiler": _compiler(),
    }
    fields |= _accelerator()
    return fields


def _hex(key: bytes | str) -> str:
    return key.hex() if isinstance(key, bytes) else hashlib.sha256(key.encode()).hexdigest()


def _triton() -> str:
    from torch.utils._triton import has_triton_package

    if not has_triton_package():
        return ""
    import triton
    from torch._inductor import codecache
    from torch._inductor.runtime.triton_compat import triton_key  # the name differs between versions of triton

    # torch's own function, where there is one, may have been given what `source_digests` remembers.
    key: str = getattr(codecache, "triton_key", triton_key)() or triton_key()
    return f"{triton.__version__}-{hashlib.sha256(key.encode()).hexdigest()[:32]}"


def _libc() -> tuple[str, str]:
    """Return glibc's version; of musl and others, what Python knows of them."""
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        text = None
    return (text, "") if text else platform.libc_ver()


def _cpu_flags() -> str:
    """Return the CPU's flags, sorted, as a digest and in words: what `-march=native` looks at.

    Only flags that say what code may run; the kernel also lists what it found out about power and virtualisation, which
    differs between machines that run the same code.
    """
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    fields: dict[str, str] = {}
    for line in text.split("\n\n", 1)[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    flags = fields.get("flags") or fields.get("Features") or ""
    # -march=native also picks instruction scheduling by family and model, so that they belong to the code.
    model = " ".join(
        fields.get(name, "") for name in ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")
    )
    return f"{model.strip()}: {' '.join(sorted(set(flags.split())))}"


def _compiler() -> str:
    """Return the first line of the C++ compiler's version, without its path; empty where there is none."""
    from torch._inductor import config

    candidates = config.cpp.cxx if isinstance(config.cpp.cxx, (list, tuple)) else (config.cpp.cxx,)
    for candidate in candidates:
        if not candidate:
            continue
        try:
            done = subprocess.run(
                [candidate, "--version"], capture_output=True, text=True, timeout=_COMPILER_TIMEOUT_S, check=True
            )
        except (OSError, subprocess.SubprocessError):
            continue
        first = done.stdout.split("\n", 1)[0]
        return first.replace(candidate, os.path.basename(candidate))
    return ""


def _accelerator() -> dict[str, str]:
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return {"toolkit": "", "driver": "", "gpu": ""}
    toolkit = f"cuda {torch.version.cuda}" if torch.version.cuda else f"hip {torch.version.hip}"
    if not torch.cuda.is_available():
        return {"toolkit": toolkit, "driver": "", "gpu": ""}
    kinds = set()
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        kinds.add(f"{properties.name} {properties.major}.{properties.minor} {properties.multi_processor_count}")
    return {"toolkit": toolkit, "driver": driver_version(), "gpu": "; ".join(sorted(kinds))}
