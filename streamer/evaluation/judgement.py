"""The judgement on users: is what Redis holds what the log says, not yet, or something else?

A system that runs never stands still, so a stored history is held against two: the least that the
marks vouch for, and the most that the log says. Between the two it is right; equal to the most it
is up to date. Features must be the fold-in of the very history they were read with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.evaluation.expected import Bounds
from streamer.evaluation.lattice import covers, younger_than
from streamer.factors import FeatureDtype, Features, ask, decode_features, learner_id
from streamer.history import HistoryBatch, decode, digests, encode
from streamer.pipeline.step import LiveModel

TOLERANCES: Final = {FeatureDtype.F16: 1e-3, FeatureDtype.F32: 1e-5}

Stored = tuple[bytes | None, bytes | None]
"""A user's history and features, read together."""


class Verdict(StrEnum):
    """What was found for one user."""

    EQUAL = "equal"
    EXPIRED = "expired"
    BEYOND_LOG = "beyond_log"
    HISTORY_BEHIND = "history_behind"
    FEATURES_BEHIND = "features_behind"
    FEATURES_OF_ANOTHER_LEARNER = "features_of_another_learner"
    HISTORY_MISSING = "history_missing"
    HISTORY_DIFFERS = "history_differs"
    HISTORY_BROKEN = "history_broken"
    FEATURES_MISSING = "features_missing"
    FEATURES_UNWANTED = "features_unwanted"
    FEATURES_OF_ANOTHER_HISTORY = "features_of_another_history"
    VECTORS_DIFFER = "vectors_differ"


EQUAL: Final = frozenset({Verdict.EQUAL, Verdict.EXPIRED})
BEHIND: Final = frozenset(
    {Verdict.HISTORY_BEHIND, Verdict.FEATURES_BEHIND, Verdict.FEATURES_OF_ANOTHER_LEARNER}
)
DIFFERENT: Final = frozenset(Verdict) - EQUAL - BEHIND - {Verdict.BEYOND_LOG}


@dataclass(frozen=True, slots=True)
class Horizons:
    """Before which times something may rightly be missing; epoch milliseconds, 0 for never.

    Attributes:
        log_ms: Evidence up to here may come from records that the topics no longer hold.
        expiry_ms: Evidence up to here may have expired in Redis.
        tombstone_ms: A forgotten user's marker up to here may have expired.
    """

    log_ms: int = 0
    expiry_ms: int = 0
    tombstone_ms: int = 0


def judge_histories(
    values: Sequence[bytes | None], bounds: Bounds, horizons: Horizons, *, is_rewound: bool = False
) -> tuple[list[Verdict], HistoryBatch]:
    """Judge stored histories.

    Args:
        values: n_users histories, read after the marks that `bounds.vouched` rests on, and before
            the end of the log that `bounds.said` rests on.
        bounds: What they must be between.
        horizons: What may be missing.
        is_rewound: The marks went down meanwhile: Redis has forgotten something that is coming
            again, so nothing is vouched for.

    Returns:
        A verdict each, and the stored histories.
    """
    stored, _, is_broken = decode(values)
    has_all = covers(stored, bounds.said)
    has_vouched = np.full(len(values), is_rewound) | covers(
        stored, younger_than(bounds.vouched, horizons.expiry_ms, horizons.tombstone_ms)
    )
    has_all_living = covers(
        stored, younger_than(bounds.said, horizons.expiry_ms, horizons.tombstone_ms)
    )
    has_no_more = covers(bounds.most, stored)
    has_no_more_young = has_no_more | (
        (horizons.log_ms > 0) & covers(bounds.most, younger_than(stored, horizons.log_ms))
    )
    is_canonical = _is_canonical(values, stored)
    verdicts = np.full(len(values), Verdict.HISTORY_DIFFERS, object)
    is_absent = np.array([value is None for value in values], bool)
    verdicts[is_absent] = Verdict.HISTORY_MISSING
    verdicts[has_vouched & has_no_more_young] = Verdict.HISTORY_BEHIND
    verdicts[has_all_living & has_no_more_young] = Verdict.EXPIRED
    verdicts[has_all & has_no_more_young] = Verdict.BEYOND_LOG
    verdicts[has_all & has_no_more] = Verdict.EQUAL
    verdicts[is_broken | ~is_canonical] = Verdict.HISTORY_BROKEN
    return verdicts.tolist(), stored


def _is_canonical(values: Sequence[bytes | None], stored: HistoryBatch) -> NDArray[np.bool_]:
    """Say whose bytes are those that every writer would write."""
    written = encode(stored, digests(stored))
    pairs = zip(values, written, strict=True)
    return np.array([value is None or value == ours for value, ours in pairs], bool)


def judge_features(
    values: Sequence[bytes | None], histories: HistoryBatch, live: LiveModel
) -> tuple[list[Verdict], float]:
    """Judge features against the histories they were read with.

    Args:
        values: n_users features.
        histories: The stored histories, read together with them.
        live: The served model.

    Returns:
        A verdict each, and the largest relative error of a vector that was compared. Cost: one
        fold-in of every user.

    Raises:
        LearnerError: The learner failed.
    """
    history_digests = digests(histories).tolist()
    factors = ask(live.learner, histories, live.model)
    verdicts, worst_error = [], 0.0
    for row, value in enumerate(values):
        found = None if value is None else decode_features(value)
        if histories.counts[row] == 0:
            verdict = Verdict.EQUAL if value is None else Verdict.FEATURES_UNWANTED
        elif factors.is_rejected[row]:
            verdict = Verdict.EQUAL  # such features are never replaced; the worker counts them
        elif value is None or found is None:
            verdict = Verdict.FEATURES_MISSING
        elif found.generation != live.generation:
            verdict = Verdict.FEATURES_BEHIND
        elif found.learner_id != learner_id(live.learner.name):
            verdict = Verdict.FEATURES_OF_ANOTHER_LEARNER
        elif (
            found.model_id != live.model.model_id
            or found.vectors.shape != factors.vectors[row].shape
        ):
            verdict = Verdict.VECTORS_DIFFER
        elif found.history_digest != history_digests[row]:
            verdict = Verdict.FEATURES_OF_ANOTHER_HISTORY
        else:
            error = _relative_error(found, factors.vectors[row])
            worst_error = max(worst_error, error)
            is_near = error <= TOLERANCES[FeatureDtype(value[3])]
            verdict = Verdict.EQUAL if is_near else Verdict.VECTORS_DIFFER
        verdicts.append(verdict)
    return verdicts, worst_error


def _relative_error(found: Features, expected: NDArray[np.float32]) -> float:
    """Return the largest ‖Δ‖ / ‖u‖ of a user's vectors; a zero vector must be exactly zero."""
    distance = np.linalg.norm(found.vectors - expected, axis=1)
    norm = np.linalg.norm(expected, axis=1)
    return float(np.max(np.where(norm > 0, distance / np.where(norm > 0, norm, 1.0), distance)))


def combine(history: Verdict, features: Verdict) -> Verdict:
    """Return the verdict on a user: the history's, unless the features' is worse."""
    if history in DIFFERENT or history is Verdict.EXPIRED:
        return history
    return history if features is Verdict.EQUAL else features
