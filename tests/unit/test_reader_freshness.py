import pytest

from streamer.errors import StoreUnavailable
from streamer.reader.freshness import Freshness, oldest_fresh_ms


def test_the_oldest_partition_of_the_group_counts():
    fields = {b"g/play-events/0": b"3000", b"g/play-events/1": b"2000", b"g/browse-events/0": b"9"}
    assert oldest_fresh_ms(fields, "g") == 9


def test_other_groups_do_not_count_even_if_their_names_begin_alike():
    fields = {b"g/play-events/0": b"3000", b"g2/play-events/0": b"1", b"group/play-events/0": b"2"}
    assert oldest_fresh_ms(fields, "g") == 3000


def test_nobody_vouches_where_the_group_has_no_field():
    assert oldest_fresh_ms({b"other/play-events/0": b"1"}, "g") is None


def test_nobody_vouches_where_a_field_is_no_number():
    fields = {b"g/play-events/0": b"3000", b"g/play-events/1": b"soon"}
    assert oldest_fresh_ms(fields, "g") is None


@pytest.mark.parametrize("value", [b"9" * 20, b"9" * 400, b"-5", b"1_000", b" 7", b"", b"7.5"])
def test_a_value_that_is_no_time_vouches_for_nothing(value):
    assert oldest_fresh_ms({b"g/play-events/0": b"3000", b"g/play-events/1": value}, "g") is None


def test_the_age_counts_from_the_oldest_partition_and_is_never_negative():
    freshness = Freshness("g")
    assert freshness.age_seconds(9000) is None
    freshness.look(lambda: {b"g/play-events/0": b"5000"})
    assert freshness.age_seconds(7500) == 2.5
    assert freshness.age_seconds(4000) == 0.0


def test_while_redis_is_silent_the_last_answer_ages():
    answers = [{b"g/play-events/0": b"5000"}]

    def read_fresh():
        if not answers:
            raise StoreUnavailable("gone", kind="timeout")
        return answers.pop()

    freshness = Freshness("g")
    freshness.look(read_fresh)
    freshness.look(read_fresh)
    assert freshness.age_seconds(25_000) == 20.0
