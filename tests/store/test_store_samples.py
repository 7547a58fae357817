from __future__ import annotations

import sqlite3
from pathlib import Path

from compiler_daemon.store import Store
from tests.store.store_samples import config, put, sample

NOON = 1_800_000_000 // 86_400 * 86_400 + 43_200


def test_totals_are_kept_by_the_minute_and_by_the_hour(store: Store) -> None:
    for minute in range(90):
        store.put_sample({"lookups": minute}, now=NOON + 60 * minute + 5)

    minutes, hours = store.samples(NOON, step=60), store.samples(NOON, step=3600)

    assert [(item.time, item.figures["lookups"]) for item in minutes] == [(NOON + 60 * n, n) for n in range(90)]
    assert [(item.time, item.figures["lookups"]) for item in hours] == [(NOON, 59), (NOON + 3600, 89)]


def test_nothing_is_written_while_nothing_changes(store: Store) -> None:
    assert store.put_sample({"lookups": 3}, now=NOON)
    assert not any(store.put_sample({"lookups": 3}, now=NOON + 60 * minute) for minute in range(1, 600))

    assert [item.time for item in store.samples(NOON, step=60)] == [NOON]


def test_old_samples_go_and_the_last_before_the_window_stays_to_say_what_held(store: Store) -> None:
    for hour in range(0, 24 * 800, 5):
        store.put_sample({"lookups": hour}, now=NOON + 3600 * hour)
    end = NOON + 3600 * (24 * 800 - 5)

    minutes, hours = store.samples(0, step=60), store.samples(0, step=3600)

    assert len(minutes) == 6
    assert len(hours) <= 366 * 24 / 5 + 2
    assert minutes[0].time <= end - 24 * 3600
    assert hours[0].time <= end - 366 * 24 * 3600


def test_a_reader_is_given_what_held_before_its_window(store: Store) -> None:
    store.put_sample({"lookups": 1}, now=NOON)
    store.put_sample({"lookups": 2}, now=NOON + 600)
    store.put_sample({"lookups": 3}, now=NOON + 1200)

    assert [item.figures["lookups"] for item in store.samples(NOON + 700, step=60)] == [2, 3]


def test_a_clock_that_was_set_back_does_not_leave_samples_of_the_future(store: Store) -> None:
    store.put_sample({"lookups": 9}, now=NOON + 86_400 * 40)
    store.put_sample({"lookups": 10}, now=NOON)

    assert [item.figures["lookups"] for item in store.samples(0, step=60)] == [10]
    assert [item.figures["lookups"] for item in store.samples(0, step=3600)] == [10]


def test_an_index_made_before_there_were_samples_keeps_its_counters(root: Path) -> None:
    with Store.open(config(root)) as store:
        store.add_counts({"lookups": 7})
        put(store, sample(1))
    with sqlite3.connect(root / "index.sqlite3") as connection:
        connection.execute("DROP TABLE samples")
    connection.close()

    with Store.open(config(root)) as store:
        assert store.scan_report.index_set_aside == ""
        assert store.counts()["lookups"] == 7
        assert store.put_sample({"lookups": 7}, now=NOON)


def test_an_index_in_which_a_later_version_keeps_more_is_used_as_it_is(root: Path) -> None:
    with Store.open(config(root)) as store:
        store.add_counts({"lookups": 7})
    with sqlite3.connect(root / "index.sqlite3") as connection:
        connection.execute("CREATE TABLE of_next_year (text TEXT)")
    connection.close()

    with Store.open(config(root)) as store:
        assert store.scan_report.index_set_aside == ""
        assert store.counts()["lookups"] == 7
