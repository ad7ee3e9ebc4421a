"""Intervals that hold at every look: the promise itself, on simulated streams.

A run is a stream of hits and misses of two cells, looked at every minute. Hits and misses of a
bucket of users in a minute are Poisson numbers, whatever the users' own rates and hit rates are.
"""

import json
import logging

import numpy as np
import pytest

from streamer.experiments import (
    BucketSums,
    Decision,
    Interval,
    decide,
    difference,
    paired_difference,
)
from streamer.experiments.sequential import (
    LEAST_EFFECTIVE_BUCKETS,
    LEAST_EVENTS,
    N_BUCKETS,
    is_enough,
    mean_and_error,
    radius,
)

log = logging.getLogger(__name__)

PER_MINUTE = 1000
BASE_RATE = 0.2


def first_alarms(rng, hit_rates, miss_rates, n_minutes, error=None):
    """Return the minute at which each run's interval first excluded 0, else n_minutes + 1.

    Args:
        rng: Of the simulation.
        hit_rates: Hits a minute, shape (n_runs, 2, n_buckets).
        miss_rates: Misses a minute, same shape.
        n_minutes: Looks.
        error: Another standard error, of (counts, means); None is the package's.
    """
    counts, totals = np.zeros(hit_rates.shape), np.zeros(hit_rates.shape)
    first = np.full(len(hit_rates), n_minutes + 1)
    for minute in range(1, n_minutes + 1):
        hits = rng.poisson(hit_rates)
        totals += hits
        counts += hits + rng.poisson(miss_rates)
        means, errors = mean_and_error(counts, totals)
        if error is not None:
            errors = error(counts, means)
        half = radius(np.hypot(errors[:, 0], errors[:, 1]))
        is_out = np.abs(means[:, 1] - means[:, 0]) > half
        is_out &= is_enough(counts).all(axis=1)
        first[is_out & (first > n_minutes)] = minute
    return first


def alike(n_runs, treatment_rate):
    """Return the rates of users who are all alike."""
    rates = np.array([BASE_RATE, treatment_rate])[None, :, None]
    each = np.full((n_runs, 2, N_BUCKETS), PER_MINUTE / N_BUCKETS)
    return each * rates, each * (1 - rates)


def as_independent(counts, means):
    """The standard error that takes every event for a user of its own."""
    return np.sqrt(means * (1 - means) / counts.sum(axis=-1))


def test_no_more_than_one_in_twenty_experiments_without_an_effect_is_ever_flagged():
    n_minutes = 100
    first = first_alarms(np.random.default_rng(1), *alike(1000, BASE_RATE), n_minutes)
    flagged = np.mean(first <= n_minutes)
    log.info("A/A, 1,000 runs of %d looks: %.1f %% flagged", n_minutes, 100 * flagged)
    assert flagged <= 0.05


def test_five_percent_more_hits_are_found_within_200_000_events_a_cell():
    n_minutes = 200_000 // PER_MINUTE
    rng = np.random.default_rng(2)
    first = first_alarms(rng, *alike(100, BASE_RATE * 1.05), n_minutes)
    found = np.mean(first <= n_minutes)
    median_events = np.median(first) * PER_MINUTE
    log.info("+5 %%: %.0f %% found, half of them by %d events", 100 * found, median_events)
    assert found >= 0.8


def users_who_differ(rng, n_runs, n_users, correlation):
    """Return the rates where each user has a hit rate of their own, and is more or less active."""
    shape = (n_runs, 2, n_users)
    strength = 1 / correlation - 1
    rates = rng.beta(BASE_RATE * strength, (1 - BASE_RATE) * strength, shape)
    activity = rng.lognormal(0.0, 1.0, shape)
    activity *= PER_MINUTE / activity.sum(axis=-1, keepdims=True)
    rows = np.arange(n_runs * 2).reshape(n_runs, 2, 1) * N_BUCKETS
    buckets = (rows + rng.integers(0, N_BUCKETS, shape)).ravel()

    def by_bucket(numbers):
        found = np.bincount(buckets, numbers.ravel(), n_runs * 2 * N_BUCKETS)
        return found.reshape(n_runs, 2, N_BUCKETS)

    return by_bucket(activity * rates), by_bucket(activity * (1 - rates))


def test_events_of_one_user_are_alike_and_the_intervals_know_it():
    """The same streams, judged as if each event were a user of its own, are flagged in droves."""
    n_minutes = 60
    rates = users_who_differ(np.random.default_rng(3), 400, 2000, correlation=0.1)
    ours = first_alarms(np.random.default_rng(4), *rates, n_minutes)
    naive = first_alarms(np.random.default_rng(4), *rates, n_minutes, as_independent)
    ours, naive = np.mean(ours <= n_minutes), np.mean(naive <= n_minutes)
    log.info("A/A, returning users: %.1f %% flagged; %.1f %% by event", 100 * ours, 100 * naive)
    assert ours <= 0.05
    assert naive > 0.2


def test_the_error_of_users_who_differ_is_neither_too_small_nor_too_large():
    rng = np.random.default_rng(9)
    hit_rates, miss_rates = users_who_differ(rng, 400, 2000, correlation=0.1)
    hits = rng.poisson(60 * hit_rates)
    means, errors = mean_and_error(hits + rng.poisson(60 * miss_rates), hits)
    in_errors = (means[:, 1] - means[:, 0]) / np.hypot(errors[:, 0], errors[:, 1])
    assert np.std(in_errors) == pytest.approx(1, abs=0.12)


def test_paired_differences_need_fewer_events():
    rng = np.random.default_rng(5)
    n_events = 30_000
    is_easy = rng.random(n_events) < BASE_RATE  # both variants hit these
    is_won = rng.random(n_events) < 0.01
    buckets = rng.integers(0, N_BUCKETS, n_events)
    control, treatment = is_easy, is_easy | is_won
    paired = paired_difference(
        BucketSums.of(buckets, treatment.astype(float) - control.astype(float))
    )
    unpaired = difference(BucketSums.of(buckets, control), BucketSums.of(buckets, treatment))
    assert paired.estimate == pytest.approx(unpaired.estimate)
    assert decide(paired) is Decision.BETTER
    assert decide(unpaired) is Decision.NOT_YET


def test_the_error_of_independent_events_is_that_of_the_textbook():
    rng = np.random.default_rng(6)
    sums = BucketSums.of(rng.integers(0, N_BUCKETS, 500_000), rng.random(500_000) < 0.3)
    mean, error = mean_and_error(sums.counts, sums.totals)
    assert mean == pytest.approx(0.3, abs=0.003)
    assert error == pytest.approx((0.3 * 0.7 / 500_000) ** 0.5, rel=0.15)


def test_the_interval_is_that_of_the_formula():
    # s = 0.01 = ρ: s · √(2 · ln(2 / 0.05²)), by hand.
    assert radius(np.array(0.01)) == pytest.approx(0.01 * (2 * np.log(800)) ** 0.5)
    shares = radius(np.array([0.01 / 3, 0.001])) / np.array([0.01 / 3, 0.001])
    assert shares == pytest.approx([3.04, 3.27], abs=0.01)


def some_sums(seed=7, n_events=5000):
    rng = np.random.default_rng(seed)
    return BucketSums.of(rng.integers(0, N_BUCKETS, n_events), rng.random(n_events) < BASE_RATE)


def test_sums_add_up_in_any_order_and_survive_being_stored():
    rng = np.random.default_rng(8)
    buckets, hits = rng.integers(0, N_BUCKETS, 9000), rng.random(9000) < BASE_RATE
    parts = [BucketSums.of(buckets[i::3], hits[i::3]) for i in range(3)]
    whole = BucketSums.of(buckets, hits)
    for added in (
        parts[0] + parts[1] + parts[2],
        parts[2] + (BucketSums.empty() + parts[0]) + parts[1],
    ):
        assert added.as_dict() == whole.as_dict()
    stored = BucketSums.from_dict(json.loads(json.dumps(whole.as_dict())))
    other = some_sums()
    assert difference(stored, other) == difference(whole, other)
    assert difference(other, whole).estimate == -difference(whole, other).estimate


def test_nothing_is_said_of_few_events_or_of_few_users():
    enough = some_sums()
    assert difference(enough, enough) is not None
    few = some_sums(n_events=LEAST_EVENTS - 1)
    assert difference(enough, few) is difference(few, enough) is paired_difference(few) is None
    buckets = np.arange(100_000) % int(LEAST_EFFECTIVE_BUCKETS - 1)
    few_users = BucketSums.of(buckets, np.arange(100_000) % 7 == 0)
    assert difference(enough, few_users) is None
    nothing = BucketSums.of(np.arange(5120) % N_BUCKETS, np.zeros(5120))
    assert difference(nothing, nothing) is paired_difference(nothing) is None
    assert difference(BucketSums.empty(), enough) is None


def test_a_decision_is_what_the_interval_excludes():
    assert decide(None) is Decision.NOT_YET
    better = Interval(0.02, 0.01, 0.03, 0.003)
    assert decide(better) == "better"
    assert decide(better, margin=0.01) == "no decision yet"
    assert decide(Interval(-0.02, -0.03, -0.01, 0.003)) == "worse"
    assert decide(Interval(-0.02, -0.03, -0.01, 0.003), margin=0.02) == "no decision yet"
    assert decide(Interval(0.0, -0.01, 0.01, 0.003)) == "no decision yet"
