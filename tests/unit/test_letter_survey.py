import json

import orjson
import pytest
from worlds import NOW_MS, event

from streamer.kafka.letter_content import find_user, oldest_evidence_ms
from streamer.kafka.letter_survey import MAX_GROUPS, OTHER, Fate, LetterFilter, Survey
from streamer.kafka.letters import Redriven, letter_of, marker, redriven_headers
from streamer.pipeline.records import Partition, Record

DLQ = Partition("play-events.dlq", 0)
STAND_IN = b'{"sha256":"%s","size":70000}' % (b"0" * 64)


def letter(offset, reason="not_json", value=b"{", *, topic="play-events", at_ms=NOW_MS, **more):
    """A letter of the record at 100 + its own offset."""
    headers = (
        *more.get("headers", ()),
        ("reason", reason.encode()),
        ("topic", topic.encode()),
        ("partition", b"2"),
        ("offset", b"%d" % (100 + offset)),
    )
    partition = Partition(f"{topic}.dlq", more.get("number", 0))
    return Record(partition, offset, at_ms, more.get("key"), value, headers)


def mark(offset, *letters, partition=DLQ):
    headers, value = marker(letters)
    return Record(partition, offset, NOW_MS, None, value, headers)


def survey_of(*records, **options):
    survey = Survey(".dlq", **options)
    survey.take(records)
    return survey


def counts(survey):
    """Each group's letters by fate."""
    return {
        (group.topic, group.reason): {str(fate): n for fate, n in group.fates.items() if n}
        for group in survey.groups
    }


def test_letters_are_counted_by_topic_and_reason_with_their_first_and_last_time():
    survey = survey_of(
        letter(0, at_ms=NOW_MS + 5),
        letter(1, at_ms=NOW_MS - 5),
        letter(2, "bad_number"),
        letter(0, topic="browse-events"),
        max_samples=1,
    )
    assert counts(survey) == {
        ("play-events", "not_json"): {"waiting": 2},
        ("play-events", "bad_number"): {"waiting": 1},
        ("browse-events", "not_json"): {"waiting": 1},
    }
    group = survey.groups[1]
    assert (group.reason, group.first_ms, group.last_ms) == ("not_json", NOW_MS - 5, NOW_MS + 5)
    assert [sample.record.offset for sample in group.samples] == [1]  # the newest


def test_a_marked_letter_is_redriven_and_no_longer_waits():
    records = [letter(5), letter(6), letter(9, "bad_number"), mark(10, 5, 9), letter(11)]
    survey = survey_of(*records)
    assert counts(survey) == {
        ("play-events", "not_json"): {"waiting": 2, "redriven": 1},
        ("play-events", "bad_number"): {"redriven": 1},
    }
    assert [waiting.record.offset for waiting in survey.waiting(records)] == [6, 11]


def test_a_letter_that_is_marked_twice_is_redriven_once():
    survey = survey_of(letter(5), mark(6, 5), mark(7, 5))
    assert survey.fates == {Fate.REDRIVEN: 1}


def test_a_marker_is_of_its_own_partition_only():
    survey = survey_of(letter(5, number=1), letter(5), mark(6, 5))
    assert survey.fates == {Fate.WAITING: 1, Fate.REDRIVEN: 1}
    (waiting,) = survey.waiting([letter(5, number=1), letter(5)])
    assert waiting.record.partition.number == 1


def test_a_marker_beyond_what_was_read_marks_only_what_is_there():
    wild = Record(DLQ, 10**12, NOW_MS, None, b"[[-7,999999999999]]", (("redriven", b"1"),))
    assert survey_of(letter(5), wild).fates == {Fate.REDRIVEN: 1}


def test_what_comes_after_the_first_reading_does_not_wait():
    survey = survey_of(letter(5))
    assert [each.record.offset for each in survey.waiting([letter(5), letter(6)])] == [5]


def test_letters_of_another_topic_are_foreign_and_never_redriven():
    """Whoever can write to a dead-letter topic could otherwise write to any topic."""
    other = letter(6, topic="secrets")._replace(partition=DLQ)
    survey = survey_of(letter(5), other, Record(DLQ, 7, NOW_MS, b"k", b"v"))
    assert survey.n_foreign == 2
    assert [each.record.offset for each in survey.waiting([letter(5), other])] == [5]


def test_reduced_letters_do_not_wait():
    records = [letter(5, "too_large", STAND_IN), letter(6)]
    survey = survey_of(*records)
    assert survey.fates == {Fate.REDUCED: 1, Fate.WAITING: 1}
    assert [each.record.offset for each in survey.waiting(records)] == [6]


def test_evidence_that_is_older_than_a_forgotten_users_marker_does_not_wait():
    old, new = event("u", "i", NOW_MS - 11), event("u", "i", NOW_MS - 10)
    survey = survey_of(
        letter(1, value=old),  # its event is older than its record
        letter(2, value=new),
        letter(3, at_ms=NOW_MS - 11),  # says nothing of its event
        letter(4),
        letter(5, value=event("u", None, NOW_MS - 99, "forget"), at_ms=NOW_MS - 99),
        letter(6, "before_2000", event("u", "i", 123)),  # a clock that was never set
        expired_before_ms=NOW_MS - 10,
    )
    assert survey.fates == {Fate.EXPIRED: 2, Fate.WAITING: 4}


def test_a_letter_that_failed_again_is_counted_with_its_attempts():
    again = redriven_headers(Redriven(Partition("play-events", 0), 1, NOW_MS, 3))
    (group,) = survey_of(letter(5, headers=again), letter(6)).groups
    assert (group.n_letters, group.n_failed_again, group.max_attempts) == (2, 1, 3)


@pytest.mark.parametrize(
    ("letter_filter", "offsets"),
    [
        (LetterFilter(), [1, 2, 3]),
        (LetterFilter(topics=frozenset({"browse-events"})), []),
        (LetterFilter(reasons=frozenset({"bad_number"})), [2]),
        (LetterFilter(since_ms=NOW_MS + 2), [2, 3]),
        (LetterFilter(until_ms=NOW_MS + 2), [1]),
    ],
)
def test_a_filter_means_some_letters_and_the_rest_is_not_counted(letter_filter, offsets):
    records = [
        letter(n, "bad_number" if n == 2 else "not_json", at_ms=NOW_MS + n) for n in (1, 2, 3)
    ]
    survey = survey_of(*records, letter_filter=letter_filter)
    assert [each.record.offset for each in survey.waiting(records)] == offsets
    assert survey.fates.total() == len(offsets)


def test_endless_reasons_do_not_make_endless_groups():
    survey = survey_of(*(letter(n, f"r{n}") for n in range(MAX_GROUPS + 50)))
    assert len(survey.groups) == MAX_GROUPS + 1
    assert {group.reason: group.n_letters for group in survey.groups}[OTHER] == 50


def test_progress_is_told_to_the_last_record():
    told = []
    Survey(".dlq").take((letter(n) for n in range(2500)), told.append)
    assert told == [1000, 2000, 2500]
    Survey(".dlq").take([], told.append)
    assert told[-1] == 0


@pytest.mark.parametrize(
    ("value", "key", "where"),
    [
        (b"{", b"u-1", "key"),
        (b'{"user_id":"u-1"}', b"else", "user_id"),
        (b'{"user_id": "u-1", "item_id":', None, "text"),
        (b'[{"user_id":"u-1"}]', None, "text"),
        (b'{"user_id":"u-11"}', None, None),
        (b'{"user_id":"u-2"}', b"u-11", None),
        (b"u-1", None, None),
        (None, None, None),
    ],
)
def test_a_users_letters_are_found_by_key_by_field_and_by_quoted_text(value, key, where):
    assert find_user(letter_of(letter(1, value=value, key=key)), "u-1") == where


def test_a_users_letters_are_found_whatever_the_id_looks_like():
    user_id = 'ü"\\x'
    value = json.dumps({"user_id": user_id}, ensure_ascii=True).encode()
    assert find_user(letter_of(letter(1, value=value)), user_id) == "user_id"
    assert find_user(letter_of(letter(1, value=orjson.dumps([user_id]))), user_id) == "text"


def test_a_reduced_letter_is_nobodys():
    assert find_user(letter_of(letter(1, value=STAND_IN)), "0" * 64) is None


def test_the_time_of_evidence_is_the_earlier_of_event_and_record():
    def oldest(value):
        return oldest_evidence_ms(letter_of(letter(1, value=value)))

    assert oldest(event("u", "i", NOW_MS - 1)) == NOW_MS - 1
    assert oldest(event("u", "i", NOW_MS + 1)) == NOW_MS
    assert oldest(b"{") == NOW_MS
    assert oldest(event("u", None, NOW_MS - 1, "forget")) is None
