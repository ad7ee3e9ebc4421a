import json

import numpy as np
import oracle
import pytest

from streamer.errors import RejectedRecord
from streamer.events import LATEST_EVENT_TIME_MS, MAX_AHEAD_MS, EventType, RejectReason
from streamer.pipeline.records import Decoder, Partition, Record

PLAYS, BROWSES = Partition("play-events", 3), Partition("browse-events", 0)
NOW_MS = 1_764_000_000_000


def record(partition=PLAYS, offset=0, timestamp_ms=NOW_MS, **changes):
    event = {"type": "detail_view", "user_id": "u", "item_id": "i", "event_time": NOW_MS - 5}
    return Record(partition, offset, timestamp_ms, b"u", json.dumps(event | changes).encode())


def test_a_batch_becomes_columns_with_a_row_per_user():
    decoded = Decoder().decode(
        [
            record(user_id="u", item_id="i"),
            record(user_id="v", item_id="j", type="thumb_up"),
            record(BROWSES, user_id="u", item_id="j"),
        ]
    )
    assert decoded.user_ids == ["u", "v"]
    assert decoded.arrived.rows.tolist() == [0, 1, 0]
    assert decoded.arrived.item_keys.tolist() == [oracle.item_key(item) for item in "ijj"]
    assert decoded.arrived.words.tolist() == [
        oracle.word(NOW_MS - 5, 0, 3),
        oracle.word(NOW_MS - 5, 2, 6),
        oracle.word(NOW_MS - 5, 0, 3),
    ]
    assert decoded.arrived.forgotten_before_ms.tolist() == [0, 0]
    assert decoded.applied == {
        ("play-events", EventType.DETAIL_VIEW): 1,
        ("play-events", EventType.THUMB_UP): 1,
        ("browse-events", EventType.DETAIL_VIEW): 1,
    }


def test_a_bad_record_harms_no_other_and_keeps_its_place():
    bad = Record(PLAYS, 8, NOW_MS, b"u", b"\xff", [("trace", b"1")])
    decoded = Decoder().decode([record(offset=7), bad, record(offset=9)])
    assert decoded.rejected == [(bad, RejectReason.NOT_UTF8)]
    assert decoded.event_times_ms.tolist() == [NOW_MS - 5, -1, NOW_MS - 5]
    assert len(decoded.arrived.rows) == 2
    assert sum(decoded.applied.values()) == 2


@pytest.mark.parametrize("event_type", ["play_start", "impression"])
def test_an_event_without_evidence_is_applied_and_touches_no_history(event_type):
    decoded = Decoder().decode([record(type=event_type)])
    assert decoded.applied == {("play-events", EventType(event_type)): 1}
    assert (decoded.user_ids, decoded.rejected) == ([], [])
    assert decoded.event_times_ms.tolist() == [NOW_MS - 5]


def test_a_forget_reaches_five_minutes_past_its_own_record():
    """From the record's time, not from what the producer's clock says."""
    decoded = Decoder().decode(
        [
            record(type="forget", timestamp_ms=NOW_MS + 1),
            record(type="forget", timestamp_ms=NOW_MS),
            record(user_id="v"),
        ]
    )
    assert decoded.user_ids == ["u", "v"]
    assert decoded.arrived.forgotten_before_ms.tolist() == [NOW_MS + 1 + 300_000, 0]
    assert decoded.arrived.rows.tolist() == [1]


def test_a_forget_of_an_absurd_record_time_stays_within_what_an_event_can_reach():
    decoded = Decoder().decode([record(type="forget", timestamp_ms=2**62)])
    assert decoded.arrived.forgotten_before_ms.tolist() == [LATEST_EVENT_TIME_MS]


def test_no_records_are_nothing():
    decoded = Decoder().decode([])
    assert (decoded.user_ids, decoded.rejected, decoded.applied) == ([], [], {})
    assert decoded.arrived.rows.dtype == np.intp
    assert decoded.arrived.words.dtype == decoded.arrived.item_keys.dtype == np.uint64
    assert decoded.arrived.forgotten_before_ms.dtype == np.uint64


def test_remembered_item_keys_are_bounded_and_right():
    decoder = Decoder(max_remembered_items=3)
    for _ in range(2):
        decoded = decoder.decode([record(item_id=f"i{number}") for number in range(10)])
        expected = [oracle.item_key(f"i{number}") for number in range(10)]
        assert decoded.arrived.item_keys.tolist() == expected
        assert len(decoder._item_keys) <= 3


def test_a_rejection_says_its_reason_and_its_detail():
    assert str(RejectedRecord("too_large")) == "too_large"
    assert str(RejectedRecord("too_large", "65537 bytes")) == "too_large: 65537 bytes"
    assert RejectedRecord("too_large", "x").reason == "too_large"


def forgotten_before_ms(*headers, timestamp_ms=NOW_MS):
    forget = record(type="forget", timestamp_ms=timestamp_ms)._replace(headers=headers)
    return int(Decoder().decode([forget]).arrived.forgotten_before_ms[0])


def test_a_redriven_forget_counts_from_its_first_timestamp():
    asked_at_ms = NOW_MS - 86_400_000
    header = ("original_timestamp", b"%d" % asked_at_ms)
    assert forgotten_before_ms(("trace", b"1"), header) == asked_at_ms + MAX_AHEAD_MS


@pytest.mark.parametrize(
    "value",
    [b"%d" % (NOW_MS + 1), b"9" * 15, b"9" * 5000, b"-5", b"", b" 1", "¹".encode(), b"soon", None],
)
def test_no_header_makes_a_forget_reach_further_or_be_a_failure(value):
    header = ("original_timestamp", value)
    assert forgotten_before_ms(header) == forgotten_before_ms() == NOW_MS + MAX_AHEAD_MS


def test_a_redriven_record_is_judged_by_its_new_timestamp():
    """Time may have mended it: what was too far ahead then is not any more."""
    header = ("original_timestamp", b"%d" % (NOW_MS - 86_400_000))
    decoded = Decoder().decode([record()._replace(headers=(header,))])
    assert (len(decoded.arrived.rows), decoded.rejected) == (1, [])
