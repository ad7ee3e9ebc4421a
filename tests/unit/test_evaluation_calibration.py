import numpy as np
import pytest

from streamer.evaluation.trial.calibration import MIN_LISTS, N_BINS, calibrate


def forecasts(n_lists=2_000, k=10, drift=0.0, seed=1):
    """Scores whose chance is a logistic; after the first half it may drift."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n_lists, k)).astype(np.float32)
    later = np.arange(n_lists)[:, None] >= n_lists // 2
    chance = 1 / (1 + np.exp(-(2.0 * scores - 1.0 + drift * later)))
    return 5.0 * scores, rng.random(scores.shape) < chance, np.arange(n_lists)


def test_scores_with_a_logistic_chance_are_calibrated():
    found = calibrate(*forecasts())
    assert found.n_forecasts == 10_000
    assert len(found.predicted) == N_BINS
    assert found.error < 0.02
    assert found.observed[0] < 0.05
    assert found.observed[-1] > 0.8
    assert (np.diff(found.predicted) > 0).all()


def test_a_chance_that_drifts_shows_as_error():
    found = calibrate(*forecasts(drift=1.5))
    assert found.error > 0.1
    assert found.error == pytest.approx(np.abs(found.predicted - found.observed).mean())


def test_time_decides_what_is_old_and_not_the_order():
    scores, is_hit, times_ms = forecasts(drift=1.5)
    shuffled = np.random.default_rng(2).permutation(len(scores))
    again = calibrate(scores[shuffled], is_hit[shuffled], times_ms[shuffled])
    assert again.error == pytest.approx(calibrate(scores, is_hit, times_ms).error)


def test_short_lists_count_as_far_as_they_go():
    scores, is_hit, times_ms = forecasts()
    scores[:, 7:], is_hit[:, 7:] = -np.inf, False
    assert calibrate(scores, is_hit, times_ms).n_forecasts == 7_000


def test_too_little_is_not_judged():
    scores, is_hit, times_ms = forecasts(MIN_LISTS - 1)
    assert calibrate(scores, is_hit, times_ms) is None
    scores, is_hit, times_ms = forecasts()
    assert calibrate(scores, np.zeros_like(is_hit), times_ms) is None


def test_equal_scores_are_no_obstacle():
    scores, is_hit, times_ms = forecasts()
    found = calibrate(np.ones_like(scores), is_hit, times_ms)
    assert found.predicted == pytest.approx(np.full(N_BINS, found.predicted[0]))
    assert np.isfinite(found.error)
