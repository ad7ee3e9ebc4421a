"""What an experiment has shown so far: its cells side by side, from their sums.

The control is the cell named ``control``, else the first one. Outcomes are compared with it as
shares (`relative_difference`), and decide. All comparisons of an experiment share its alpha, so
with probability 95 % none of its decisions, ever, is wrong. What a variant's vectors are worth is
compared on the same plays (`paired_difference`); it explains, and does not decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import erfc, exp, pi, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.experiments.allocation import Experiment
from streamer.experiments.catalog import DEFAULT_VARIANT
from streamer.experiments.counting import MILLION, Score, Sum
from streamer.experiments.decision import Decision, decide, decide_less
from streamer.experiments.sequential import (
    ALPHA,
    BucketSums,
    Interval,
    difference,
    mean_and_error,
    paired_difference,
    relative_difference,
)

CONTROL: Final = "control"
MISMATCH_BELOW: Final = 0.001
"""Users are not where the shares send them, if that were so rare by chance."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Metric:
    """An outcome, as the ratio of two sums.

    Attributes:
        name: For people and machines.
        sum: What is counted.
        per: What it is divided by.
        scale: How much of the sum is one.
        is_better_less: Whether a smaller one is better.
    """

    name: str
    sum: Sum
    per: Sum
    scale: float = 1.0
    is_better_less: bool = False


METRICS: Final = (
    Metric("plays_per_user", Sum.PLAYS, Sum.USERS),
    Metric("minutes_per_user", Sum.WATCHED_MS, Sum.USERS, 60_000.0),
    Metric("completion", Sum.COMPLETION, Sum.PLAYS, 200.0),
    Metric("thumbs_up_per_user", Sum.THUMBS_UP, Sum.USERS),
    Metric("thumbs_down_per_user", Sum.THUMBS_DOWN, Sum.USERS, is_better_less=True),
)
SCORES: Final = {"hit_at_20": (Score.HITS, 1.0), "mrr": (Score.RECIPROCAL_RANK, float(MILLION))}


@dataclass(frozen=True, slots=True)
class Compared:
    """A mean, beside the control's.

    Attributes:
        mean: None while nothing was observed.
        difference: To the control; of outcomes as a share of its mean. None for the control itself
            and while there is too little.
        decision: None for the control itself.
    """

    mean: float | None
    difference: Interval | None
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class CellReport:
    """One cell.

    Attributes:
        name: Within the experiment.
        share: Of 10,000.
        variant: Whose features its users get.
        sums: Of all its users, by `Sum`.
        outcomes: By the name of the metric.
    """

    name: str
    share: int
    variant: str
    sums: Mapping[str, int]
    outcomes: Mapping[str, Compared]


@dataclass(frozen=True, slots=True)
class VariantReport:
    """What a variant foresaw of the sampled plays of all cells.

    Attributes:
        name: The variant.
        n_scored: Plays that it ranked.
        scores: ``hit_at_20`` and ``mrr``; differences are absolute, to the control's variant.
    """

    name: str
    n_scored: int
    scores: Mapping[str, Compared]


@dataclass(frozen=True, slots=True)
class ExperimentReport:
    """An experiment.

    Attributes:
        name: As in the file.
        start_ms: Since when it counts.
        control: The cell that others are compared with.
        alpha: Of each comparison of outcomes.
        cells: In the order of the file.
        variants: Those of the cells, the control's first.
        mismatch: The probability that chance alone divides the users so unevenly; None with fewer
            than two cells that have a share, and before anybody came.
    """

    name: str
    start_ms: int
    control: str
    alpha: float
    cells: tuple[CellReport, ...]
    variants: tuple[VariantReport, ...]
    mismatch: float | None

    @property
    def has_mismatch(self) -> bool:
        """Whether users are not where the shares send them."""
        return self.mismatch is not None and self.mismatch < MISMATCH_BELOW


def report(
    experiment: Experiment,
    sums: Sequence[Mapping[str, int]],
    default_variant: str = DEFAULT_VARIANT,
) -> ExperimentReport:
    """Return what an experiment has shown.

    Args:
        experiment: With a start.
        sums: Of each bucket of users, by ``CELL/SUM`` and ``CELL/VARIANT/SCORE``.
        default_variant: Of cells that set none.
    """
    assert experiment.start_ms is not None
    names = [cell.name for cell in experiment.cells]
    control = CONTROL if CONTROL in names else names[0]
    alpha = ALPHA / max(1, (len(names) - 1) * len(METRICS))
    variant_of = {
        cell.name: cell.parameters.variant or default_variant for cell in experiment.cells
    }
    cells = tuple(
        CellReport(
            cell.name,
            cell.share,
            variant_of[cell.name],
            {each: int(_column(sums, f"{cell.name}/{each}").sum()) for each in Sum},
            {metric.name: _compare(sums, control, cell.name, metric, alpha) for metric in METRICS},
        )
        for cell in experiment.cells
    )
    base = variant_of[control]
    variants = [base, *sorted(set(variant_of.values()) - {base})]
    return ExperimentReport(
        experiment.name,
        experiment.start_ms,
        control,
        alpha,
        cells,
        tuple(_variant(sums, names, base, each, len(variants)) for each in variants),
        mismatch([cell.sums[Sum.USERS] for cell in cells], [cell.share for cell in cells]),
    )


def mismatch(users: Sequence[int], shares: Sequence[int]) -> float | None:
    """Return how probable it is that users divide at least so unevenly by chance: chi-square.

    Args:
        users: Of each cell.
        shares: Of each cell; those without one are left out.
    """
    kept = [(n, share) for n, share in zip(users, shares, strict=True) if share]
    n_users, n_shares = sum(n for n, _ in kept), sum(share for _, share in kept)
    if len(kept) < 2 or not n_users:
        return None
    expected = [n_users * share / n_shares for _, share in kept]
    square = sum((n - e) ** 2 / e for (n, _), e in zip(kept, expected, strict=True))
    return chi_square_tail(square, len(kept) - 1)


def chi_square_tail(square: float, degrees: int) -> float:
    """Return P(X >= square) of a chi-square of so many degrees of freedom, >= 1.

    By the recurrence Q(a + 1, x) = Q(a, x) + x^a e^-x / Γ(a + 1), from Q(1, x) or Q(1/2, x).
    """
    half = square / 2
    is_odd = degrees % 2
    tail = erfc(sqrt(half)) if is_odd else exp(-half)
    term = 2 * sqrt(half / pi) * exp(-half) if is_odd else half * exp(-half)
    for step in range(1, (degrees + 1) // 2):
        tail += term
        term *= half / (step + (0.5 if is_odd else 1.0))
    return tail


def _compare(
    sums: Sequence[Mapping[str, int]], control: str, cell: str, metric: Metric, alpha: float
) -> Compared:
    mine = _of_metric(sums, cell, metric)
    if cell == control:
        return Compared(_mean(mine), None, None)
    found = relative_difference(_of_metric(sums, control, metric), mine, alpha)
    decision = decide_less(found) if metric.is_better_less else decide(found)
    return Compared(_mean(mine), found, decision)


def _of_metric(sums: Sequence[Mapping[str, int]], cell: str, metric: Metric) -> BucketSums:
    counts = _column(sums, f"{cell}/{metric.per}")
    return BucketSums(counts, _column(sums, f"{cell}/{metric.sum}") / metric.scale)


def _variant(
    sums: Sequence[Mapping[str, int]], cells: Sequence[str], base: str, variant: str, n: int
) -> VariantReport:
    """Compare a variant with the control's, on the plays of all cells; n variants share alpha."""
    scores: dict[str, Compared] = {}
    for name, (score, scale) in SCORES.items():
        mine, theirs = (
            BucketSums(
                _all_cells(sums, cells, each, Score.SCORED),
                _all_cells(sums, cells, each, score) / scale,
            )
            for each in (variant, base)
        )
        if variant == base:
            scores[name] = Compared(_mean(mine), None, None)
            continue
        alpha = ALPHA / ((n - 1) * len(SCORES))
        if np.array_equal(mine.counts, theirs.counts):  # the same plays
            paired = BucketSums(mine.counts, mine.totals - theirs.totals)
            found = paired_difference(paired, alpha)
        else:  # one of them was out of service for a while
            found = difference(theirs, mine, alpha)
        scores[name] = Compared(_mean(mine), found, decide(found))
    n_scored = int(_all_cells(sums, cells, variant, Score.SCORED).sum())
    return VariantReport(variant, n_scored, scores)


def _all_cells(
    sums: Sequence[Mapping[str, int]], cells: Sequence[str], variant: str, score: Score
) -> Floats:
    columns = [_column(sums, f"{cell}/{variant}/{score}") for cell in cells]
    total: Floats = np.sum(columns, axis=0)
    return total


def _column(sums: Sequence[Mapping[str, int]], field: str) -> Floats:
    """Return one sum of every bucket, shape (n_buckets,)."""
    return np.array([fields.get(field, 0) for fields in sums], np.float64)


def _mean(sums: BucketSums) -> float | None:
    mean, _ = mean_and_error(sums.counts, sums.totals)
    return None if np.isnan(mean) else float(mean)
