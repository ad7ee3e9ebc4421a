"""The pure step: from stored histories and what arrived to what must be written.

Nothing here acts. `plan` may be called again with the same evidence on any newer history: that
is what makes a conflict, a lost reply and a replay the same simple case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.errors import LearnerError
from streamer.events import Kind
from streamer.experiments import Additions
from streamer.factors import (
    UNKNOWN_ROW,
    FeatureDtype,
    FoldInParams,
    ItemModel,
    Learner,
    Stamp,
    ask,
    encode_features,
    learner_id,
)
from streamer.history import (
    ABSENT_DIGEST,
    HistoryBatch,
    Interactions,
    changes,
    digests,
    encode,
    event_times_ms,
    merge,
    pack_word,
)

NO_GENERATION = -1
"""Generation of features that are not known to be of any model."""


@dataclass(frozen=True, slots=True)
class LiveModel:
    """A variant as it is served now.

    Attributes:
        variant: Its name in keys.
        generation: Of the pointer that named the model; 0 to 2**32 - 1.
        model: The items.
        learner: Folds users in.
    """

    variant: str
    generation: int
    model: ItemModel
    learner: Learner


class LearnerFailure(NamedTuple):
    """A learner that failed, and the variant that must go out of service by it."""

    live: LiveModel
    error: LearnerError


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What the worker believes the store holds for some users.

    Attributes:
        histories: n_users histories.
        digests: uint64, shape (n_users,); ABSENT_DIGEST where there is none.
        generations: Of the stored features, by variant; int64, shape (n_users,), NO_GENERATION
            where unknown, as it is of a variant that is not there.
    """

    histories: HistoryBatch
    digests: NDArray[np.uint64]
    generations: dict[str, NDArray[np.int64]]

    @classmethod
    def nothing(cls, n_users: int) -> Known:
        """Return what is known of users that the store has never seen."""
        return cls(
            HistoryBatch.empty(n_users),
            np.full(n_users, ABSENT_DIGEST, np.uint64),
            {},
        )

    def generations_of(self, variant: str) -> NDArray[np.int64]:
        """Return a copy of a variant's column."""
        column = self.generations.get(variant)
        return np.full(len(self.digests), NO_GENERATION) if column is None else column.copy()

    def take(self, rows: NDArray[np.intp]) -> Known:
        """Return a copy of the given rows, in their order."""
        generations = {variant: column[rows] for variant, column in self.generations.items()}
        return Known(self.histories.take(rows), self.digests[rows], generations)

    def put(self, rows: NDArray[np.intp], other: Known) -> None:
        """Overwrite the given rows with those of `other`, in place."""
        self.histories.put(rows, other.histories)
        self.digests[rows] = other.digests
        for variant in other.generations.keys() - self.generations.keys():
            self.generations[variant] = self.generations_of(variant)
        for variant, column in self.generations.items():
            column[rows] = other.generations.get(variant, NO_GENERATION)


@dataclass(frozen=True, slots=True, eq=False)
class UserWrites:
    """One compare-and-set per user.

    Attributes:
        user_ids: n_users ids.
        expected_digests: uint64, shape (n_users,); a user whose stored digest differs is a
            conflict and stays as it is.
        histories: n_users values; empty where the stored bytes stay (the digest is compared
            nevertheless).
        features: n_users values of each live variant; empty where they stay.
        generations: Of the features of the same variants; stored ones of a higher one stay.
        is_forgotten: bool, shape (n_users,); the features of every variant ever used go first.
        is_tombstone: bool, shape (n_users,); the history holds no entry and may expire.
        additions: What sums of experiments gain with a user's write, and not without it; of users
            whose histories change alone.
    """

    user_ids: Sequence[str]
    expected_digests: NDArray[np.uint64]
    histories: Sequence[bytes]
    features: Mapping[str, Sequence[bytes]]
    generations: Mapping[str, int]
    is_forgotten: NDArray[np.bool_]
    is_tombstone: NDArray[np.bool_]
    additions: Additions = field(default_factory=Additions.none)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What one step would write, and what will be known once it is written.

    Attributes:
        writes: The compare-and-sets.
        after: What the store holds for users whose write succeeds.
        outcomes: uint8, shape (n,); the `streamer.history.Outcome` of each interaction.
        n_folded: Users folded in, by variant.
        n_fold_rejected: Users whose solve failed its check, by variant.
        failures: Learners that failed; nobody's features of their variants are replaced.
    """

    writes: UserWrites
    after: Known
    outcomes: NDArray[np.uint8]
    n_folded: Mapping[str, int]
    n_fold_rejected: Mapping[str, int]
    failures: Sequence[LearnerFailure] = ()


@dataclass(frozen=True, slots=True)
class FeatureFormat:
    """How features are written.

    Attributes:
        dtype: Of the vectors.
        now_ms: The clock at the time of the plan, epoch milliseconds.
    """

    dtype: FeatureDtype
    now_ms: int


def plan(
    user_ids: Sequence[str],
    known: Known,
    arrived: Interactions,
    lives: Sequence[LiveModel],
    feature_format: FeatureFormat,
) -> Plan:
    """Merge what arrived, fold in whoever needs it for every variant, and encode it all.

    Args:
        user_ids: n_users ids.
        known: What the store is believed to hold for them.
        arrived: The evidence.
        lives: The variants in service, each once; without any, histories are kept and folded in
            once there is one.
        feature_format: How to write features.

    Returns:
        The plan. A user is folded in when the history changed or the features of the variant are
        not known to be of its live generation. A failed solve leaves the stored features as they
        are, and so does a learner that fails, for everybody.
    """
    histories, outcomes = merge(known.histories, arrived)
    after_digests = digests(histories)
    is_empty = histories.counts == 0
    has_nothing = is_empty & (histories.forgotten_before_ms == 0)
    after_digests[has_nothing & (known.digests == ABSENT_DIGEST)] = ABSENT_DIGEST
    has_changed = after_digests != known.digests
    changed = np.flatnonzero(has_changed)
    history_values = _scatter(
        len(user_ids), changed, encode(histories.take(changed), after_digests[changed])
    )
    generations = {
        variant: np.where(has_changed, NO_GENERATION, column)
        for variant, column in known.generations.items()
    }
    after = Known(histories, after_digests, generations)
    features: dict[str, Sequence[bytes]] = {}
    n_folded: dict[str, int] = {}
    n_fold_rejected: dict[str, int] = {}
    failures: list[LearnerFailure] = []
    for live in lives:
        column = generations[live.variant] = after.generations_of(live.variant)
        folded = np.flatnonzero((column != live.generation) & ~is_empty)
        try:
            values, is_rejected = _fold_in(
                histories.take(folded), after_digests[folded], live, feature_format
            )
        except LearnerError as error:
            failures.append(LearnerFailure(live, error))
            continue
        features[live.variant] = _scatter(len(user_ids), folded, values)
        column[folded[~is_rejected]] = live.generation
        n_folded[live.variant] = len(folded)
        n_fold_rejected[live.variant] = int(is_rejected.sum())
    writes = UserWrites(
        user_ids=user_ids,
        expected_digests=known.digests,
        histories=history_values,
        features=features,
        generations={live.variant: live.generation for live in lives if live.variant in features},
        is_forgotten=histories.forgotten_before_ms != known.histories.forgotten_before_ms,
        is_tombstone=is_empty,
    )
    return Plan(writes, after, outcomes, n_folded, n_fold_rejected, failures)


def warm_up(learner: Learner) -> None:
    """Compile, or load, what `plan` calls: seconds when new, which no event should wait for."""
    one_item = ItemModel.of(
        model_id=0,
        # Too much for float32, so both precisions are tried.
        params=FoldInParams(alpha=10_000.0, regularization=1.0),
        item_ids=["any"],
        item_factors=np.ones((1, 1), np.float32),
        popularity=np.ones(1, np.float32),
    )
    arrived = Interactions(
        rows=np.zeros(1, np.intp),
        item_keys=one_item.item_keys,
        words=np.array([pack_word(1, 0, Kind.PLAY)], np.uint64),
        forgotten_before_ms=np.zeros(1, np.uint64),
    )
    changes(HistoryBatch.empty(1), arrived)
    live = LiveModel("default", 0, one_item, learner)
    plan(["nobody"], Known.nothing(1), arrived, [live], FeatureFormat(FeatureDtype.F16, 0))


def count_unknown_items(arrived: Interactions, model: ItemModel) -> int:
    """Return how many interactions are with items that the model does not know."""
    return int(np.count_nonzero(model.rows_of(arrived.item_keys) == UNKNOWN_ROW))


def _fold_in(
    histories: HistoryBatch,
    history_digests: NDArray[np.uint64],
    live: LiveModel,
    feature_format: FeatureFormat,
) -> tuple[list[bytes], NDArray[np.bool_]]:
    """Return each history's features, empty where the row must not be published."""
    factors = ask(live.learner, histories, live.model)
    values, is_rejected = encode_features(
        factors,
        history_digests,
        event_times_ms(histories.words[:, 0]),
        histories.counts,
        Stamp(
            model_id=live.model.model_id,
            generation=live.generation,
            learner_id=learner_id(live.learner.name),
            dtype=feature_format.dtype,
            written_ms=feature_format.now_ms,
        ),
    )
    for row in np.flatnonzero(is_rejected).tolist():
        values[row] = b""
    return values, is_rejected


def _scatter(n_users: int, rows: NDArray[np.intp], values: Sequence[bytes]) -> list[bytes]:
    scattered = [b""] * n_users
    for row, value in zip(rows.tolist(), values, strict=True):
        scattered[row] = value
    return scattered
