"""A replay that only learns: the worker's decoder and the worker's plan, into memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from streamer.evaluation.golden import FIRST_USERS, batches
from streamer.factors import FeatureDtype, ItemModel, Learner
from streamer.history import encode
from streamer.pipeline.records import Decoder, Record
from streamer.pipeline.step import FeatureFormat, Known, LiveModel, plan


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned.

    Attributes:
        n_events: Accepted events.
        n_users: Viewers with evidence or a forget.
        n_folded: How often a viewer was folded in: once for each batch that changed the history.
        n_fold_rejected: How often the learner's result failed its check.
        rejected: Number of invalid records by reason.
    """

    n_events: int
    n_users: int
    n_folded: int
    n_fold_rejected: int
    rejected: dict[str, int]


class Apprentice:
    """Learns records as a worker would, and keeps the histories in memory: 1 kB a viewer."""

    def __init__(self, model: ItemModel, learner: Learner) -> None:
        self._live = LiveModel("default", 0, model, learner)
        self._decoder = Decoder()
        self._row_of_user: dict[str, int] = {}
        self._known = Known.nothing(FIRST_USERS)
        self._n_events = self._n_folded = self._n_fold_rejected = 0
        self._rejected: Counter[str] = Counter()

    def learn(self, records: Sequence[Record]) -> None:
        """Learn a batch: decode, merge, fold in and encode, for every viewer in it.

        Raises:
            LearnerError: The learner failed; a worker would take its variant out of service.
        """
        decoded = self._decoder.decode(records)
        self._n_events += sum(decoded.applied.values())
        self._rejected.update(str(letter.reason) for letter in decoded.rejected)
        known = self._row_of_user
        rows = np.array([known.setdefault(u, len(known)) for u in decoded.user_ids], np.intp)
        self._make_room()
        # Nobody reads the features, so no clock is asked when they were written.
        step = plan(
            decoded.user_ids,
            self._known.take(rows),
            decoded.arrived,
            [self._live],
            FeatureFormat(FeatureDtype.F16, 0),
        )
        for failure in step.failures:
            raise failure.error
        self._known.put(rows, step.after)
        self._n_folded += step.n_folded[self._live.variant]
        self._n_fold_rejected += step.n_fold_rejected[self._live.variant]

    def learned(self) -> Learned:
        """Return what was learned so far."""
        return Learned(
            self._n_events,
            len(self._row_of_user),
            self._n_folded,
            self._n_fold_rejected,
            dict(self._rejected.most_common()),
        )

    def history_values(self) -> dict[str, bytes]:
        """Return every viewer's history as it would stand in Redis."""
        rows = np.arange(len(self._row_of_user))
        known = self._known.take(rows)
        return dict(zip(self._row_of_user, encode(known.histories, known.digests), strict=True))

    def _make_room(self) -> None:
        n_rows = len(self._known.digests)
        if len(self._row_of_user) > n_rows:
            grown = Known.nothing(max(2 * n_rows, len(self._row_of_user)))
            grown.put(np.arange(n_rows), self._known)
            self._known = grown


def learn(
    records: Iterable[Record],
    model: ItemModel,
    learner: Learner,
    on_batch: Callable[[int], None] = lambda _: None,
) -> Learned:
    """Learn a log in its own order, as a worker that finds it in its topics.

    Args:
        records: The log.
        model: The items.
        learner: Folds viewers in.
        on_batch: Told the number of records after every few thousand.
    """
    apprentice = Apprentice(model, learner)
    n_records = 0
    for batch in batches(records):
        apprentice.learn(batch)
        n_records += len(batch)
        on_batch(n_records)
    return apprentice.learned()
