"""Intervals that hold at every look: what an experiment has shown, however often it is asked.

People look at a dashboard every minute. An ordinary 95 % interval is right at one look and wrong at
some look in most experiments without any effect. A *confidence sequence* covers the truth at all
looks at once, with probability 1 - α, so it may be watched, and acted on at any time.

**Method.** The normal mixture of Robbins (1970), as an asymptotic confidence sequence
(Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2024; the always-valid inference of Johari, Koomen,
Pekelis, Walsh 2022). With an estimate, its standard error s, and ρ = `tuned_to`, the standard
deviation of the mixture::

    radius = s · √((1 + s²/ρ²) · ln((1 + ρ²/s²) / α²))

It is narrowest, 3.0 s at α = .05, once s is a third of ρ, and within a tenth of that from s = .5 ρ
to .1 ρ; so ρ is the difference worth finding. It must be fixed before the data are seen.

**Users, not events.** Events of one user are alike, and a user comes back: a thousand events of ten
users are ten observations, not a thousand. So sums are kept by *bucket of users*, and the standard
error comes from how buckets differ, whatever happens inside them, over whatever time (linearized
ratio, Cochran 1977, 6.8)::

    mean = Σ x_b / Σ n_b        s² = B/(B-1) · Σ (x_b - mean · n_b)² / (Σ n_b)²

**It adds up.** The state is two sums a bucket; sums of workers, hours or replicas are added, in any
order. They are no set: an event that is added twice counts twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

N_BUCKETS: Final = 256
LEAST_EVENTS: Final = 1000
"""Of a cell, before anything is said: the theory is of many observations."""
LEAST_EFFECTIVE_BUCKETS: Final = 40.0
"""(Σn)² / Σn²: with fewer, some users make up so much of a cell that no error can be estimated."""
ALPHA: Final = 0.05
TUNED_TO: Final = 0.01
TUNED_TO_RELATIVE: Final = 0.05
LEAST_MEAN: Final = 5.0
"""Of the control's mean, in its errors, before it is divided by."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class BucketSums:
    """One metric of one cell: how many observations, and their sum, by bucket of users.

    Observations are bounded: hits (0 or 1), completion in [0, 1], or a paired difference in [-1, 1]
    of two variants scored on the same event.

    Attributes:
        counts: float64, shape (n_buckets,); integers.
        totals: float64, shape (n_buckets,).
    """

    counts: Floats
    totals: Floats

    @classmethod
    def empty(cls, n_buckets: int = N_BUCKETS) -> Self:
        """Return the sums of nothing."""
        return cls(np.zeros(n_buckets), np.zeros(n_buckets))

    @classmethod
    def of(
        cls,
        buckets: NDArray[np.integer[Any]],
        values: NDArray[np.floating[Any] | np.integer[Any] | np.bool_],
        n_buckets: int = N_BUCKETS,
    ) -> Self:
        """Return the sums of some observations.

        Args:
            buckets: The bucket of each one's *user*, shape (n,), 0 to n_buckets - 1: any hash of
                the user id that is not the allocation's, always the same one.
            values: Bounded and finite, shape (n,).
            n_buckets: 256 by default; sums of different numbers cannot be added.
        """
        counts = np.bincount(buckets, minlength=n_buckets).astype(np.float64)
        weights = values.astype(np.float64)
        totals = np.bincount(buckets, weights, minlength=n_buckets).astype(np.float64)
        assert len(counts) == n_buckets, "a bucket beyond the last one"
        return cls(counts, totals)

    def __add__(self, other: BucketSums) -> BucketSums:
        assert self.counts.shape == other.counts.shape, "sums of different buckets"
        return BucketSums(self.counts + other.counts, self.totals + other.totals)

    def as_dict(self) -> dict[str, list[float]]:
        """Return the sums for JSON, or field by field for increments in Redis."""
        return {"n": self.counts.tolist(), "sum": self.totals.tolist()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Sequence[float]]) -> Self:
        """Read what `as_dict` returned."""
        counts, totals = (np.array(stored[name], np.float64) for name in ("n", "sum"))
        assert counts.shape == totals.shape, (counts.shape, totals.shape)
        return cls(counts, totals)


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference of means, and where it surely is.

    Attributes:
        estimate: Of the second one minus the first one.
        lower: Lower end of the confidence sequence at this moment.
        upper: Upper end.
        standard_error: Of the estimate.
    """

    estimate: float
    lower: float
    upper: float
    standard_error: float


def mean_and_error(counts: Floats, totals: Floats) -> tuple[Floats, Floats]:
    """Return mean and standard error over the last axis, the buckets; shapes (...).

    Where there are no observations, both are NaN.
    """
    n_buckets = counts.shape[-1]
    n_events = counts.sum(axis=-1)
    n_events = np.where(n_events > 0, n_events, np.nan)
    means = totals.sum(axis=-1) / n_events
    residuals = totals - means[..., None] * counts
    squares = np.einsum("...b,...b->...", residuals, residuals)
    errors: Floats = np.sqrt(squares * n_buckets / (n_buckets - 1)) / n_events
    return means, errors


def radius(errors: Floats, alpha: float = ALPHA, tuned_to: float = TUNED_TO) -> Floats:
    """Return half the width of the interval around estimates with these standard errors.

    Args:
        errors: > 0, any shape.
        alpha: How often, at most, the truth is outside at *any* look.
        tuned_to: ρ, the difference worth finding, in the metric's unit; fixed beforehand.
    """
    squares = errors**2
    width: Floats = np.sqrt(
        squares * (1 + squares / tuned_to**2) * np.log((1 + tuned_to**2 / squares) / alpha**2)
    )
    return width


def is_enough(counts: Floats) -> NDArray[np.bool_]:
    """Say whether a mean may be judged yet, over the last axis; never of what was observed."""
    n_events = counts.sum(axis=-1)
    squares = np.einsum("...b,...b->...", counts, counts)
    is_wide = n_events**2 >= LEAST_EFFECTIVE_BUCKETS * squares
    return np.asarray((n_events >= LEAST_EVENTS) & is_wide)


def difference(
    control: BucketSums, treatment: BucketSums, alpha: float = ALPHA, tuned_to: float = TUNED_TO
) -> Interval | None:
    """Return treatment's mean minus control's, of cells with different users.

    Args:
        control: Sums of the one cell.
        treatment: Sums of the other one.
        alpha: Divide it by the number of comparisons, if several of them decide.
        tuned_to: ρ, fixed beforehand.

    Returns:
        None while there is too little to say anything.
    """
    if not (is_enough(control.counts) and is_enough(treatment.counts)):
        return None
    means, errors = mean_and_error(
        np.stack([control.counts, treatment.counts]), np.stack([control.totals, treatment.totals])
    )
    return _interval(float(means[1] - means[0]), float(np.hypot(*errors)), alpha, tuned_to)


def relative_difference(
    control: BucketSums,
    treatment: BucketSums,
    alpha: float = ALPHA,
    tuned_to: float = TUNED_TO_RELATIVE,
) -> Interval | None:
    """Return by which share treatment's mean is above control's; .05 is five percent more.

    For sums that grow with time, such as plays a user: their mean and its error grow alike, while
    the error of the ratio shrinks, as the theory wants it. By the delta method::

        r = mean_t / mean_c        s² = (s_t² + r² · s_c²) / mean_c²

    Args:
        control: Sums of the one cell.
        treatment: Sums of the other one.
        alpha: Divide it by the number of comparisons, if several of them decide.
        tuned_to: ρ, a share, fixed beforehand.

    Returns:
        None while there is too little to say anything: also while control's mean is not yet
        LEAST_MEAN of its errors above 0, because nobody divides by what may be nothing.
    """
    if not (is_enough(control.counts) and is_enough(treatment.counts)):
        return None
    (base, mean), (base_error, error) = mean_and_error(
        np.stack([control.counts, treatment.counts]), np.stack([control.totals, treatment.totals])
    )
    if not base > LEAST_MEAN * base_error:
        return None
    ratio = float(mean / base)
    return _interval(ratio - 1, float(np.hypot(error, ratio * base_error) / base), alpha, tuned_to)


def paired_difference(
    differences: BucketSums, alpha: float = ALPHA, tuned_to: float = TUNED_TO
) -> Interval | None:
    """Return the mean of differences of two variants that were scored on the same events.

    Needs far fewer events than `difference`: what is common to both falls out.
    """
    if not is_enough(differences.counts):
        return None
    mean, error = mean_and_error(differences.counts, differences.totals)
    return _interval(float(mean), float(error), alpha, tuned_to)


def _interval(estimate: float, error: float, alpha: float, tuned_to: float) -> Interval | None:
    assert 0 < alpha < 1, alpha
    assert tuned_to > 0, tuned_to
    if error == 0:  # every bucket is alike to the last digit: nothing was measured
        return None
    half = float(radius(np.array(error), alpha, tuned_to))
    return Interval(estimate, estimate - half, estimate + half, error)
