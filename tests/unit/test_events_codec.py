"""One example per cause of a rejection, and of what is still accepted right beside it."""

import json
import re

import oracle
import pytest

from streamer.errors import RejectedRecord
from streamer.events import (
    EARLIEST_EVENT_TIME_MS,
    LATEST_EVENT_TIME_MS,
    MAX_VALUE_BYTES,
    EventType,
    Kind,
    RejectReason,
    decode_event,
    is_id,
)

NOW_MS = 1_764_000_000_000
EVENT = {
    "type": "play_stop",
    "event_id": "6f1c",
    "user_id": "u-1842",
    "item_id": "title-501",
    "event_time": NOW_MS,
    "watched_s": 2710,
    "duration_s": 3120,
    "context": {"surface": "home"},
}
TEMPLATE = '{"type":"impression","user_id":"u","item_id":"i","event_time":1764000000000,"x":%s}'


def spelled(**changes):
    """An event as bytes; `...` leaves a field out."""
    event = {name: value for name, value in (EVENT | changes).items() if value is not ...}
    return json.dumps(event).encode()


def padded(n_bytes):
    """A valid event of exactly so many bytes."""
    value = spelled(pad="")
    return spelled(pad="x" * (n_bytes - len(value)))


def reason_of(value, record_timestamp_ms=NOW_MS):
    with pytest.raises(RejectedRecord) as caught:
        decode_event(value, record_timestamp_ms)
    assert oracle.verdict(value, record_timestamp_ms) is None
    return caught.value.reason


def is_accepted(value, record_timestamp_ms=NOW_MS):
    event = decode_event(value, record_timestamp_ms)
    assert oracle.verdict(value, record_timestamp_ms).user_id == event.user_id
    return True


REJECTED = [
    # the value as a whole
    (None, "empty_value"),
    (b"", "empty_value"),
    (padded(MAX_VALUE_BYTES + 1), "too_large"),
    (b"\xff" * (MAX_VALUE_BYTES + 1), "too_large"),
    (b"\xff", "not_utf8"),
    (spelled(user_id="u").replace(b'"u"', b'"\xed\xa0\x80"'), "not_utf8"),
    (b"not json", "not_json"),
    (b"{", "not_json"),
    (spelled() + b"{}", "not_json"),
    (spelled() + b"\0", "not_json"),
    (b"\xef\xbb\xbf" + spelled(), "not_json"),
    (spelled().decode().encode("utf-16-le"), "not_json"),
    ((TEMPLATE % "NaN").encode(), "not_json"),
    ((TEMPLATE % "-Infinity").encode(), "not_json"),
    ((TEMPLATE % "1e999").encode(), "not_json"),
    ((TEMPLATE % ("1" + "0" * 400)).encode(), "not_json"),
    ((TEMPLATE % r'"\ud800"').encode(), "not_json"),
    ((TEMPLATE % r'"\udc00\ud800"').encode(), "not_json"),
    ((TEMPLATE % '"\n"').encode(), "not_json"),
    ((TEMPLATE % ("[" * 5000 + "]" * 5000)).encode(), "not_json"),
    (b"[" + spelled() + b"]", "not_an_object"),
    (b"null", "not_an_object"),
    (b"17", "not_an_object"),
    (b'"play_stop"', "not_an_object"),
    # type
    (b"{}", "unknown_type"),
    (spelled(type=...), "unknown_type"),
    (spelled(type="rewatch"), "unknown_type"),
    (spelled(type="PLAY_STOP"), "unknown_type"),
    (spelled(type=None), "unknown_type"),
    (spelled(type=3), "unknown_type"),
    (spelled(type=["play_stop"]), "unknown_type"),
    (spelled(type={"play_stop": 1}), "unknown_type"),
    # ids
    *(
        (spelled(**{field: bad}), f"bad_{field}")
        for field in ("user_id", "item_id")
        for bad in (
            ...,
            None,
            "",
            7,
            True,
            ["u"],
            "x" * 129,
            "é" * 64 + "x",
            "😀" * 33,
            "a\x00b",
            "\x1f",
            "\n",
            "tab\t",
            "\x7f",
            "\x80",
            "a\x85",
            "\x9f",
        )
    ),
    # event time
    *(
        (spelled(event_time=bad), "bad_event_time")
        for bad in (
            ...,
            None,
            True,
            float(NOW_MS),
            str(NOW_MS),
            [NOW_MS],
            "",
            "2025-11-23",
            "2025-11-23T19:08:00",
            "2025-11-23T19:08:00.123",
            "2025-02-30T19:08:00Z",
        )
    ),
    (spelled(event_time=EARLIEST_EVENT_TIME_MS - 1), "before_2000"),
    (spelled(event_time="1999-12-31T23:59:59.999Z"), "before_2000"),
    (spelled(event_time=0), "before_2000"),
    (spelled(event_time=-NOW_MS), "before_2000"),
    (spelled(event_time=NOW_MS + 300_001), "too_far_ahead"),
    (spelled(event_time=2**63), "too_far_ahead"),
    (spelled(type="forget", event_time=NOW_MS + 300_001), "too_far_ahead"),
    (spelled(type="forget", event_time=...), "bad_event_time"),
    # numbers
    *(
        (spelled(type=event_type, **{field: bad}), "bad_number")
        for event_type in ("play_stop", "play_progress")
        for field in ("watched_s", "duration_s")
        for bad in (..., None, True, "60", [60], -1, -0.001, -(2**70))
    ),
    (spelled(duration_s=0), "bad_number"),
    (spelled(duration_s=-0.0), "bad_number"),
    (spelled(watched_s=float("nan")), "not_json"),
    (spelled(duration_s=float("inf")), "not_json"),
]


@pytest.mark.parametrize(("value", "reason"), REJECTED)
def test_a_record_that_cannot_be_learned_from_says_why(value, reason):
    assert reason_of(value) == reason


def test_every_reason_has_an_example():
    reasons = {reason for _, reason in REJECTED} | {RejectReason.NO_RECORD_TIMESTAMP}
    assert reasons == set(RejectReason)


@pytest.mark.parametrize("timestamp_ms", [-1, -(2**63)])
def test_a_record_without_a_timestamp_cannot_be_judged(timestamp_ms):
    assert reason_of(spelled(), timestamp_ms) == RejectReason.NO_RECORD_TIMESTAMP


@pytest.mark.parametrize(
    "value",
    [
        padded(MAX_VALUE_BYTES),
        b" \t\r\n" + spelled() + b"\n",
        spelled(user_id="x" * 128),
        spelled(user_id="é" * 64),
        spelled(user_id="😀" * 32),
        spelled(user_id=" "),
        spelled(user_id="\u00a0\u200b\u2028\ue000"),  # odd, but no control characters
        spelled(user_id="a:b{c}/d\\e"),
        spelled(event_time=EARLIEST_EVENT_TIME_MS),
        spelled(event_time="2000-01-01T00:00:00Z"),
        spelled(event_time="2000-01-01T01:00:00+01:00"),
        spelled(event_time=NOW_MS + 300_000),
        spelled(watched_s=0),
        spelled(watched_s=-0.0),
        spelled(watched_s=2**70),
        spelled(duration_s=5e-324),
        spelled(type="play_start", watched_s=..., duration_s=...),
        spelled(type="detail_view", watched_s=-1, duration_s="long"),  # not looked at
        spelled(type="forget", item_id=...),
        spelled(type="forget", item_id=""),
        spelled(event_id=..., context=...),
        spelled(event_id=None, context=[], unheard_of={"of": 1}),
        b'{"type":"nonsense",' + spelled()[1:],  # the last of two equal names counts
        spelled(type="detail_view", user_id="\ud83d\ude00"),
    ],
)
def test_what_is_odd_but_allowed_is_accepted(value):
    assert is_accepted(value)


def test_an_events_fields_are_read():
    event = decode_event(spelled(event_time="2025-11-24T16:00:00.1239Z"), NOW_MS)
    assert event == (
        EventType.PLAY_STOP,
        "u-1842",
        "title-501",
        1_764_000_000_123,
        (Kind.PLAY, 174),
        3120.0,
    )


def test_a_forget_needs_no_item_and_has_none():
    event = decode_event(spelled(type="forget"), NOW_MS)
    assert (event.type, event.item_id, event.evidence) == (EventType.FORGET, None, None)


def test_an_event_may_be_five_minutes_ahead_of_its_own_record_only():
    late = spelled(event_time=NOW_MS)
    assert is_accepted(late, NOW_MS - 300_000)
    assert reason_of(late, NOW_MS - 300_001) == RejectReason.TOO_FAR_AHEAD
    assert is_accepted(late, NOW_MS + 10**12)  # late events are welcome


def test_an_event_time_must_fit_its_entry_whatever_the_record_says():
    assert is_accepted(spelled(event_time=LATEST_EVENT_TIME_MS), 2**62)
    assert reason_of(spelled(event_time=LATEST_EVENT_TIME_MS + 1), 2**62) == "too_far_ahead"


def test_a_reason_is_a_label_and_the_message_holds_nothing_of_the_value():
    value = spelled(user_id="secret\x00")
    with pytest.raises(RejectedRecord) as caught:
        decode_event(value, NOW_MS)
    assert caught.value.reason in set(RejectReason)
    assert "secret" not in str(caught.value)


def test_reasons_and_types_are_labels_of_metrics():
    for label in (*RejectReason, *EventType):
        assert re.fullmatch("[a-z][a-z0-9_]*", label)
    assert set(EventType) == set(oracle.TYPES)


@pytest.mark.parametrize("value", [None, 1, b"bytes", "", "x" * 129, "\x00", "\x9f"])
def test_an_id_is_a_short_string_without_control_characters(value):
    assert not is_id(value)
    assert is_id("x" * 128)


@pytest.mark.parametrize("code_point", range(0x100))
def test_control_characters_are_those_of_unicode(code_point):
    is_control = code_point < 0x20 or 0x7F <= code_point < 0xA0
    assert is_id(chr(code_point)) is not is_control
    assert is_id(f"ünï{chr(code_point)}") is not is_control
