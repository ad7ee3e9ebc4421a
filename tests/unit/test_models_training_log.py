import json

import numpy as np
import pytest

from streamer.errors import ModelError
from streamer.events import Kind
from streamer.history import event_times_ms, item_key, kinds, values
from streamer.models.training_log import collect_log, read_lines

T0 = 1_700_000_000_000
MINUTE = 60_000


def event(kind, user, item, minute, **fields):
    payload = {"type": kind, "user_id": user, "event_time": T0 + minute * MINUTE, **fields}
    if item is not None:
        payload["item_id"] = item
    return json.dumps(payload).encode()


def play(user, item, minute, watched_s=1000):
    return event("play_stop", user, item, minute, watched_s=watched_s, duration_s=1000)


def in_a_file(*lines):
    return [(line, None) for line in lines]


def entries(log):
    return [
        (log.user_ids[user], log.item_ids[item], Kind(kind), value, (time_ms - T0) // MINUTE)
        for user, item, kind, value, time_ms in zip(
            log.users,
            log.items,
            kinds(log.words).tolist(),
            values(log.words).tolist(),
            event_times_ms(log.words).tolist(),
            strict=True,
        )
    ]


def test_a_log_is_in_order_of_time_and_its_ids_are_in_order():
    log = collect_log(in_a_file(play("v", "x", 2), play("u", "y", 1), play("v", "a", 3)))
    assert log.user_ids == ["u", "v"]
    assert log.item_ids == ["a", "x", "y"]
    assert log.item_keys.tolist() == [item_key(item_id) for item_id in "axy"]
    assert entries(log) == [
        ("u", "y", Kind.PLAY, 200, 1),
        ("v", "x", Kind.PLAY, 200, 2),
        ("v", "a", Kind.PLAY, 200, 3),
    ]
    assert log.newest_ms == T0 + 3 * MINUTE


def test_the_order_of_arrival_does_not_matter():
    lines = [play(f"u{n % 7}", f"i{n % 5}", n % 11, watched_s=100 + n) for n in range(60)]
    logs = [collect_log(in_a_file(*some)) for some in (lines, lines[::-1])]
    assert entries(logs[0]) == entries(logs[1])
    assert logs[0].user_ids == logs[1].user_ids


def test_the_last_writer_of_each_user_item_and_kind_wins():
    log = collect_log(
        in_a_file(
            play("u", "x", 1),
            event("thumb_up", "u", "x", 2),
            play("u", "x", 3, watched_s=500),
            event("thumb_clear", "u", "x", 4),
            play("v", "x", 2),
            play("v", "x", 2),
        )
    )
    assert entries(log.last_writers()) == [
        ("v", "x", Kind.PLAY, 200, 2),
        ("u", "x", Kind.PLAY, 100, 3),
        ("u", "x", Kind.THUMB, 0, 4),
    ]


def test_events_without_evidence_count_and_leave_nothing():
    log = collect_log(in_a_file(event("impression", "u", "x", 5), play("u", "y", 1)))
    assert (log.n_events, len(log), log.item_ids) == (2, 1, ["y"])
    assert log.newest_ms == T0 + 5 * MINUTE


def test_bad_records_are_counted_by_reason_and_skipped():
    log = collect_log(
        in_a_file(b"{", play("u", "x", 1), b"[]", b"nonsense", event("wink", "u", "x", 1))
    )
    assert log.n_events == 1
    assert log.rejected == {"not_json": 2, "not_an_object": 1, "unknown_type": 1}


def test_a_log_without_any_valid_event_is_an_error_that_says_why():
    with pytest.raises(ModelError, match="no valid event to train on; rejected: 2 not_json"):
        collect_log(in_a_file(b"{", b"}"))
    with pytest.raises(ModelError, match="rejected: nothing"):
        collect_log([])


def test_what_a_viewer_asked_to_forget_is_not_trained_on():
    log = collect_log(
        in_a_file(
            play("u", "x", 0),
            play("u", "y", 15),
            play("u", "z", 16),
            play("v", "x", 0),
            event("forget", "u", None, 10),
        )
    )
    assert [(user, item) for user, item, *_ in entries(log)] == [("v", "x"), ("u", "z")]


def test_the_cut_off_of_a_forget_counts_from_its_records_timestamp_where_there_is_one():
    records = [
        (play("u", "x", 24), T0 + 24 * MINUTE),
        (play("u", "y", 26), T0 + 26 * MINUTE),
        (event("forget", "u", None, 10), T0 + 20 * MINUTE),
    ]
    assert [item for _, item, *_ in entries(collect_log(records))] == ["y"]


def test_a_record_of_kafka_may_not_be_far_ahead_of_its_timestamp_and_a_line_may():
    value = play("u", "x", 6)
    assert collect_log([(value, None), (value, T0)]).rejected == {"too_far_ahead": 1}


def test_lines_are_read_with_any_line_end_and_without_blank_ones(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"one\r\n\n  \ntwo\nthree")
    assert [line for line, _ in read_lines(path)] == [b"one", b"two", b"three"]


def test_a_line_without_end_is_one_bad_record_and_not_much_memory(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"x": "' + b"y" * 1_000_000 + b'"}\n' + play("u", "x", 1))
    lines = [line for line, _ in read_lines(path)]
    assert max(map(len, lines)) < 70_000
    log = collect_log((line, None) for line in lines)
    assert (log.n_events, log.rejected) == (1, {"too_large": 1})


def test_a_line_of_the_greatest_allowed_length_is_an_event(tmp_path):
    path = tmp_path / "events.jsonl"
    line = play("u", "x", 1)
    path.write_bytes(line + b" " * (65_536 - len(line)) + b"\r\n" + play("u", "y", 2))
    log = collect_log(read_lines(path))
    assert (log.n_events, log.rejected) == (2, {})


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"events\.jsonl: cannot be read: No such file"):
        list(read_lines(tmp_path / "events.jsonl"))


def test_some_interactions_can_be_taken_without_renumbering():
    log = collect_log(in_a_file(play("u", "x", 1), play("v", "y", 2)))
    assert entries(log.take(np.array([1]))) == [("v", "y", Kind.PLAY, 200, 2)]
