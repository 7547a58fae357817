from __future__ import annotations

import pytest

from compiler_daemon import metrics
from compiler_daemon.http import charts
from compiler_daemon.http.time_series import SPANS, columns
from compiler_daemon.store import FigureSample
from compiler_daemon.text import numbers

HOUR = SPANS["hour"]
NOON = 1_800_000_000 // 3600 * 3600


def sample(at: float, hits: int, misses: int = 0, saved: int = 0) -> FigureSample:
    figures = {metrics.LOOKUP_HITS: hits, metrics.LOOKUP_MISSES: misses, metrics.SECONDS_SAVED: saved}
    return FigureSample(time=int(at), figures=figures)


def live(hits: int, misses: int = 0, saved: int = 0) -> dict[str, int]:
    return dict(sample(0, hits, misses, saved).figures)


# Curves


def test_each_column_has_what_happened_in_it_and_together_they_have_all() -> None:
    samples = [sample(NOON - 7200, 5), sample(NOON - 1800, 8, 1), sample(NOON - 600, 20, 1, 30)]

    made = columns(samples, live(21, 3, 31), span=HOUR, now=NOON + 1)

    assert len(made) == 60
    assert [(column.start, column.hits, column.misses) for column in made if column.lookups] == [
        (NOON - 1800, 3, 1),
        (NOON - 600, 12, 0),
        (NOON, 1, 2),
    ]
    assert (sum(column.hits for column in made), sum(column.saved_s for column in made)) == (16, 31)


def test_what_was_before_the_first_sample_is_in_no_column() -> None:
    made = columns([sample(NOON - 600, 1000)], live(1001), span=HOUR, now=NOON + 1)

    assert sum(column.hits for column in made) == 1


def test_without_samples_nothing_is_known_of_the_past() -> None:
    assert sum(column.lookups for column in columns([], live(7, 7), span=HOUR, now=NOON)) == 0


def test_counters_that_began_anew_count_from_nothing() -> None:
    made = columns([sample(NOON - 1200, 50), sample(NOON - 600, 2)], live(3), span=HOUR, now=NOON + 1)

    assert sum(column.hits for column in made) == 3


@pytest.mark.parametrize("span", SPANS.values(), ids=SPANS)
def test_every_span_covers_its_words_and_is_drawn_within_the_picture(span: object) -> None:
    assert isinstance(span, type(HOUR))
    now = NOON + 1234.5
    samples = [
        sample(now - span.seconds * part, int(100 - part * 50), 3, int(5000 - part * 100)) for part in (1, 0.5, 0.1)
    ]
    made = columns(samples, live(200, 10, 9000), span=span, now=now)

    assert made[0].start <= now - span.seconds + span.column_s
    assert made[-1].start <= now < made[-1].end
    for chart in (charts.rate_chart(made, span), charts.saved_chart(made, span)):
        assert chart.bars
        for bar in chart.bars:
            assert chart.left <= bar.x <= bar.x + bar.width <= chart.width
            assert 0 <= bar.y <= bar.y + bar.height <= chart.height
        assert all(0 <= mark.x <= chart.width and 0 <= mark.y <= chart.height for mark in chart.marks)


# Words


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 s"), (0.423, "0.42 s"), (9.999, "10.0 s"), (59.96, "1 min 0 s"), (75, "1 min 15 s"), (8000, "2 h 13 min")],
)
def test_seconds_are_said_as_people_say_them(number: float, text: str) -> None:
    assert numbers.seconds(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (21_474_836_480, "21.5 GB"), (5e12, "5.0 TB")]
)
def test_sizes_have_a_unit(number: float, text: str) -> None:
    assert numbers.size(number) == text


@pytest.mark.parametrize(
    ("part", "text"), [(None, "\u2013"), (0, "0 %"), (0.001, "< 1 %"), (0.5, "50 %"), (0.9999, "> 99 %"), (1, "100 %")]
)
def test_a_share_is_not_rounded_to_nothing_or_all(part: float | None, text: str) -> None:
    assert numbers.percent(part).replace("\u00a0", " ") == text
