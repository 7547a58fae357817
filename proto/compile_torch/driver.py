"""The version of the GPU's driver, asked of the system and of the driver's own library, never of torch's private names.

Those come and go between torch's builds, and what asks for one that has gone cannot describe its environment at all.
A trainer and a worker on one machine read the same file, so that both say the same.
"""

from __future__ import annotations

import ctypes
import platform
import re
from collections.abc import Iterable
from pathlib import Path

UNKNOWN = "unknown on "
"""Said, with the machine's name, where there is a GPU and nothing tells its driver: no other machine shares then."""

_NVIDIA = Path("/proc/driver/nvidia/version")
_AMD = Path("/sys/module/amdgpu/version")
_VERSION = re.compile(r"\b[0-9]+(?:\.[0-9]+)+\b")
_LIBRARY = "libnvidia-ml.so.1"
_LENGTH = 96
"""Bytes for NVML's answer; its manual asks for at least 80."""


def driver_version(files: Iterable[Path] = (_NVIDIA, _AMD)) -> str:
    """Return the version of the driver of this machine's GPUs, `UNKNOWN` with the machine's name where nothing does."""
    for path in files:
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        if found := _VERSION.search(text):
            return found.group()
    return _of_nvml() or f"{UNKNOWN}{platform.node()}"


def _of_nvml() -> str:
    """Return what NVIDIA's management library says: some sandboxes have the device and not its file in /proc."""
    try:
        library = ctypes.CDLL(_LIBRARY)
        answer = ctypes.create_string_buffer(_LENGTH)
        if library.nvmlInit_v2():
            return ""
        try:
            failed = library.nvmlSystemGetDriverVersion(answer, _LENGTH)
        finally:
            library.nvmlShutdown()
    except (OSError, AttributeError):
        return ""
    return "" if failed else answer.value.decode("ascii", errors="replace")
