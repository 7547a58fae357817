"""Numbers as people read them on a terminal and on the page: one way to write bytes, seconds and counts.

Limits that somebody has set are told as they were set; axes of charts have marks of their own.
"""

from __future__ import annotations

import re
import time

_UNITS = {"y": 365 * 86400, "w": 7 * 86400, "d": 86400, "h": 3600, "min": 60, "s": 1}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(y|w|d|h|min|s)")
_BYTES = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([a-z]*)")
_MINUTE_OR_MONTH = re.compile(r"([0-9.]+) ?m")


def count(number: float) -> str:
    """Return 12345 as `12 345`, with narrow spaces that do not break."""
    return f"{number:,.0f}".replace(",", "\u202f")


def counted(number: int, thing: str) -> str:
    """Return 2 of artifact as `2 artifacts`, and 1 as `1 artifact`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def seconds(number: float) -> str:
    """Return 0.42 as `0.42 s`, 75 as `1 min 15 s`, 8000 as `2 h 13 min`, 200000 as `2 d 7 h`."""
    if number < 9.995:
        return f"{number:.2f} s" if number else "0 s"
    if number < 59.95:
        return f"{number:.1f} s"
    whole = round(number)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{count(whole // 86_400)} d {whole % 86_400 // 3600} h"


def roughly(number: float) -> str:
    """Return seconds of which the tenths say nothing: 12.3 as `12 s`, 75 as `1 min 15 s`."""
    return f"{number:.0f} s" if number < 59.5 else seconds(number)


def size(number: float) -> str:
    """Return 1500000 as `1.5 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 99.5 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def percent(part: float | None) -> str:
    """Return 0.931 as `93 %`; nothing is not rounded to all, nor something to nothing."""
    if part is None:
        return "\u2013"
    if 0 < part < 0.005:
        return "< 1 %"
    if 0.995 <= part < 1:
        return "> 99 %"
    return f"{part:.0%}".replace("%", "\u00a0%")


def ago(moment: float, now: float) -> str:
    """Return a moment in the past as `3 min ago`."""
    passed = max(0.0, now - moment)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if passed >= length:
            return f"{passed // length:.0f} {unit} ago"
    return "just now"


def moment(at: float) -> str:
    """Return seconds since the epoch as `2026-11-22 14:30`, in the machine's time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def stretch(start: float, end: float) -> str:
    """Return a stretch of time as `14:30 to 15:00` within a day, else with its date or dates."""
    first, last = time.localtime(start), time.localtime(end)
    if end - start < 86_400:
        day = "" if first.tm_yday == time.localtime().tm_yday else time.strftime("%d %b ", first)
        return f"{day}{time.strftime('%H:%M', first)} to {time.strftime('%H:%M', last)}"
    return f"{time.strftime('%d %b', first)} to {time.strftime('%d %b', last)}"


def parse_duration(text: str) -> float:
    """Return the seconds of `30d`, `12h`, `1.5w`; raise `ValueError` where it is nothing of the kind, or two things."""
    if unclear := _MINUTE_OR_MONTH.fullmatch(text.strip()):
        raise ValueError(f"{text!r} could be minutes or months: write {unclear[1]}min, or months in days, as 30d")
    match = _DURATION.fullmatch(text.strip())
    if match is None or not (number := float(match[1]) * _UNITS[match[2]]):
        raise ValueError(f"{text!r} is no duration: write a number with s, min, h, d, w or y, as 30d or 12h")
    return number


def parse_size(text: str) -> int:
    """Return the bytes of `20GB`, `1.5 TiB`; a number alone is in GiB. Raises `ValueError` where it is nothing such."""
    match = _SIZE.fullmatch(text.strip().lower())
    if match is not None and match[2] in ("k", "m", "g", "t"):
        unit = match[2].upper()
        raise ValueError(f"{text!r} could count in 1000 or in 1024: write {match[1]}{unit}B or {match[1]}{unit}iB")
    if match is None or (match[2] and match[2] not in _BYTES):
        raise ValueError(f"{text!r} is no size: write a number with kB, MB, GB, TB, or KiB, MiB, GiB, TiB, as 20GB")
    return int(float(match[1]) * _BYTES[match[2] or "gib"])
