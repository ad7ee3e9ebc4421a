from hashlib import sha256

import orjson
import pytest
from worlds import NOW_MS

from streamer.kafka.dead_letters import _headers, _stand_in
from streamer.kafka.letters import (
    Redriven,
    letter_of,
    marked_by,
    marker,
    next_redrive,
    redriven_headers,
    split_redriven,
)
from streamer.pipeline.records import Partition, Record, Rejected

PLAYS = Partition("play-events", 3)
DLQ = Partition("play-events.dlq", 0)


def in_dlq(value=b"bad", headers=(), *, key=b"viewer", at_ms=NOW_MS, offset=9, more=()):
    """A record of a dead-letter topic, as a worker writes it."""
    rejected = Rejected(Record(PLAYS, 7, NOW_MS, key, value, headers), "not_json")
    return Record(DLQ, offset, at_ms, key, value, (*headers, *_headers(rejected), *more))


def test_a_letter_says_what_was_rejected_where_and_why():
    record = in_dlq(headers=(("trace", b"abc"),))
    letter = letter_of(record)
    assert (letter.place, letter.offset, letter.reason) == (PLAYS, 7, "not_json")
    assert letter.record == record
    assert letter.headers == (("trace", b"abc"),)
    assert letter.timestamp_ms == NOW_MS
    assert not letter.is_reduced
    assert letter.redriven is None


def test_original_headers_with_the_names_of_ours_are_kept_and_not_believed():
    theirs = (("offset", b"1"), ("reason", b"mine"), ("timestamp", b"5"), ("topic", None))
    letter = letter_of(in_dlq(headers=theirs))
    assert letter.headers == theirs
    assert (letter.reason, letter.offset, letter.timestamp_ms) == ("not_json", 7, NOW_MS)


def test_a_letter_of_hash_and_size_is_reduced():
    large = Record(PLAYS, 7, NOW_MS, None, b"x" * 70_000)
    letter = letter_of(in_dlq(_stand_in(large), key=None))
    assert letter.is_reduced
    assert letter.timestamp_ms == NOW_MS
    assert orjson.loads(letter.record.value)["sha256"] == sha256(large.value).hexdigest()


@pytest.mark.parametrize("more", [{"key": b"viewer"}, {"headers": (("trace", b"1"),)}])
def test_a_value_that_looks_like_hash_and_size_beside_a_key_or_headers_is_whole(more):
    value = _stand_in(Record(PLAYS, 7, NOW_MS, None, b"x"))
    assert not letter_of(in_dlq(value, **{"key": None, **more})).is_reduced


def test_a_letter_that_the_broker_refused_is_reduced_and_has_the_time_of_its_record():
    value = _stand_in(Record(PLAYS, 7, NOW_MS, None, b"x"))
    more = (("timestamp", b"%d" % (NOW_MS - 1)),)
    letter = letter_of(in_dlq(value, key=None, at_ms=NOW_MS + 5000, more=more))
    assert letter.is_reduced
    assert letter.timestamp_ms == NOW_MS - 1


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("reason", b"not_json"), ("topic", b"t"), ("partition", b"0")),
        (("reason", b"not_json"), ("topic", b"t"), ("offset", b"0"), ("partition", b"0")),
        (("reason", None), ("topic", b"t"), ("partition", b"0"), ("offset", b"1")),
        (("reason", b"No\n"), ("topic", b"t"), ("partition", b"0"), ("offset", b"1")),
        (("reason", b"not_json"), ("topic", b"\xff"), ("partition", b"0"), ("offset", b"1")),
        (("reason", b"not_json"), ("topic", b"t"), ("partition", b"-1"), ("offset", b"1")),
        (("reason", b"not_json"), ("topic", b"t"), ("partition", b"0"), ("offset", b"1e3")),
        (("reason", b"not_json"), ("topic", b"t"), ("partition", b"0"), ("offset", b"9" * 5000)),
        (("timestamp", b"soon"),),
        (("timestamp", None),),
    ],
)
def test_what_has_no_headers_of_ours_is_no_letter(headers):
    assert letter_of(Record(DLQ, 9, NOW_MS, b"k", b"v", headers)) is None


def test_a_redriven_record_that_is_rejected_again_counts_its_attempts_and_keeps_its_origin():
    first = letter_of(in_dlq(headers=(("trace", b"abc"),)))
    once = next_redrive(first)
    assert once == Redriven(PLAYS, 7, NOW_MS, 1)
    again = letter_of(in_dlq(headers=(*first.headers, *redriven_headers(once)), at_ms=NOW_MS + 9))
    assert again.headers == (("trace", b"abc"),)
    assert again.redriven == once
    assert next_redrive(again) == Redriven(PLAYS, 7, NOW_MS, 2)


@pytest.mark.parametrize(
    "origin", [b"t/0", b"t/x/1", b"/0/1", b"t/0/1/2", b"\xff", b"t/0/-1", b"", None]
)
def test_headers_that_only_look_like_those_of_a_redrive_are_original_ones(origin):
    headers = (
        ("redriven_from", origin),
        ("original_timestamp", b"1"),
        ("redrive_attempt", b"1"),
    )
    assert split_redriven(headers) == (headers, None)


def test_a_marker_names_the_letters_that_it_marks_and_is_no_letter():
    headers, value = marker([2, 3, 4, 7, 9, 10])
    record = Record(DLQ, 50, NOW_MS, None, value, headers)
    assert marked_by(record) == [(2, 4), (7, 7), (9, 10)]
    assert letter_of(record) is None
    assert marked_by(in_dlq()) is None


def test_a_marker_speaks_of_what_stands_before_it_only():
    headers, _ = marker([1])
    record = Record(DLQ, 50, NOW_MS, None, b"[[10,100000000000]]", headers)
    assert marked_by(record) == [(10, 49)]


@pytest.mark.parametrize(
    "value", [None, b"", b"{", b"3", b"[3]", b"[[1]]", b'[["a",1]]', b"[null]"]
)
def test_a_broken_marker_marks_nothing(value):
    headers, _ = marker([1])
    assert marked_by(Record(DLQ, 50, NOW_MS, None, value, headers)) is None
