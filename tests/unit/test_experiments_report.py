"""What an experiment has shown: cells side by side, in numbers and in a word."""

import logging
import os

import numpy as np
import pytest

from streamer.experiments import BucketSums, Cell, Decision, Experiment, Parameters, SlotRange
from streamer.experiments.decision import decide_less
from streamer.experiments.report import MISMATCH_BELOW, chi_square_tail, mismatch, report
from streamer.experiments.sequential import N_BUCKETS, Interval, relative_difference

log = logging.getLogger(__name__)
IS_FULL = os.environ.get("STATISTICS") == "full"
N_RUNS = 1000 if IS_FULL else 100
N_USERS, N_LOOKS = 4000, 200 if IS_FULL else 40


def experiment(*names, variants=()):
    cells = tuple(
        Cell(name, 1000, (SlotRange(1000 * n, 1000 * n + 999),), Parameters(variant=variant))
        for n, (name, variant) in enumerate(
            zip(names, variants or [None] * len(names), strict=True)
        )
    )
    return Experiment("trial", "layer", "salt", cells, 1_764_000_000_000)


def sums_of(rng, cells, n_users=20_000):
    """Return sums of 256 buckets, where a cell is (users' share of plays, thumbs down a user)."""
    found = [{} for _ in range(N_BUCKETS)]
    for name, (plays_a_user, thumbs_down_a_user) in cells.items():
        buckets = rng.integers(0, N_BUCKETS, n_users)
        plays = rng.poisson(plays_a_user, n_users)
        thumbs_down = rng.poisson(thumbs_down_a_user, n_users)
        columns = {
            "users": np.ones(n_users),
            "plays": plays,
            "completion": 150 * plays,
            "watched_ms": 1_800_000 * plays,
            "thumbs_up": rng.poisson(0.1, n_users),
            "thumbs_down": thumbs_down,
        }
        for field, values in columns.items():
            for bucket, amount in enumerate(np.bincount(buckets, values, N_BUCKETS)):
                found[bucket][f"{name}/{field}"] = int(amount)
    return found


def test_cells_are_compared_with_the_control_and_the_decision_is_a_word():
    cells = {"a": (5, 0.05), "control": (5, 0.05), "more": (5.5, 0.05), "worse": (5, 0.09)}
    found = report(experiment(*cells), sums_of(np.random.default_rng(1), cells))
    assert found.control == "control"
    assert found.alpha == pytest.approx(0.05 / (3 * 5))
    a, control, more, worse = (cell.outcomes for cell in found.cells)
    assert control["plays_per_user"].mean == pytest.approx(5, rel=0.02)
    assert control["minutes_per_user"].mean == pytest.approx(150, rel=0.02)
    assert control["completion"].mean == pytest.approx(0.75)
    assert all(each.decision is None for each in control.values())
    assert {each.decision for each in a.values()} == {Decision.NOT_YET}
    assert more["plays_per_user"].decision is Decision.BETTER
    assert more["plays_per_user"].difference.estimate == pytest.approx(0.1, abs=0.02)
    assert worse["thumbs_down_per_user"].decision is Decision.WORSE  # fewer would be better
    assert not found.has_mismatch


def test_of_nothing_there_is_no_decision():
    found = report(experiment("control", "b"), [{} for _ in range(N_BUCKETS)])
    for cell in found.cells:
        assert set(cell.sums.values()) == {0}
        assert {each.mean for each in cell.outcomes.values()} == {None}
    assert {each.decision for each in found.cells[1].outcomes.values()} == {Decision.NOT_YET}
    assert found.mismatch is None


def test_variants_are_compared_on_the_same_plays_of_all_cells():
    rng = np.random.default_rng(2)
    found = [{} for _ in range(N_BUCKETS)]
    for cell in ("control", "b"):
        for fields in found:
            scored = int(rng.poisson(40))
            easy = int(rng.binomial(scored, 0.3))
            won = int(rng.binomial(scored - easy, 0.02))
            for variant, hits in (("default", easy), ("new", easy + won)):
                fields[f"{cell}/{variant}/scored"] = scored
                fields[f"{cell}/{variant}/hits"] = hits
                fields[f"{cell}/{variant}/rr_millionths"] = 300_000 * hits
    trial = experiment("control", "b", variants=[None, "new"])
    default, new = report(trial, found).variants
    assert (default.name, new.name) == ("default", "new")
    assert (
        default.n_scored
        == new.n_scored
        == sum(fields[f"{cell}/new/scored"] for fields in found for cell in ("control", "b"))
    )
    assert default.scores["hit_at_20"].decision is None
    assert new.scores["hit_at_20"].decision is Decision.BETTER
    assert new.scores["mrr"].mean == pytest.approx(0.3 * new.scores["hit_at_20"].mean)
    # Without its pairs the same difference is not yet one.
    for fields in found:
        fields["control/new/scored"] += 1
    assert report(trial, found).variants[1].scores["hit_at_20"].decision is Decision.NOT_YET


def test_less_is_better_where_it_is():
    more = Interval(0.2, 0.1, 0.3, 0.03)
    assert decide_less(more) is Decision.WORSE
    assert decide_less(Interval(-0.2, -0.3, -0.1, 0.03)) is Decision.BETTER
    assert decide_less(None) is Decision.NOT_YET


def test_users_who_are_not_where_the_shares_send_them_are_noticed():
    assert mismatch([5000, 5000], [2500, 2500]) == pytest.approx(1)
    assert mismatch([5100, 4900], [100, 100]) == pytest.approx(0.0455, abs=1e-4)
    assert mismatch([1000, 2000, 3000], [100, 200, 300]) == pytest.approx(1)
    assert mismatch([5300, 4700], [100, 100]) < MISMATCH_BELOW
    assert mismatch([5000], [100]) is mismatch([0, 0], [1, 1]) is mismatch([9, 3], [1, 0]) is None


@pytest.mark.parametrize(
    ("square", "degrees", "tail"),
    [  # of a table of the chi-square distribution
        (3.841, 1, 0.05),
        (10.828, 1, 0.001),
        (5.991, 2, 0.05),
        (7.815, 3, 0.05),
        (13.277, 4, 0.01),
        (15.086, 5, 0.01),
        (29.588, 10, 0.001),
        (0.0, 7, 1.0),
    ],
)
def test_the_tail_of_chi_square_is_that_of_the_tables(square, degrees, tail):
    assert chi_square_tail(square, degrees) == pytest.approx(tail, rel=2e-3)


# --- the promise, on viewers who come again and again --------------------------------------------


def first_decision(rng, lift):
    """Return the look at which plays a user of two cells first differ, else None.

    Viewers of unequal taste and activity; they count from their first play on, as in the sums.
    """
    rates = 0.03 * rng.lognormal(0, 1, (2, N_USERS)) * rng.gamma(4, 0.25, (2, N_USERS))
    rates[1] *= 1 + lift
    buckets = rng.integers(0, N_BUCKETS, (2, N_USERS))
    plays = np.zeros((2, N_USERS))
    for look in range(N_LOOKS):
        plays += rng.poisson(rates)
        control, treatment = (
            BucketSums(
                np.bincount(buckets[cell], plays[cell] > 0, N_BUCKETS).astype(float),
                np.bincount(buckets[cell], plays[cell], N_BUCKETS).astype(float),
            )
            for cell in (0, 1)
        )
        interval = relative_difference(control, treatment)
        if interval and not interval.lower <= 0 <= interval.upper:
            return look
    return None


def test_cells_without_a_difference_are_flagged_in_no_more_than_one_of_twenty_experiments():
    rng = np.random.default_rng(11)
    flagged = np.mean([first_decision(rng, 0.0) is not None for _ in range(N_RUNS)])
    log.info(
        "A/A of plays a user, %d runs of %d users and %d looks: %.1f %% flagged",
        *(N_RUNS, N_USERS, N_LOOKS, 100 * flagged),
    )
    assert flagged <= 0.05


def test_a_clear_difference_of_plays_a_user_is_found():
    rng = np.random.default_rng(12)
    found = np.mean([first_decision(rng, 0.5) is not None for _ in range(20)])
    assert found >= 0.8


def test_nobody_divides_by_what_may_be_nothing():
    counts = np.full(N_BUCKETS, 20.0)
    nothing, something = np.zeros(N_BUCKETS), np.ones(N_BUCKETS)
    few = np.zeros(N_BUCKETS)
    few[:3] = 1
    assert relative_difference(BucketSums(counts, nothing), BucketSums(counts, something)) is None
    assert relative_difference(BucketSums(counts, few), BucketSums(counts, something)) is None
