import math

import oracle
import pytest

from streamer.errors import RejectedRecord
from streamer.events import EventType, Evidence, Kind, MyList, Thumb
from streamer.events.classify import evidence_of


def viewing(watched_s, duration_s, event_type=EventType.PLAY_STOP):
    return evidence_of(event_type, {"watched_s": watched_s, "duration_s": duration_s})


@pytest.mark.parametrize(
    ("event_type", "evidence"),
    [
        ("play_start", None),
        ("impression", None),
        ("forget", None),
        ("detail_view", (Kind.DETAIL_VIEW, 0)),
        ("trailer_view", (Kind.TRAILER_VIEW, 0)),
        ("my_list_add", (Kind.MY_LIST, 1)),
        ("my_list_remove", (Kind.MY_LIST, 0)),
        ("thumb_up", (Kind.THUMB, 2)),
        ("thumb_down", (Kind.THUMB, 1)),
        ("thumb_clear", (Kind.THUMB, 0)),
    ],
)
def test_an_event_without_a_viewing_is_one_fixed_piece_of_evidence(event_type, evidence):
    assert evidence_of(EventType(event_type), {}) == evidence


def test_numbers_of_kinds_and_values_are_those_of_the_stored_format():
    assert {kind.name.lower(): int(kind) for kind in Kind} == oracle.KINDS
    assert (Thumb.CLEARED, Thumb.DOWN, Thumb.UP) == (0, 1, 2)
    assert (MyList.REMOVED, MyList.ADDED) == (0, 1)


@pytest.mark.parametrize(
    ("watched_s", "duration_s", "kind"),
    [
        (30, 600, Kind.PLAY),  # both thresholds exactly
        (30, 600.01, Kind.BRIEF_PLAY),  # 30 s are less than 5 %
        (29.999, 60, Kind.BRIEF_PLAY),
        (30, 30, Kind.PLAY),
        (29, 29, Kind.BRIEF_PLAY),  # to the end, but too short
        (0, 100, Kind.BRIEF_PLAY),
        (30.0, 1e-9, Kind.PLAY),
    ],
)
def test_a_play_takes_30_seconds_and_5_percent(watched_s, duration_s, kind):
    assert viewing(watched_s, duration_s).kind == kind
    progress = viewing(watched_s, duration_s, EventType.PLAY_PROGRESS)
    assert (progress is None) is (kind == Kind.BRIEF_PLAY)
    assert progress in (None, viewing(watched_s, duration_s))


@pytest.mark.parametrize(
    ("watched_s", "duration_s", "value"),
    [
        (0, 100, 0),
        (100, 100, 200),
        (250, 100, 200),
        (50, 100, 100),
        (90, 100, 180),
        (100, 400, 50),
        (41, 80, 102),  # 102.5 on paper, but 102.49999999999999 in float64
        (101, 400, 51),  # 50.5 and ½ is 51
        (103, 400, 52),  # 51.5 and ½ is 52, where half-to-even would give 52 too
        (105, 400, 53),  # 52.5 and ½ is 53, where half-to-even would give 52
        (1009, 4000, 50),  # 50.45
        (1e308, 5e-324, 200),
        (1 << 64, 1 << 65, 100),
    ],
)
def test_completion_is_kept_in_steps_of_half_a_percent_rounded_half_up(
    watched_s, duration_s, value
):
    assert viewing(watched_s, duration_s).value == value


def test_rounding_is_floor_of_200_p_and_a_half_in_float64_everywhere():
    for duration_s in (1, 7, 60, 3120, 5400.5):
        for step in range(0, 4000, 7):
            watched_s = duration_s * step / 4000
            expected = math.floor(200 * min(1.0, watched_s / duration_s) + 0.5)
            assert viewing(watched_s, duration_s).value == expected


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused_however_it_came(number):
    for watched_s, duration_s in ((number, 60), (60, number)):
        with pytest.raises(RejectedRecord, match="bad_number"):
            viewing(watched_s, duration_s)


def test_a_brief_play_keeps_its_completion():
    assert viewing(10, 100) == Evidence(Kind.BRIEF_PLAY, 20)
