"""Outcomes and scores of a worker's batches: once each, whatever comes again or goes wrong."""

from random import Random

import numpy as np
import oracle
import orjson
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from outcome_oracle import Seen, Trial, flat, outcomes
from structlog.testing import capture_logs
from unit.test_runtime_fakes import NOON_MS, PLAYS, FaultyStore, event, live_model, records_of

from streamer.errors import StoreUnavailable
from streamer.experiments import Book, Counting
from streamer.factors import FeatureDtype
from streamer.metrics import WorkerMetrics
from streamer.models.experiment_file import parse_catalog
from streamer.pipeline.records import Decoder
from streamer.runtime.cache import HistoryCache
from streamer.runtime.measuring import MAX_CREDIT_SECONDS, Budget, Measurer, MeasuringSettings
from streamer.runtime.updater import Updater
from streamer.stores import MemoryStore
from streamer.stores.keys import N_BUCKETS, sums_key

LATER_MS = NOON_MS + 10_000_000
ENOUGH = 100.0  # a share of the CPU that never runs out
START_MS = NOON_MS + 500_000
CATALOG = parse_catalog("""
[layers.taste]
salt = "taste-1"
parameters = ["variant"]

[layers.page]
salt = "page-1"
parameters = ["row_order"]

[variants.steps]
learner = "sgd_replay"

[[experiments]]
name = "learners"
layer = "taste"
start = 2025-11-23T12:13:20Z

[[experiments.cells]]
name = "control"
share = 4000
slots = ["0-3999"]

[[experiments.cells]]
name = "steps"
share = 4000
slots = ["4000-7999"]
variant = "steps"

[[experiments]]
name = "rows"
layer = "page"
start = 2025-11-23T12:21:40Z

[[experiments.cells]]
name = "a"
share = 10_000
slots = ["0-9999"]

[[experiments]]
name = "unstarted"
layer = "taste"

[[experiments.cells]]
name = "a"
share = 2000
slots = ["8000-9999"]
""")
TRIALS = (
    Trial("learners", "taste-1", (("control", 0, 3999), ("steps", 4000, 7999)), NOON_MS),
    Trial("rows", "page-1", (("a", 0, 9999),), START_MS),
)


def measurer(sample_share=0.0, cpu_clock=lambda: 0.0, metrics=None):
    return Measurer(
        Counting(CATALOG),
        MeasuringSettings(sample_share, ENOUGH),
        cpu_clock,
        metrics or WorkerMetrics([], ["default"]),
        structlog.get_logger(),
    )


def updater_on(store, measuring=None, cache_users=3):
    updater = Updater(
        store,
        HistoryCache(cache_users),
        FeatureDtype.F32,
        lambda: NOON_MS / 1000,
        lambda _: None,
        Random(7),
    )
    updater.measurer = measuring or measurer()
    return updater


def learn(updater, values, lives=(), at_ms=LATER_MS):
    decoded = Decoder().decode(records_of(PLAYS, values, timestamp_ms=at_ms))
    assert not decoded.rejected
    return updater.apply(decoded.user_ids, decoded.arrived, lives)


def sums_of(store, trial):
    book = Book(trial.name, trial.start_ms)
    return [store.state.sums.get(sums_key(bucket, book), {}) for bucket in range(N_BUCKETS)]


def found(store):
    return {trial.name: flat(sums_of(store, trial)) for trial in TRIALS}


def wanted(values):
    seen = [
        Seen(oracle.verdict(value, LATER_MS), orjson.loads(value).get("duration_s", 0))
        for value in values
    ]
    return outcomes(seen, TRIALS)


def total(store, field, trial=TRIALS[0]):
    return sum(fields.get(field, 0) for fields in sums_of(store, trial))


def user_in(cell, salt="taste-1", number=0):
    trial = next(trial for trial in TRIALS if trial.salt == salt)
    from outcome_oracle import cell_of  # noqa: PLC0415  beside its only use

    users = (f"viewer-{n}" for n in range(1000))
    return [user for user in users if cell_of(user, trial) == cell][number]


def heartbeats(user, *watched, item="title-1", from_ms=NOON_MS, event_type="play_progress"):
    return [
        event(event_type, user, item, from_ms + 60_000 * step, watched_s=watched_s)
        for step, watched_s in enumerate(watched)
    ]


# --- what is counted -----------------------------------------------------------------------------


def test_heartbeats_of_a_play_are_one_play_with_all_its_minutes():
    store = MemoryStore()
    user = user_in("control")
    for value in heartbeats(user, 300, 900, 1500, 3000):
        learn(updater_on(store), [value])
    assert total(store, "control/users") == 1
    assert total(store, "control/plays") == 1
    assert total(store, "control/completion") == 200
    assert total(store, "control/watched_ms") == 3_000_000


def test_playing_a_title_again_from_its_beginning_is_another_play():
    store = MemoryStore()
    user = user_in("steps")
    learn(updater_on(store), heartbeats(user, 3000, 600, 1200))
    assert total(store, "steps/plays") == 2
    assert total(store, "steps/watched_ms") == 4_200_000


def test_a_thumb_counts_as_long_as_it_stands():
    user, store = user_in("control"), MemoryStore()
    steps = [("thumb_up", 1, 0), ("thumb_up", 1, 0), ("thumb_down", 0, 1), ("thumb_clear", 0, 0)]
    for second, (kind, ups, downs) in enumerate(steps):
        learn(updater_on(store), [event(kind, user, time_ms=NOON_MS + second)])
        assert (total(store, "control/thumbs_up"), total(store, "control/thumbs_down")) == (
            ups,
            downs,
        )


def test_what_was_before_the_start_counts_for_nobody():
    user, store = user_in("control"), MemoryStore()
    learn(updater_on(store), heartbeats(user, 300, 3000, from_ms=NOON_MS - 600_000))
    learn(updater_on(store), [event("thumb_up", user, time_ms=NOON_MS - 1)])
    assert found(store)["learners"] == {}
    # Who goes on with a play counts with all of it; nobody knows what was when.
    learn(updater_on(store), [*heartbeats(user, 3000), event("thumb_clear", user)])
    assert total(store, "control/users") == total(store, "control/plays") == 1
    assert total(store, "control/watched_ms") == 3_000_000
    assert total(store, "control/thumbs_up") == 0


def test_a_title_of_a_month_counts_as_one_of_a_day():
    user, store = user_in("control"), MemoryStore()
    learn(updater_on(store), [event(user=user, watched_s=1e9, duration_s=1e9)])
    assert total(store, "control/watched_ms") == 86_400_000


def test_who_is_in_no_cell_is_not_counted_and_an_experiment_without_a_start_neither():
    store = MemoryStore()
    learn(updater_on(store), [event(user=user_in(None))])
    assert found(store)["learners"] == {}
    assert not any("unstarted" in key for key in store.state.sums)


def test_who_was_forgotten_is_no_new_user():
    user, store = user_in("control"), MemoryStore()
    learn(updater_on(store), [event(user=user)])
    learn(updater_on(store), [event("forget", user)])
    learn(updater_on(store), [event(user=user), event(user=user, time_ms=LATER_MS + 200_000)])
    after_ms = LATER_MS + 300_001
    learn(updater_on(store), [event(user=user, time_ms=after_ms)], at_ms=after_ms)
    assert total(store, "control/users") == 1
    assert total(store, "control/plays") == 2


# --- once, and only once -------------------------------------------------------------------------

steps = st.tuples(
    st.integers(0, 4),
    st.integers(0, 40),
    st.sampled_from(
        [
            *("play_progress", "play_stop", "play_stop", "thumb_up", "thumb_down"),
            *("thumb_clear", "detail_view", "my_list_add"),
        ]
    ),
    st.sampled_from([0, 20, 300, 900, 1500, 3000]),
    st.sampled_from([3000, 1800.5, 1e7]),
)


def in_order(drawn):
    """Return events whose times rise."""
    return [
        event(
            kind,
            f"viewer-{who}",
            f"title-{item}",
            NOON_MS - 200_000 + 10_000 * second,
            watched_s=watched_s,
            duration_s=duration_s,
        )
        for second, (who, item, kind, watched_s, duration_s) in enumerate(drawn)
    ]


@settings(deadline=None)
@given(st.lists(steps, max_size=150), st.data())
def test_batches_rewinds_and_two_workers_give_the_sums_of_one_event_at_a_time(drawn, data):
    values = in_order(drawn)
    expected = wanted(values)
    store = MemoryStore()
    workers = [updater_on(store), updater_on(MemoryStore(store.state))]
    at = 0
    while at < len(values):
        end = min(len(values), at + data.draw(st.integers(1, 60)))
        back = data.draw(st.sampled_from([0, 0, 0, at // 2, at]))  # some of it comes again
        learn(workers[data.draw(st.integers(0, 1))], values[back:end])
        at = end
    assert found(store) == expected
    for worker in workers:
        learn(worker, values)
    assert found(store) == expected


@settings(deadline=None)
@given(st.lists(steps, max_size=60), st.randoms(use_true_random=False))
def test_in_any_order_a_second_time_changes_nothing(drawn, random):
    values = in_order(drawn)
    random.shuffle(values)
    store = MemoryStore()
    worker = updater_on(store)
    for start in range(0, len(values), 7):
        learn(worker, values[start : start + 7])
    once = found(store)
    random.shuffle(values)
    learn(updater_on(store), values)
    assert found(store) == once


def test_a_lost_answer_counts_once():
    user = user_in("control")
    store = FaultyStore()
    updater = updater_on(store)
    store.faults.plan("answer", StoreUnavailable("the answer was lost", kind="timeout"))
    with pytest.raises(StoreUnavailable):
        learn(updater, [event(user=user)])
    learn(updater, [event(user=user)])
    assert total(store, "control/plays") == total(store, "control/users") == 1


# --- scores --------------------------------------------------------------------------------------


class Clock:
    """CPU that is used by being asked."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def value_of(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"streamer_{name}", labels or None)


def scored(store, cell, variant="default"):
    return [total(store, f"{cell}/{variant}/{name}") for name in ("scored", "hits")]


def test_a_play_is_scored_before_it_is_learned_and_once():
    metrics, store = WorkerMetrics([], ["default"]), MemoryStore()
    updater = updater_on(store, measurer(1.0, Clock(0.001), metrics))
    user, lives = user_in("steps"), [live_model()]
    learn(updater, [event(user=user, item="title-3")], lives)
    assert scored(store, "steps") == [0, 0]  # nothing was known of the viewer
    second = event(user=user, item="title-5", time_ms=NOON_MS + 1000)
    for _ in range(2):
        learn(updater, [second], lives)
        assert scored(store, "steps") == [1, 1]  # of 12 titles every one is in the top 20
    assert value_of(metrics, "prequential_plays_total", variant="default") == 1
    # The rank among the 11 titles that were not played, by the vector before.
    model = lives[0].model
    before = np.array([oracle.item_key("title-3")])
    row = int(model.rows_of(before.astype(np.uint64))[0])
    reciprocal = total(store, "steps/default/rr_millionths")
    place = round(1_000_000 / reciprocal)
    vector = model.item_factors[row].astype(float)
    weights = 2.0 * np.outer(vector, vector) + model.item_gram + 0.5 * np.eye(4)
    scores = model.item_factors @ np.linalg.solve(weights, 2.0 * vector)
    scores[row] = -np.inf
    assert place == 1 + np.count_nonzero(scores > scores[5])


def test_heartbeats_replays_and_unknown_titles_are_not_scored():
    store = MemoryStore()
    updater = updater_on(store, measurer(1.0, Clock(0.001)))
    user, lives = user_in("steps"), [live_model()]
    learn(updater, [event(user=user, item="title-3")], lives)
    later = NOON_MS + 100_000
    learn(updater, [event("thumb_down", user, "title-4")], lives)
    learn(updater, [event(user=user, item="title-4", time_ms=later)], lives)  # hidden
    learn(updater, [event(user=user, item="film-of-nobody", time_ms=later)], lives)
    learn(updater, heartbeats(user, 3000, item="title-3", from_ms=later), lives)
    assert scored(store, "steps") == [0, 0]


def test_a_share_of_plays_is_scored_and_the_same_ones_again():
    lives = [live_model()]
    users = [f"viewer-{number}" for number in range(400)]

    def scored_of(share):
        store = MemoryStore()
        updater = updater_on(store, measurer(share, Clock(0.001)), cache_users=1000)
        learn(updater, [event(user=user, item="title-3") for user in users], lives)
        for item in range(4, 9):
            learn(updater, [event(user=user, item=f"title-{item}") for user in users], lives)
        sums = sums_of(store, TRIALS[0])
        return [fields.get("steps/default/scored", 0) for fields in sums]

    everything, some = sum(scored_of(1.0)), scored_of(0.25)
    assert 0.15 < sum(some) / everything < 0.35
    assert scored_of(0.25) == some


def test_without_budget_nothing_is_scored_and_it_is_said():
    metrics, store = WorkerMetrics([], ["default"]), MemoryStore()
    updater = updater_on(store, measurer(1.0, lambda: 0.0, metrics))
    user, lives = user_in("steps"), [live_model()]
    for item in ("title-3", "title-5"):
        learn(updater, [event(user=user, item=item)], lives)
    assert scored(store, "steps") == [0, 0]
    assert value_of(metrics, "prequential_skipped_total") == 2
    assert total(store, "steps/plays") == 2  # outcomes need no budget


def test_scoring_takes_its_share_of_the_cpu_and_no_more():
    cpu = 0.0
    budget = Budget(lambda: cpu, 0.1)
    spent = 0.0
    for _ in range(1000):
        cpu += 0.01  # the loop's own work
        if budget.has_some():
            cpu += 0.004  # a score
            spent += budget.spend()
    assert 0.08 < spent / cpu <= 0.1 + MAX_CREDIT_SECONDS / cpu
    cpu += 1000.0
    assert budget.has_some()
    cpu += 1.2 * MAX_CREDIT_SECONDS
    budget.spend()
    assert not budget.has_some()  # however long it worked, no more than the limit was saved up


class Broken(Counting):
    def additions(self, arrival):
        raise ValueError(arrival.user_ids[0])

    def scores(self, user_ids, rows, times_ms, scores):
        raise ValueError(user_ids[0])


def test_whatever_fails_is_counted_and_said_once_and_harms_no_history():
    metrics, store = WorkerMetrics([], ["default"]), MemoryStore()
    broken = Measurer(
        Broken(CATALOG),
        MeasuringSettings(1.0, ENOUGH),
        Clock(0.001),
        metrics,
        structlog.get_logger(),
    )
    updater, lives = updater_on(store, broken), [live_model()]
    user = user_in("steps")
    with capture_logs() as logs:
        for number in range(3):
            learn(updater, [event(user=user, item=f"title-{number}")], lives)
    assert [entry["part"] for entry in logs] == ["outcomes", "prequential"]
    assert not any(user in str(entry) for entry in logs)
    assert value_of(metrics, "measuring_failures_total", part="outcomes") == 3
    assert value_of(metrics, "measuring_failures_total", part="prequential") == 3
    assert len(oracle.read_entries(store.values[oracle.history_key(user)])) == 3
