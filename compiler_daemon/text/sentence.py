"""What went wrong, as people write it."""

from __future__ import annotations

import os


def sentence(error: Exception) -> str:
    """Return what went wrong; the system's own errors have numbers and quoted names."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return f"{where}{error.strerror}"
    return str(error)
