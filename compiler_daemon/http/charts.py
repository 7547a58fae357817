"""Charts: columns of figures become rectangles and marks at coordinates. Templates and style say how they look."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from compiler_daemon.http.time_series import Column, Span
from compiler_daemon.text import numbers

WIDTH, HEIGHT = 640, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 2, 10, 24
_VOLUME, _GAP = 26, 8
"""Height of the row of lookups below the hit rate, and what lies between."""
_LABELS = 5
_TIME_FORMATS = {"hour": "%H:%M", "day": "%H:%M", "month": "%d %b", "year": "%b %y"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A rectangle with what it says when pointed at."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    words: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A text on an axis."""

    x: float
    y: float
    text: str
    anchor: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Describes a chart: bars, marks on the axes, and lines behind them."""

    width: int
    height: int
    bars: Sequence[Bar]
    marks: Sequence[Mark]
    lines: Sequence[float]
    """Heights of horizontal lines."""
    left: float


def rate_chart(columns: Sequence[Column], span: Span) -> Chart:
    """Return a chart of the hit rate of each column, and below it how many lookups that was of."""
    floor = HEIGHT - _BOTTOM
    bottom = floor - _VOLUME - _GAP
    scale = bottom - _TOP
    most = max((column.lookups for column in columns), default=0)
    bars = []
    for column, (x, width) in zip(columns, _places(len(columns)), strict=True):
        if column.rate is None:
            continue
        said = (
            f"{numbers.stretch(column.start, column.end)}: {numbers.percent(column.rate)}, "
            f"{numbers.count(column.hits)} of {numbers.count(column.lookups)} lookups"
        )
        height = column.rate * scale
        bars.append(Bar(x=x, y=_TOP, width=width, height=scale - height, kind="miss", words=said))
        bars.append(Bar(x=x, y=bottom - height, width=width, height=height, kind="hit", words=said))
        volume = max(1.5, column.lookups / most * _VOLUME)
        bars.append(Bar(x=x, y=floor - volume, width=width, height=volume, kind="volume", words=said))
    marks = [
        Mark(x=_LEFT - 6, y=y + 4, text=text, anchor="end")
        for y, text in ((_TOP, "100 %"), (_TOP + scale / 2, "50 %"), (bottom, "0"))
    ]
    if most:
        marks.append(Mark(x=_LEFT - 6, y=floor, text=_short(most), anchor="end"))
    lines = (_TOP, _TOP + scale / 2, bottom, floor)
    return Chart(
        width=WIDTH, height=HEIGHT, bars=_shown(bars), marks=marks + _times(columns, span), lines=lines, left=_LEFT
    )


def saved_chart(columns: Sequence[Column], span: Span) -> Chart:
    """Return a chart of the seconds saved in each column."""
    bottom = HEIGHT - _BOTTOM
    scale = bottom - _TOP
    top = _round_up(max((column.saved_s for column in columns), default=0))
    bars = [
        Bar(
            x=x,
            y=bottom - max(1.5, column.saved_s / top * scale),
            width=width,
            height=max(1.5, column.saved_s / top * scale),
            kind="saved",
            words=f"{numbers.stretch(column.start, column.end)}: {numbers.seconds(column.saved_s)} saved",
        )
        for column, (x, width) in zip(columns, _places(len(columns)), strict=True)
        if column.saved_s
    ]
    marks = [
        Mark(x=_LEFT - 6, y=_TOP + scale * (1 - part) + 4, text=_axis_seconds(top * part) if top else "", anchor="end")
        for part in (1.0, 0.5, 0.0)
    ]
    lines = (_TOP, _TOP + scale / 2, bottom)
    return Chart(width=WIDTH, height=HEIGHT, bars=bars, marks=marks + _times(columns, span), lines=lines, left=_LEFT)


def _places(number: int) -> list[tuple[float, float]]:
    """Return the left edge and the width of each column."""
    pitch = (WIDTH - _LEFT - _RIGHT) / max(1, number)
    return [(round(_LEFT + pitch * place + pitch * 0.1, 2), round(pitch * 0.8, 2)) for place in range(number)]


def _shown(bars: list[Bar]) -> list[Bar]:
    return [bar for bar in bars if bar.height > 0]


def _times(columns: Sequence[Column], span: Span) -> list[Mark]:
    """Return marks at the edges of columns, from the first to the last."""
    form = _TIME_FORMATS[span.name]
    edges = [column.start for column in columns] + [columns[-1].end]
    pitch = (WIDTH - _LEFT - _RIGHT) / len(columns)
    marks = []
    for number in range(_LABELS):
        place = round(len(columns) * number / (_LABELS - 1))
        anchor = "start" if number == 0 else "end" if number == _LABELS - 1 else "middle"
        text = time.strftime(form, time.localtime(edges[place]))
        marks.append(Mark(x=round(_LEFT + pitch * place, 2), y=HEIGHT - 5, text=text, anchor=anchor))
    return marks


def _round_up(number: int) -> int:
    """Return the next of 1, 2, 5, 10, 20, ... minutes or seconds: an axis that ends at a plain number."""
    for unit in (1, 60, 3600):
        for plain in (1, 2, 4, 10, 20, 40):
            if number <= plain * unit:
                return plain * unit
    days = 86_400
    while days < number:
        days *= 2
    return days


def _axis_seconds(number: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if number >= length:
            return f"{number / length:g} {unit}"
    return f"{number:g} s" if number else "0"


def _short(number: int) -> str:
    return str(number) if number < 10_000 else f"{number / 1000:.0f} k"
