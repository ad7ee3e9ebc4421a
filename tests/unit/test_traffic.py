"""The stream: determinism, disturbances, dates, and that recent behaviour tells what comes next."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import orjson
import pytest

from streamer.dev.catalog import build_catalog
from streamer.dev.faults import FAULTS, LINE_FAULTS
from streamer.dev.traffic import generate
from streamer.dev.traffic_plan import (
    HISTORY_END_MS,
    Disturbances,
    TrafficPlan,
    World,
    plan_history,
    plan_live,
)
from streamer.dev.viewers import build_audience
from streamer.errors import ConfigError, RejectedRecord
from streamer.events import EventType, RejectReason, decode_event

START_MS = 1_763_900_000_000
DISTURBED = Disturbances(late_share=0.02, duplicate_share=0.03, malformed_share=0.01)
SHARE_OF = {"late": 0.02, "duplicate": 0.03, "malformed": 0.01}


def live(n_records: int = 30_000, **changes) -> TrafficPlan:
    values = {"rate_per_s": 2_000.0, "start_ms": START_MS, "disturbances": DISTURBED}
    return plan_live(n_records, **(values | changes))


def history(n_records: int = 30_000, **changes) -> TrafficPlan:
    return plan_history(n_records, **({"disturbances": DISTURBED} | changes))


PLANS = pytest.mark.parametrize("plan", [live(), history()], ids=["live", "history"])


@PLANS
def test_the_same_plan_gives_the_same_records(plan):
    assert list(generate(plan)) == list(generate(plan))


@pytest.mark.parametrize(
    "other",
    [live(world=World(seed=8)), live(world=World(n_viewers=1_999)), live(start_ms=START_MS + 1)],
    ids=["seed", "viewers", "start"],
)
def test_another_plan_gives_other_records_with_other_event_ids(other):
    ids, other_ids = (
        {orjson.loads(record.value)["event_id"] for record in generate(plan)}
        for plan in (live(disturbances=Disturbances()), _undisturbed(other))
    )
    assert not ids & other_ids


def _undisturbed(plan: TrafficPlan) -> TrafficPlan:
    return TrafficPlan(
        plan.mode, plan.n_records, plan.start_ms, plan.span_s, plan.n_sittings, plan.world
    )


@PLANS
def test_shares_of_late_duplicate_and_malformed_records_are_the_planned_ones(plan):
    counts = Counter(record.label for record in generate(plan))
    assert counts.total() == plan.n_records
    for label, share in SHARE_OF.items():
        tolerance = 4.5 * (plan.n_records * share * (1 - share)) ** 0.5
        # Duplicates that would come after the end are missing: half of the last 300's share.
        tolerance += 300 * share
        assert abs(counts[label] - plan.n_records * share) < tolerance, label


@PLANS
def test_every_record_that_is_not_malformed_is_accepted_and_every_malformed_one_rejected(plan):
    for record in generate(plan):
        if record.label == "malformed":
            with pytest.raises(RejectedRecord):
                decode_event(record.value, record.event_time_ms)
        else:
            event = decode_event(record.value, record.event_time_ms)
            assert event.event_time_ms == record.event_time_ms
            assert event.user_id.encode() == record.key


@PLANS
def test_events_are_complete_and_on_the_topic_of_their_type(plan):
    play_types = {"play_start", "play_progress", "play_stop"}
    for record in generate(_undisturbed(plan)):
        event = orjson.loads(record.value)
        assert (record.topic == "play") == (event["type"] in play_types) == ("play_id" in event)
        assert isinstance(event["event_time"], int)
        if event["type"] in {"play_progress", "play_stop"}:
            assert 0 < event["watched_s"] <= event["duration_s"]
        if event["type"] == "impression":
            assert set(event["context"]) == {"surface", "row_id", "position", "request_id"}


def test_a_history_has_events_of_every_type_except_forget():
    types = {orjson.loads(r.value)["type"] for r in generate(history(disturbances=Disturbances()))}
    assert types == set(EventType) - {EventType.FORGET}


@PLANS
def test_event_ids_are_unique_and_a_play_id_belongs_to_one_viewer_and_title(plan):
    events = [orjson.loads(record.value) for record in generate(_undisturbed(plan))]
    assert len({event["event_id"] for event in events}) == len(events)
    owners = defaultdict(set)
    for event in events:
        if "play_id" in event:
            owners[event["play_id"]].add((event["user_id"], event["item_id"]))
    assert all(len(owner) == 1 for owner in owners.values())


@PLANS
def test_events_have_the_size_of_real_ones(plan):
    sizes = [len(record.value) for record in generate(_undisturbed(plan))]
    assert 200 <= np.mean(sizes) <= 250


@PLANS
def test_only_late_records_and_duplicates_are_out_of_order(plan):
    ordinary = [r.event_time_ms for r in generate(plan) if r.label in {"ordinary", "malformed"}]
    assert ordinary == sorted(ordinary)


@PLANS
def test_a_late_record_is_dated_up_to_ten_minutes_before_its_place(plan):
    latest_ms, delays_ms = plan.start_ms, []
    for record in generate(plan):
        if record.label == "late":
            delays_ms.append(latest_ms - record.event_time_ms)
        elif record.label != "duplicate":
            latest_ms = record.event_time_ms
    # In a history the next event may be minutes after the last one, so a late one can still fit.
    assert max(delays_ms) <= 600_000
    assert np.median(delays_ms) > 5_000


@PLANS
def test_a_duplicate_has_the_same_bytes_as_a_record_not_far_before_it(plan):
    place = {}
    for index, record in enumerate(generate(plan)):
        if record.label == "duplicate":
            assert 0 < index - place[record.value] <= 330
        else:
            place[record.value] = index


def test_disturbances_do_not_change_what_viewers_do():
    def watched(plan):
        events = (orjson.loads(r.value) for r in generate(plan) if r.label != "malformed")
        return [e["play_id"][-6:] + e["item_id"] for e in events if e["type"] == "play_start"]

    kept = Disturbances(late_share=0.1, malformed_share=0.1)
    plain = watched(live(disturbances=Disturbances()))
    disturbed = watched(live(disturbances=kept))
    assert disturbed == plain[: len(disturbed)]


def test_malformed_records_are_rejected_for_every_reason_that_a_value_can_give():
    reasons = set()
    for fault in FAULTS:
        with pytest.raises(RejectedRecord) as caught:
            decode_event(fault.make("viewer-000001", START_MS), START_MS)
        reasons.add(caught.value.reason)
    assert reasons == set(RejectReason) - {RejectReason.NO_RECORD_TIMESTAMP}


def test_malformed_lines_are_single_lines_of_text():
    for fault in LINE_FAULTS:
        value = fault.make("viewer-000001", START_MS).decode()
        assert value
        assert value.splitlines() == [value]


def test_live_records_are_dated_by_their_place_and_never_ahead():
    for index, record in enumerate(generate(live(rate_per_s=640.0))):
        place_ms = START_MS + index * 1_000 / 640.0
        assert record.event_time_ms <= place_ms
        if record.label in {"ordinary", "malformed"}:
            assert record.event_time_ms > place_ms - 1.001


def test_a_viewer_of_a_live_plan_has_a_whole_sitting_within_twenty_seconds():
    counts = Counter(record.key for record in generate(live(40_000)))
    assert 1_000 <= len(counts) <= 1_500
    assert 20 <= np.median(list(counts.values())) <= 60


def test_a_slow_live_plan_has_few_viewers_with_long_sittings():
    viewers = Counter(record.key for record in generate(live(200, rate_per_s=10.0)))
    assert len(viewers) <= 10


@pytest.mark.parametrize("n_viewers", [1, 2, 50])
def test_a_live_plan_needs_no_more_viewers_than_there_are(n_viewers):
    world = World(n_viewers=n_viewers, n_titles=5)
    records = list(generate(live(3_000, world=world, disturbances=Disturbances())))
    assert len({record.key for record in records}) == n_viewers


def test_a_history_nearly_fills_its_days_and_stops_before_its_end():
    dates = [record.event_time_ms for record in generate(history(100_000))]
    span_ms = 14 * 86_400_000
    assert HISTORY_END_MS - span_ms - 600_000 <= min(dates)
    assert HISTORY_END_MS - 0.15 * span_ms < max(dates) <= HISTORY_END_MS


def test_a_history_without_a_size_has_a_sitting_every_other_day():
    plan = plan_history(days=2.0, world=World(n_viewers=100))
    assert plan.n_records == 100 * 42


def test_sittings_of_a_history_are_hours_apart_and_nobody_is_in_two():
    last_ms, playing = {}, {}
    for record in generate(history(disturbances=Disturbances())):
        event = orjson.loads(record.value)
        gap_s = (record.event_time_ms - last_ms.get(record.key, 0)) / 1_000
        assert gap_s < 3_600 or gap_s >= 4 * 3_600 - 0.002
        last_ms[record.key] = record.event_time_ms
        if event["type"] == "play_start":
            assert record.key not in playing
            playing[record.key] = event["play_id"]
        elif event["type"] == "play_stop":
            assert playing.pop(record.key) == event["play_id"]


def test_nobody_picks_live_what_they_have_watched_in_the_history():
    past = _starts(history(100_000))
    present = _starts(live())
    assert len(past & present) < 0.01 * len(present)


def _starts(plan: TrafficPlan) -> set[tuple[str, str]]:
    events = (orjson.loads(record.value) for record in generate(_undisturbed(plan)))
    return {(e["user_id"], e["item_id"]) for e in events if e["type"] == "play_start"}


def test_the_last_sitting_predicts_the_next_genre_better_than_the_lasting_taste():
    catalog = build_catalog(7, 2_000)
    audience = build_audience(7, 2_000, catalog)
    genre_of, n_genres = catalog.genre_of, catalog.n_genres
    last_ms, sitting, before = {}, defaultdict(list), {}
    log_shares, is_top = {"recent": [], "taste": []}, {"recent": [], "taste": []}
    for record in generate(history(100_000, disturbances=Disturbances())):
        event = orjson.loads(record.value)
        viewer = int(event["user_id"][7:])
        if record.event_time_ms - last_ms.get(viewer, 0) > 3 * 3_600_000 and sitting[viewer]:
            before[viewer] = sitting.pop(viewer)
        last_ms[viewer] = record.event_time_ms
        if event["type"] != "play_start":
            continue
        genre = genre_of[int(event["item_id"][6:])]
        # The sitting so far; for its first title, the one before.
        recent = sitting[viewer] or before.get(viewer)
        if recent:
            counts = np.bincount(recent, minlength=n_genres)
            # The true taste, not an estimate: the best that any long-run average can be.
            guesses = {"recent": counts / counts.sum(), "taste": audience.taste[viewer]}
            for name, shares in guesses.items():
                smoothed = 0.8 * shares + 0.2 / n_genres
                log_shares[name].append(np.log(smoothed[genre]))
                is_top[name].append(np.argmax(shares) == genre)
        sitting[viewer].append(genre)
    n_plays = len(is_top["taste"])
    assert n_plays > 5_000
    assert np.mean(is_top["recent"]) > np.mean(is_top["taste"]) + 0.1
    gains = np.array(log_shares["recent"]) - np.array(log_shares["taste"])
    assert gains.mean() > 5 * gains.std() / n_plays**0.5


@pytest.mark.parametrize(
    "values",
    [{"late_share": -0.01}, {"duplicate_share": 0.7}, {"malformed_share": float("nan")}],
)
def test_impossible_shares_are_refused(values):
    with pytest.raises(ConfigError, match="share"):
        Disturbances(**values)


@pytest.mark.parametrize("values", [{"seed": -1}, {"n_viewers": 0}, {"n_titles": 0}])
def test_an_empty_world_is_refused(values):
    with pytest.raises(ConfigError, match="at least"):
        World(**values)


def test_a_history_that_so_few_viewers_cannot_make_is_refused():
    with pytest.raises(ConfigError, match="too many for 3 viewers"):
        plan_history(10_000, world=World(n_viewers=3))
