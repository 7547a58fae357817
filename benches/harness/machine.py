"""The machine that figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil


def machine() -> dict[str, Any]:
    """Name the machine, as far as figures depend on it."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def machine_name() -> str:
    """Return processor and cores, in a few words."""
    facts = machine()
    return f"{facts['cpu']}, {facts['cores']} cores"


def machine_line() -> str:
    """Return what numbers of a training were measured on, in one line. Imports torch."""
    import torch

    facts = machine()
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no accelerator"
    return (
        f"torch {facts['torch']}, Python {facts['python']}, {facts['cores']} CPU cores of which "
        f"{torch.get_num_threads()} used for arithmetic, {accelerator}"
    )
