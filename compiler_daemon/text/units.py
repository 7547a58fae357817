"""Bytes, seconds and ages as people read and write them."""

from __future__ import annotations

import re
import time

_UNITS = {"y": 365 * 86400, "w": 7 * 86400, "d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([ywdhms])")
_STEPS = ((_UNITS["y"], "y"), (_UNITS["d"], "d"), (_UNITS["h"], "h"), (_UNITS["m"], "min"))


def count_text(count: int, thing: str) -> str:
    """Return how many, for people: `1 artifact`, `2 artifacts`."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def size_text(size: int) -> str:
    """Return bytes for people: `1.2 MB`."""
    value = float(size)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{size} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def seconds_text(seconds: float) -> str:
    """Return a duration for people: `43 s`, `2.5 h`, `12 d`."""
    for unit, name in _STEPS:
        if seconds >= unit:
            count = seconds / unit
            return f"{count:.1f} {name}" if count < 10 and name != "d" else f"{count:.0f} {name}"
    return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"


def age_text(when: float) -> str:
    """Return how long ago something was: `3 h ago`."""
    seconds = time.time() - when
    return "now" if seconds < 1 else f"{seconds_text(seconds)} ago"


def parse_duration(text: str) -> float:
    """Return the seconds of `30d`, `12h`, `1.5w`; raise `ValueError` where it is nothing of the kind."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not (seconds := float(match[1]) * _UNITS[match[2]]):
        raise ValueError(f"{text!r} is no duration: write 30d, 12h or 2w")
    return seconds
