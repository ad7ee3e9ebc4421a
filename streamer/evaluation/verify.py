"""Verification: is Redis what the log says, user by user?

Histories must be equal byte for byte. Vectors must equal a fold-in of that history with the live
model within 1e-3 (f16) or 1e-5 (f32) of their norm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np

from streamer.evaluation.golden import GoldenHistories, batches
from streamer.factors import FeatureDtype, Features, decode_features
from streamer.history import digests, encode
from streamer.pipeline.records import Record
from streamer.pipeline.step import LiveModel

CHUNK_USERS: Final = 1000
TOLERANCES: Final = {FeatureDtype.F16: 1e-3, FeatureDtype.F32: 1e-5}

StoredValues = Callable[[Sequence[str]], Sequence[tuple[bytes | None, bytes | None]]]
"""Reads (history, features) of some users."""


class Verdict(StrEnum):
    """What was found for one user."""

    EQUAL = "equal"
    HISTORY_MISSING = "history_missing"
    HISTORY_DIFFERS = "history_differs"
    FEATURES_MISSING = "features_missing"
    FEATURES_UNWANTED = "features_unwanted"
    FEATURES_BEHIND = "features_behind"
    VECTORS_DIFFER = "vectors_differ"


@dataclass(slots=True)
class Verification:
    """The result over all users.

    Attributes:
        n_records: Records of the log that were read.
        n_applied: Of these, accepted events.
        n_rejected: Of these, dead letters.
        verdicts: Number of users by verdict.
        worst_error: Largest relative error of a vector.
    """

    n_records: int = 0
    n_applied: int = 0
    n_rejected: int = 0
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    worst_error: float = 0.0

    @property
    def n_users(self) -> int:
        """Users that the log knows."""
        return self.verdicts.total()

    @property
    def n_different(self) -> int:
        """Users for whom Redis is not what the log says."""
        return self.n_users - self.verdicts[Verdict.EQUAL]


def verify(
    records: Iterable[Record],
    read: StoredValues,
    live: LiveModel | None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Verification:
    """Recompute every user of the log and compare with the store.

    Args:
        records: The whole log, in any order; what is still to be applied counts as different.
        read: Reads the store.
        live: The served model; None compares histories only.
        on_progress: Told the number of records read so far.

    Returns:
        The verdicts. Cost: one merge of the log and one fold-in of every user.
    """
    golden = GoldenHistories()
    result = Verification()
    for batch in batches(records):
        golden.apply(batch)
        result.n_records += len(batch)
        on_progress(result.n_records)
    result.n_applied, result.n_rejected = golden.n_applied, golden.n_rejected
    user_ids = golden.user_ids
    for start in range(0, len(user_ids), CHUNK_USERS):
        chunk = user_ids[start : start + CHUNK_USERS]
        _compare(chunk, golden, read(chunk), live, result)
    return result


def _compare(
    user_ids: Sequence[str],
    golden: GoldenHistories,
    stored: Sequence[tuple[bytes | None, bytes | None]],
    live: LiveModel | None,
    result: Verification,
) -> None:
    histories = golden.histories(golden.rows_of(user_ids))
    history_digests = digests(histories)
    expected = encode(histories, history_digests)
    vectors = live.learner(histories, live.model).vectors if live else None
    for row, (history, features) in enumerate(stored):
        if history != expected[row]:
            is_missing = history is None
            verdict = Verdict.HISTORY_MISSING if is_missing else Verdict.HISTORY_DIFFERS
        elif live is None or vectors is None:
            verdict = Verdict.EQUAL
        elif histories.counts[row] == 0:
            verdict = Verdict.EQUAL if features is None else Verdict.FEATURES_UNWANTED
        elif features is None or (found := decode_features(features)) is None:
            verdict = Verdict.FEATURES_MISSING
        elif not _is_current(found, live, int(history_digests[row])):
            verdict = Verdict.FEATURES_BEHIND
        else:
            error = _relative_error(found.vectors, vectors[row])
            result.worst_error = max(result.worst_error, error)
            is_near = error <= TOLERANCES[FeatureDtype(features[3])]
            verdict = Verdict.EQUAL if is_near else Verdict.VECTORS_DIFFER
        result.verdicts[verdict] += 1


def _is_current(found: Features, live: LiveModel, history_digest: int) -> bool:
    return (
        found.model_id == live.model.model_id
        and found.generation == live.generation
        and found.history_digest == history_digest
    )


def _relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest ‖Δ‖ / ‖u‖ of a user's vectors; a zero vector must be exactly zero."""
    distance = np.linalg.norm(found - expected, axis=1)
    norm = np.linalg.norm(expected, axis=1)
    return float(np.max(np.where(norm > 0, distance / np.where(norm > 0, norm, 1.0), distance)))
