import time

import click
import pytest

from streamer.cli.moments import Moment, in_utc


@pytest.mark.parametrize(
    ("text", "ago_ms"),
    [("90s", 90_000), ("10m", 600_000), ("2h", 7_200_000), ("1.5d", 129_600_000)],
)
def test_a_number_with_a_unit_counts_back_from_now(text, ago_ms, monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: 1_764_000_000_000_000_000)
    assert Moment().convert(text, None, None) == 1_764_000_000_000 - ago_ms


def test_a_date_and_time_with_an_offset_is_that_moment():
    assert Moment().convert("2025-11-23T13:14:20.5+01:00", None, None) == 1_763_900_060_500


@pytest.mark.parametrize("text", ["", "10", "m", "10 m", "1w", "2025-11-23", "2025-11-23T12:00:00"])
def test_anything_else_is_refused_with_what_would_be_right(text):
    with pytest.raises(click.BadParameter, match="neither a duration such as 90s, 10m"):
        Moment().convert(text, None, None)


def test_a_moment_is_shown_in_utc_also_where_the_calendar_ends():
    assert in_utc(1_763_900_060_500) == "2025-11-23 12:14:20"
    assert in_utc((1 << 48) - 1) == "281474976710655 ms"
