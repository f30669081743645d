import logging

import pytest

from clotline.job import progress as module
from clotline.job.progress import Meter, clock, progress


@pytest.fixture
def now(monkeypatch):
    """A clock that the test sets: ``now[0]`` in seconds."""
    time = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: time[0])
    return time


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "clotline")
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_line_says_what_how_much_how_fast_and_how_long_still(now, lines):
    meter = Meter("decoding", "slices")
    now[0] += 20
    meter(1000, 5000)
    assert lines() == ["decoding: 1,000 of 5,000 slices (20%), 50/s, 1:20 left"]


def test_lines_come_at_most_every_few_seconds(now, lines):
    meter = Meter("decoding", "slices", every_s=10)
    for _ in range(35):
        now[0] += 1
        meter(1, 100)
    assert len(lines()) == 3


def test_a_short_loop_and_the_end_of_a_long_one_are_silent(now, lines):
    meter = Meter("decoding", "slices")
    meter(50, 100)
    now[0] += 60
    meter(0, 100)
    meter(100, 100)
    assert lines() == []


def test_progress_yields_all_items_and_counts_their_units(now, lines):
    items = []
    for item in progress([2, 3, 5], 10, "copying", "rows", step=lambda n: n):
        items.append(item)
        now[0] += 15
    assert items == [2, 3, 5]
    assert [line.split(" (")[0] for line in lines()] == [
        "copying: 2 of 10 rows",
        "copying: 5 of 10 rows",
    ]


def test_progress_counts_items_unless_told_otherwise(now, lines):
    for _ in progress("ab", 2, "merging", "files"):
        now[0] += 15
    assert lines()[0].startswith("merging: 1 of 2 files (50%)")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (600, "10:00"), (3599.6, "1:00:00"),
     (3723, "1:02:03"), (360_000, "100:00:00")],
)  # fmt: skip
def test_durations_read_as_minutes_or_hours(seconds, text):
    assert clock(seconds) == text
