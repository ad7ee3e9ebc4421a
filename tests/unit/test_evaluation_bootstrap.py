import numpy as np
import pytest

from streamer.evaluation.trial import bootstrap
from streamer.evaluation.trial.bootstrap import Bootstrap


def clustered(n_users=400, plays_each=5, seed=1):
    """Viewers who hit with a chance of their own, by two contenders of which one is better."""
    rng = np.random.default_rng(seed)
    chance = rng.random(n_users)
    users = np.repeat(np.arange(n_users), plays_each)
    hits = rng.random((2, len(users))) < np.stack([chance, 0.5 * chance])[:, users]
    return hits.T.astype(float), users


def test_an_interval_has_the_width_that_viewers_give_it():
    values, users = clustered()
    mean = Bootstrap(values, users).mean(0)
    of_users = np.bincount(users, values[:, 0]) / 5
    error = of_users.std(ddof=1) / np.sqrt(len(of_users))
    assert mean.value == values[:, 0].mean()
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert mean.low < mean.value < mean.high


def test_plays_of_one_viewer_are_not_taken_for_independent():
    values = np.repeat([0.0, 1.0], 1_000)[:, None]
    mean = Bootstrap(values, np.repeat([3, 8], 1_000)).mean(0)
    assert (mean.low, mean.high) == (0.0, 1.0)


def test_a_lift_is_paired():
    """The same column twice differs by nothing, however uncertain both are."""
    values, users = clustered()
    found = Bootstrap(np.concatenate([values, values[:, :1]], axis=1), users)
    assert found.lift(0, 2) == (0.0, 0.0, 0.0)
    lift = found.lift(0, 1)
    assert lift.value == pytest.approx(values[:, 0].mean() / values[:, 1].mean() - 1)
    assert 0.7 < lift.low < lift.value < lift.high < 1.4


def test_many_viewers_are_put_together_and_the_width_stays(monkeypatch):
    values, users = clustered(n_users=4_000, plays_each=2)
    whole = Bootstrap(values, users).mean(0)
    monkeypatch.setattr(bootstrap, "MAX_GROUPS", 300)
    grouped = Bootstrap(values, users).mean(0)
    assert grouped.value == whole.value
    assert grouped.high - grouped.low == pytest.approx(whole.high - whole.low, rel=0.2)


def test_the_same_data_give_the_same_interval():
    values, users = clustered()
    assert Bootstrap(values, users).mean(1) == Bootstrap(values, users).mean(1)


def test_what_cannot_be_told_is_not_a_number():
    alone = Bootstrap(np.ones((5, 1)), np.zeros(5, np.intp)).mean(0)
    assert alone.value == 1.0
    assert np.isnan([alone.low, alone.high]).all()
    lift = Bootstrap(np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([0, 1])).lift(0, 1)
    assert np.isnan(lift).all()
