"""Whether a contender's scores can be read as probabilities.

Each title of a list of k best is a forecast: will the viewer's next new play be this one? A
logistic of the score (Platt 1999) is fitted to the older half of the lists and judged on the newer
half: in ten bins of equally many forecasts, the mean probability beside the observed share. The
expected calibration error (Naeini et al. 2015) is the mean distance of the two. Lists that are
served by popularity because the viewer is cold to the contender are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

N_BINS: Final = 10
MIN_LISTS: Final = 100
_STEPS: Final = 50
_RIDGE: Final = 1e-3
"""Of Newton's method; it also keeps forecasts finite where the score tells hits from the rest."""
_MAX_LOGIT: Final = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """How forecasts of the newer half came true.

    Attributes:
        predicted: float64, shape (N_BINS,); mean probability, ascending.
        observed: float64, shape (N_BINS,); share that came true.
        n_forecasts: In all bins.
        error: The expected calibration error, 0 to 1.
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    n_forecasts: int
    error: float


def calibrate(
    scores: NDArray[np.float32], is_hit: NDArray[np.bool_], times_ms: NDArray[np.int64]
) -> Calibration | None:
    """Fit on the older half of the lists, judge on the newer one.

    Args:
        scores: float32, shape (n_lists, k); -inf where a list is shorter.
        is_hit: bool, the same shape.
        times_ms: int64, shape (n_lists,).

    Returns:
        None where there are fewer than MIN_LISTS lists, or no hits to fit.
    """
    if len(scores) < MIN_LISTS:
        return None
    in_time = np.argsort(times_ms, kind="stable")
    middle = len(in_time) // 2
    old_scores, old_hits = _flat(scores, is_hit, in_time[:middle])
    new_scores, new_hits = _flat(scores, is_hit, in_time[middle:])
    if not old_hits.any() or len(new_scores) < N_BINS:
        return None
    center, width = old_scores.mean(), old_scores.std() or 1.0
    weights = _fit((old_scores - center) / width, old_hits)
    predicted = _probability((new_scores - center) / width, weights)
    bins = np.array_split(np.argsort(predicted, kind="stable"), N_BINS)
    means = np.array([predicted[rows].mean() for rows in bins])
    shares = np.array([new_hits[rows].mean() for rows in bins])
    sizes = np.array([len(rows) for rows in bins])
    error = float((np.abs(means - shares) * sizes).sum() / sizes.sum())
    return Calibration(means, shares, len(predicted), error)


def _flat(
    scores: NDArray[np.float32], is_hit: NDArray[np.bool_], rows: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    chosen = scores[rows].astype(np.float64)
    is_there = np.isfinite(chosen)
    return chosen[is_there], is_hit[rows][is_there].astype(np.float64)


def _fit(x: NDArray[np.float64], hits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return intercept and slope of the logistic regression, by Newton's method."""
    table = np.stack([np.ones(len(x)), x], axis=1)
    share = np.clip(hits.mean(), 1e-6, 1 - 1e-6)
    weights = np.array([np.log(share / (1 - share)), 0.0])
    for _ in range(_STEPS):
        p = _probability(x, weights)
        slope = np.array([0.0, _RIDGE * weights[1]])
        gradient = table.T @ (p - hits) + slope
        curvature = (table.T * (p * (1 - p))) @ table + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    return weights


def _probability(x: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    logit = np.clip(weights[0] + weights[1] * x, -_MAX_LOGIT, _MAX_LOGIT)
    found: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logit))
    return found
