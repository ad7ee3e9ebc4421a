"""How sure a mean is, and a difference of two: the paired bootstrap over viewers.

A viewer's plays are alike, so viewers are drawn, with replacement, and never single plays (Field
and Welsh 2007, "Bootstrapping clustered data"). All contenders are judged by the same draws, which
makes the comparison a paired one. Intervals are those of percentiles, of 95 %.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

N_RESAMPLES: Final = 1_000
SEED: Final = 7
MAX_GROUPS: Final = 20_000
"""More viewers are put together in so many groups at random; the intervals stay right."""
_AT_ONCE: Final = 50
_TAILS: Final = (2.5, 97.5)


class Interval(NamedTuple):
    """A value with its bounds; NaN where there is nothing to tell."""

    value: float
    low: float
    high: float


class Bootstrap:
    """Means of many columns and their resampled means."""

    def __init__(self, values: NDArray[np.float64], users: NDArray[np.intp]) -> None:
        """Draw.

        Args:
            values: float64, shape (n_targets, n_columns), n_targets > 0.
            users: intp, shape (n_targets,); whose each target is.
        """
        rng = np.random.default_rng(SEED)
        _, groups = np.unique(users, return_inverse=True)
        n_groups = int(groups.max()) + 1
        if n_groups > MAX_GROUPS:
            groups = (rng.permutation(n_groups) % MAX_GROUPS)[groups]
            n_groups = MAX_GROUPS
        sums = np.stack(
            [np.bincount(groups, column, n_groups) for column in (np.ones(len(users)), *values.T)],
            axis=1,
        ).astype(np.float64)
        self._means = values.mean(axis=0)
        self._can_tell = n_groups > 1
        self._resampled = np.concatenate(
            [_means(rng, sums, _AT_ONCE) for _ in range(N_RESAMPLES // _AT_ONCE)]
        )

    def mean(self, column: int) -> Interval:
        """Return the mean of a column."""
        return self._interval(float(self._means[column]), self._resampled[:, column])

    def lift(self, column: int, other: int) -> Interval:
        """Return how much greater the mean of a column is than another: .5 is 50 % more."""
        with np.errstate(divide="ignore", invalid="ignore"):
            value = self._means[column] / self._means[other] - 1.0
            resampled = self._resampled[:, column] / self._resampled[:, other] - 1.0
        return self._interval(float(value), resampled)

    def _interval(self, value: float, resampled: NDArray[np.float64]) -> Interval:
        if not (self._can_tell and np.isfinite(value) and np.isfinite(resampled).all()):
            return Interval(value if np.isfinite(value) else np.nan, np.nan, np.nan)
        low, high = np.percentile(resampled, _TAILS)
        return Interval(value, float(low), float(high))


def _means(
    rng: np.random.Generator, sums: NDArray[np.float64], n_resamples: int
) -> NDArray[np.float64]:
    """Return resampled means, shape (n_resamples, n_columns); the first sum is that of targets."""
    n_groups = len(sums)
    draws = rng.integers(n_groups, size=(n_resamples, n_groups))
    counts = np.stack([np.bincount(row, minlength=n_groups) for row in draws])
    totals = counts.astype(np.float64) @ sums
    means: NDArray[np.float64] = totals[:, 1:] / totals[:, :1]
    return means
