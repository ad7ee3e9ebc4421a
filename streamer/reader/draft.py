"""From the bytes of a batch to reads: which features may be used, and which users to fold in.

Pure. Features count only if they are of the reader's own model: no product across models can
happen, because the vectors of another model never leave this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.errors import LearnerError
from streamer.factors import Learner, ask
from streamer.factors.imported import ImportedTable
from streamer.history import HistoryBatch, event_times_ms
from streamer.reader.feature_table import FeatureTable
from streamer.reader.live_model import ServedModel
from streamer.reader.read import Status, UserRead

BROKEN_FEATURES: Final = "broken_features"
BROKEN_HISTORY: Final = "broken_history"
BROKEN_IMPORTED: Final = "broken_imported"
BEHIND_HISTORY: Final = "behind_history"
FOLD_REJECTED: Final = "fold_rejected"
LEARNER_FAILED: Final = "learner_failed"

DecodedHistories = tuple[HistoryBatch, NDArray[np.uint64], NDArray[np.bool_]]
"""Histories, their digests, and which of them are broken."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What all reads of one call have in common.

    Attributes:
        served: The live model, or None.
        age_seconds: Of the group's freshness, or None.
        is_stale: Whether that is too old.
    """

    served: ServedModel | None
    age_seconds: float | None
    is_stale: bool


def without_features(
    user_ids: Sequence[str], moment: Moment, status: Status, error: str | None = None
) -> list[UserRead]:
    """Return reads of users of whom nothing is known."""
    served = moment.served
    model_id = None if served is None else served.model.model_id
    generation = None if served is None else served.generation
    rest = (model_id, generation, None, None, error, served)
    return [
        UserRead(user_id, status, moment.age_seconds, None, None, *rest) for user_id in user_ids
    ]


class Draft:
    """Reads of a batch in the making, column by column.

    Attributes:
        learner_error: Why nobody could be folded in, if somebody had to be.
    """

    def __init__(self, user_ids: Sequence[str], features: FeatureTable, moment: Moment) -> None:
        """Start from what the features alone say."""
        self.learner_error: LearnerError | None = None
        self._user_ids = user_ids
        self._moment = moment
        self._is_usable = _usable(features, moment.served)
        self._spaces = _spaces(features, moment.served)
        self._is_imported = [False] * len(user_ids)
        self._digests = features.headers["history_digest"].astype(np.uint64)
        self._vectors = features.vectors
        self._statuses = [Status.STALE if moment.is_stale else Status.FRESH] * len(user_ids)
        self._errors: list[str | None] = [None] * len(user_ids)
        self._histories: list[HistoryBatch | None] = [None] * len(user_ids)
        numbers = ("as_of_ms", "written_ms", "model_id", "generation")
        columns: list[list[int | None]] = [features.headers[name].tolist() for name in numbers]
        self._as_of_ms, self._written_ms, self._model_ids, self._generations = columns
        for row in np.flatnonzero(features.is_broken).tolist():
            self._errors[row] = BROKEN_FEATURES
        for row in np.flatnonzero(~self._is_usable).tolist():
            self._forget(row)
        is_cold = self._is_usable & (features.headers["n_solved"] == 0)
        for row in np.flatnonzero(is_cold).tolist():
            self._vectors[row] = None
            self._statuses[row] = Status.COLD

    @property
    def unusable(self) -> NDArray[np.intp]:
        """Rows of users whose features are missing, broken, or of another model."""
        return np.flatnonzero(~self._is_usable)

    def add_histories(
        self, rows: NDArray[np.intp], decoded: DecodedHistories, learner: Learner
    ) -> None:
        """Take the histories of some users, and fold in whose features are not of them.

        A broken history takes no good features away. Users without any entry become COLD: features
        are only as good as the history they came from, and a forgotten user's are not served.

        Args:
            rows: Which users.
            decoded: Their histories, as `streamer.history.decode` returns them.
            learner: What to fold in with.
        """
        histories, digests, is_broken = decoded
        for position, row in enumerate(rows.tolist()):
            self._histories[row] = row_of(histories, position)
            if is_broken[position]:
                self._errors[row] = BROKEN_HISTORY
        is_behind = ~self._is_usable[rows] | (self._digests[rows] != digests)
        is_behind &= ~is_broken
        is_empty = histories.counts == 0
        for row in rows[is_behind & is_empty].tolist():
            self._forget(row)
        behind = np.flatnonzero(is_behind & ~is_empty)
        if len(behind):
            self._refold(rows[behind], histories.take(behind), learner)

    def _refold(self, rows: NDArray[np.intp], histories: HistoryBatch, learner: Learner) -> None:
        served = self._moment.served
        if served is None:
            self._leave_behind(rows, BEHIND_HISTORY)
            return
        try:
            factors = ask(learner, histories, served.model)
        except LearnerError as error:
            self.learner_error = error
            self._leave_behind(rows, LEARNER_FAILED)
            return
        vectors = factors.pairs
        vectors.flags.writeable = False
        self._leave_behind(rows[factors.is_rejected], FOLD_REJECTED)
        newest_ms = event_times_ms(histories.words[:, 0]).tolist()
        for position in np.flatnonzero(~factors.is_rejected).tolist():
            row = int(rows[position])
            self._forget(row)
            self._as_of_ms[row] = newest_ms[position]
            if factors.n_solved[position] > 0:
                self._statuses[row] = Status.REFOLDED
                self._vectors[row] = vectors[position]

    def _leave_behind(self, rows: NDArray[np.intp], error: str) -> None:
        """Keep what is stored for users who cannot be folded in, but say that it is behind."""
        for row in rows.tolist():
            self._errors[row] = error
            if self._statuses[row] is Status.FRESH:
                self._statuses[row] = Status.STALE

    def degrade(self, rows: NDArray[np.intp], error: str) -> None:
        """Say that Redis did not answer when it was asked about these."""
        for row in rows.tolist():
            self._statuses[row] = Status.DEGRADED
            self._errors[row] = error

    def add_imported(self, imported: ImportedTable) -> None:
        """Put imported vectors in the place of `lasting`, those of the very item model alone.

        Where nothing was folded in, an imported vector stands for both: the viewer is COLD no more.
        Users of whom Redis told nothing stay DEGRADED.

        Args:
            imported: Of all users.
        """
        for row in np.flatnonzero(imported.is_broken).tolist():
            self._errors[row] = self._errors[row] or BROKEN_IMPORTED
        model_ids, n_factors = self._spaces
        headers = imported.headers
        is_fit = (headers["n_factors"] > 0) & (headers["n_factors"] == n_factors)
        is_fit &= headers["model_id"] == model_ids
        fit = [
            row
            for row in np.flatnonzero(is_fit).tolist()
            if self._statuses[row] is not Status.DEGRADED
        ]
        for size in set(n_factors[fit].tolist()):
            rows = [row for row in fit if n_factors[row] == size]
            pairs = np.empty((len(rows), 2, size), np.float32)
            pairs[:, 1] = [imported.vectors[row] for row in rows]
            pairs[:, 0] = [
                lasting if (pair := self._vectors[row]) is None else pair[0]
                for row, lasting in zip(rows, pairs[:, 1], strict=True)
            ]
            pairs.flags.writeable = False
            for row, pair in zip(rows, pairs, strict=True):
                self._take_imported(row, pair)

    def _take_imported(self, row: int, pair: NDArray[np.float32]) -> None:
        if self._statuses[row] is Status.COLD:
            # Whatever went wrong with the viewer's events, they are missing.
            is_behind = self._moment.is_stale or self._errors[row] is not None
            self._statuses[row] = Status.STALE if is_behind else Status.FRESH
        self._vectors[row] = pair
        self._is_imported[row] = True

    def finish(self) -> list[UserRead]:
        """Return the reads, in the order of the users."""
        return list(
            map(
                UserRead,
                self._user_ids,
                self._statuses,
                repeat(self._moment.age_seconds),
                self._as_of_ms,
                self._written_ms,
                self._model_ids,
                self._generations,
                self._vectors,
                self._histories,
                self._errors,
                repeat(self._moment.served),
                self._is_imported,
            )
        )

    def _forget(self, row: int) -> None:
        """Make a user COLD, whatever the features say."""
        served = self._moment.served
        self._statuses[row] = Status.COLD
        self._vectors[row] = None
        self._as_of_ms[row] = self._written_ms[row] = None
        self._model_ids[row] = None if served is None else served.model.model_id
        self._generations[row] = None if served is None else served.generation


def row_of(histories: HistoryBatch, row: int) -> HistoryBatch:
    """Return one user's history, a view."""
    part = slice(row, row + 1)
    return HistoryBatch(
        histories.item_keys[part],
        histories.words[part],
        histories.counts[part],
        histories.forgotten_before_ms[part],
    )


def _usable(features: FeatureTable, served: ServedModel | None) -> NDArray[np.bool_]:
    """Say whose features may be served: any sound ones without a model, else only the model's."""
    headers = features.headers
    if served is None:
        return np.asarray(headers["n_factors"] > 0)
    model = served.model
    # An id that two models share would be their writer's mistake; the sizes tell some of those.
    return np.asarray(
        (headers["model_id"] == model.model_id) & (headers["n_factors"] == model.n_factors)
    )


def _spaces(
    features: FeatureTable, served: ServedModel | None
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the model and the dimension that a vector of each user must have; 0 for nobody's."""
    if served is None:
        headers = features.headers
        return headers["model_id"].astype(np.uint64), headers["n_factors"].astype(np.int64)
    n_users, model = len(features.headers), served.model
    return np.full(n_users, model.model_id, np.uint64), np.full(n_users, model.n_factors)
