"""Records against the oracle: the same are refused, and the rest bring the same evidence."""

import json

import oracle
from hypothesis import given
from hypothesis import strategies as st
from judges import ensure_records_are_judged_as_by_the_oracle, verdict_of
from strategies import BASE_MS, examples

from streamer.events import RejectReason
from streamer.pipeline.records import Partition, Record

PARTITION = Partition("play-events", 0)

any_number = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, -0.0, 29.999, 30, 30.0, 600, 1 << 64, 10**30])
)
any_json = st.recursive(
    st.none() | st.booleans() | any_number | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
ids = st.one_of(
    st.sampled_from(["u-1", "title-9", "ünï", "😀" * 32, "x" * 128, "\u200b", " "]),
    st.sampled_from(["", "x" * 129, "é" * 65, "a\x00", "\x1f", "\x7f", "b\x85", "\x9fc"]),
    st.text(max_size=4),
)
seconds = st.one_of(
    st.integers(0, 7200), st.floats(0, 7200), st.sampled_from([0, 1, 29, 30, 31]), any_number
)
event_times = st.one_of(
    st.integers(BASE_MS - 10_000, BASE_MS),
    st.integers(BASE_MS + oracle.AHEAD_MS - 2, BASE_MS + oracle.AHEAD_MS + 2),
    st.datetimes().map(lambda when: when.isoformat() + "+02:00"),
    st.just("2025-11-23T19:08:00.123Z"),
    st.just("2025-11-23T19:08:00"),
)


@st.composite
def events(draw):
    """An event, most often valid, with any field missing or replaced by anything."""
    event = {
        "type": draw(st.sampled_from(oracle.TYPES)),
        "user_id": "u-1842",
        "item_id": "title-501",
        "event_time": BASE_MS,
        "watched_s": draw(seconds),
        "duration_s": draw(seconds),
        "context": {"surface": "home"},
    }
    fields = {"user_id": ids, "item_id": ids, "event_time": event_times}
    for name in draw(st.lists(st.sampled_from(list(fields)), max_size=2, unique=True)):
        event[name] = draw(fields[name])
    for name in draw(st.lists(st.sampled_from(list(event)), max_size=1)):
        event[name] = draw(any_json)
    for name in draw(st.lists(st.sampled_from(list(event)), max_size=1)):
        del event[name]
    return event


def spelled(event, ascii_only):
    """JSON, also with the literals that are none: NaN, Infinity, half of a surrogate pair."""
    return json.dumps(event, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


def ensure_judged_as_by_the_oracle(values, record_time_ms=BASE_MS):
    ensure_records_are_judged_as_by_the_oracle(
        [
            Record(PARTITION, offset, record_time_ms, b"k", value)
            for offset, value in enumerate(values)
        ]
    )


@given(st.lists(events(), min_size=1, max_size=3), st.booleans())
@examples(600)
def test_an_event_is_judged_as_by_the_oracle(batch, ascii_only):
    ensure_judged_as_by_the_oracle([spelled(event, ascii_only) for event in batch])


@given(seconds, seconds, st.sampled_from(oracle.PLAYED))
@examples(300)
def test_a_viewing_is_rounded_as_by_the_oracle(watched_s, duration_s, event_type):
    event = {
        "type": event_type,
        "user_id": "u",
        "item_id": "i",
        "event_time": BASE_MS,
        "watched_s": watched_s,
        "duration_s": duration_s,
    }
    ensure_judged_as_by_the_oracle([spelled(event, ascii_only=True)])


@given(any_json, st.booleans())
@examples(100)
def test_any_json_is_judged_as_by_the_oracle(value, ascii_only):
    ensure_judged_as_by_the_oracle([spelled(value, ascii_only)])


@given(st.one_of(st.none(), st.binary(max_size=60)), st.integers(-(1 << 63), (1 << 63) - 1))
@examples(150)
def test_any_bytes_are_judged_as_by_the_oracle(value, record_time_ms):
    ensure_judged_as_by_the_oracle([value], record_time_ms)


@given(events(), st.integers(0, 1 << 30), st.binary(max_size=3))
@examples(200)
def test_a_damaged_event_is_judged_as_by_the_oracle(event, position, splice):
    value = spelled(event, ascii_only=False)
    position %= len(value)
    ensure_judged_as_by_the_oracle([value[:position] + splice + value[position + len(splice) :]])


@given(st.one_of(st.none(), st.binary(max_size=200)))
@examples(100)
def test_nothing_of_a_refused_value_is_in_the_message(value):
    verdict = verdict_of(value, BASE_MS)  # compares the message with the reason
    assert isinstance(verdict, RejectReason)
