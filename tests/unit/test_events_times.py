import pytest

from streamer.errors import RejectedRecord
from streamer.events.times import parse_event_time

SECOND_MS = 1_763_924_880_000  # 2025-11-23T19:08:00Z


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("2025-11-23T19:08:00Z", SECOND_MS),
        ("2025-11-23t19:08:00z", SECOND_MS),
        ("2025-11-23 19:08:00Z", SECOND_MS),
        ("2025-11-23T19:08:00+00:00", SECOND_MS),
        ("2025-11-23T19:08:00-00:00", SECOND_MS),
        ("2025-11-24T08:08:00+13:00", SECOND_MS),
        ("2025-11-23T15:38:00-03:30", SECOND_MS),
        ("2025-11-24T19:07:00+23:59", SECOND_MS),
        ("2025-11-23T19:08:00.1Z", SECOND_MS + 100),
        ("2025-11-23T19:08:00.12Z", SECOND_MS + 120),
        ("2025-11-23T19:08:00.123Z", SECOND_MS + 123),
        ("2025-11-23T19:08:00.1239999999Z", SECOND_MS + 123),
        ("2025-11-23T19:08:00.0009Z", SECOND_MS),
        ("1969-12-31T23:59:59.9999Z", -1),
        ("1970-01-01T00:00:00Z", 0),
        ("2000-01-01T00:00:00Z", 946_684_800_000),
        ("2024-02-29T12:00:00Z", 1_709_208_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ("2016-12-31T23:59:60.5Z", 1_483_228_800_500),
        ("2017-01-01T05:29:60+05:30", 1_483_228_800_000),
        ("9999-12-31T23:59:60-23:59", 253_402_387_140_000),
        ("0001-01-01T00:00:00+23:59", -62_135_683_140_000),
    ],
)
def test_rfc_3339_with_an_offset_is_read_to_the_millisecond(text, expected_ms):
    assert parse_event_time(text) == expected_ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1763924880000",
        "2025-11-23",
        "2025-11-23T19:08:00",
        "2025-11-23T19:08Z",
        "2025-11-23T19:08:00.Z",
        "2025-11-23T19:08:00,5Z",
        "2025-11-23T19:08:00+0100",
        "2025-11-23T19:08:00+01",
        "2025-11-23T19:08:00+24:00",
        "2025-11-23T19:08:00+01:60",
        "2025-11-23T19:08:00 Z",
        "2025-11-23T19:08:00Z ",
        " 2025-11-23T19:08:00Z",
        "2025-11-23T19:08:00Z\n",
        "2025-11-23_19:08:00Z",
        "2025-13-01T00:00:00Z",
        "2025-00-01T00:00:00Z",
        "2025-11-00T00:00:00Z",
        "2025-11-31T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2025-11-23T24:00:00Z",
        "2025-11-23T19:60:00Z",
        "2025-11-23T19:08:61Z",
        "0000-01-01T00:00:00Z",
        "25-11-23T19:08:00Z",
        "+2025-11-23T19:08:00Z",
        "2025-1-23T19:08:00Z",
        "２025-11-23T19:08:00Z",
        "2025-W47-7T19:08:00Z",
    ],
)
def test_other_spellings_are_refused(text):
    with pytest.raises(RejectedRecord, match="bad_event_time"):
        parse_event_time(text)


@pytest.mark.parametrize("value", [None, True, False, 1.0, 1e12, [], {}, b"0"])
def test_other_types_are_refused(value):
    with pytest.raises(RejectedRecord, match="bad_event_time"):
        parse_event_time(value)


@pytest.mark.parametrize("value", [0, -1, 1 << 80, SECOND_MS])
def test_an_integer_is_epoch_milliseconds(value):
    assert parse_event_time(value) == value


@pytest.mark.parametrize("n_digits", [64, 65, 1000])
def test_any_number_of_finer_digits_is_cut_off(n_digits):
    text = f"2025-11-23T19:08:00.{'123' + '9' * (n_digits - 3)}Z"
    assert parse_event_time(text) == SECOND_MS + 123
