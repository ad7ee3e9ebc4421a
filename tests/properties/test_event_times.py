"""Event times against the oracle: RFC 3339 in every spelling, integers near the borders."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from oracle import AHEAD_MS, EARLIEST_MS, LATEST_MS, RefusedError, checked_time, rfc3339_ms
from strategies import examples

from streamer.errors import RejectedRecord
from streamer.events import RejectReason, decode_event
from streamer.events.times import parse_event_time

digits = st.text("0123456789", min_size=1, max_size=12)


def number(low, high, width):
    """A number of a fixed width, often just out of its range."""
    return st.integers(low, high).map(lambda value: f"{value:0{width}d}")


@st.composite
def spellings(draw):
    """RFC 3339, and what people take for it; about half are valid."""
    date = "-".join(
        (
            draw(st.one_of(number(1999, 2030, 4), number(0, 9999, 4))),
            draw(number(1, 12, 2)) if draw(st.integers(0, 9)) else draw(number(0, 13, 2)),
            draw(st.one_of(number(1, 28, 2), number(0, 32, 2))),
        )
    )
    second = draw(st.one_of(number(0, 60, 2), number(0, 61, 2)))
    clock = ":".join((draw(number(0, 24, 2)), draw(number(0, 60, 2)), second))
    fraction = draw(st.one_of(st.just(""), digits.map(".{}".format), st.sampled_from([".", ",5"])))
    zone = draw(
        st.one_of(
            st.sampled_from(["Z", "z", "+00:00", "-00:00", "+23:59", "-23:59", "", "+0100", "+24"]),
            st.builds("{}{}:{}".format, st.sampled_from("+-"), number(0, 24, 2), number(0, 60, 2)),
        )
    )
    return date + draw(st.sampled_from("TTTTt _")) + clock + fraction + zone


def judged(text):
    try:
        return rfc3339_ms(text)
    except RefusedError:
        return RejectReason.BAD_EVENT_TIME


def parsed(value):
    try:
        return parse_event_time(value)
    except RejectedRecord as error:
        return error.reason


@given(spellings())
@example("2016-12-31T23:59:60Z")
@example("2016-12-31T23:59:60.999+00:00")
@example("2017-01-01T05:29:60+05:30")
@example("1969-12-31T23:59:59.9999Z")
@example("2024-02-29T00:00:00Z")
@example("2023-02-29T00:00:00Z")
@example("1900-02-29T00:00:00Z")
@example("2000-02-29T00:00:00Z")
@example("9999-12-31T23:59:60-23:59")
@example("0001-01-01T00:00:00+23:59")
@examples(500)
def test_a_spelled_time_is_what_the_oracle_reads(text):
    if text.startswith("0000"):  # Python knows no year 0; a dead letter either way
        assert parsed(text) == RejectReason.BAD_EVENT_TIME
    else:
        assert parsed(text) == judged(text)


@given(st.text(max_size=40))
@examples(100)
def test_any_text_is_a_time_or_is_refused(text):
    assert parsed(text) == judged(text)


@given(st.datetimes(), st.integers(0, 30), st.sampled_from("０١۵"))
@examples(50)
def test_digits_are_ascii(when, position, digit):
    text = when.replace(microsecond=0).isoformat() + "Z"
    spoiled = text[:position] + digit + text[position + 1 :]
    assert isinstance(parsed(text), int)
    assert parsed(spoiled) == RejectReason.BAD_EVENT_TIME


near_a_border = st.one_of(
    *(
        st.integers(border - 3, border + 3)
        for border in (0, EARLIEST_MS, LATEST_MS, 1 << 53, 1 << 63, 1 << 64, -(1 << 63))
    )
)
record_times_ms = st.one_of(
    st.sampled_from([-1, 0, EARLIEST_MS, LATEST_MS, 1_764_000_000_000, (1 << 63) - 1]),
    st.integers(0, LATEST_MS),
)


@given(near_a_border | st.integers(-4, 4), record_times_ms, st.booleans())
@examples(300)
def test_integers_near_the_borders_are_judged_as_by_the_oracle(event_time, record_ms, relative):
    if relative:  # near "5 minutes ahead" instead
        event_time = record_ms + AHEAD_MS + event_time % 7 - 3
    value = b'{"type":"impression","user_id":"u","item_id":"i","event_time":%d}' % event_time
    try:
        checked_time(event_time, record_ms)
    except RefusedError:
        with pytest.raises(RejectedRecord):
            decode_event(value, record_ms)
    else:
        assert decode_event(value, record_ms).event_time_ms == event_time
