"""Reading a batch: one MGET of features, one more of histories where those are needed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.errors import LearnerError, StoreUnavailable
from streamer.factors import Learner
from streamer.history import decode
from streamer.reader.circuit import Circuit
from streamer.reader.draft import BROKEN_HISTORY, Draft, Moment, row_of, without_features
from streamer.reader.feature_table import decode_table
from streamer.reader.read import Status, UserRead
from streamer.reader.source import FeatureSource
from streamer.stores.keys import features_key, history_key

log = logging.getLogger("streamer.reader")

CIRCUIT_OPEN: Final = "circuit_open"
NOT_AN_ID: Final = "not_an_id"
USERS_AT_ONCE: Final = 2000
"""Of one MGET: Redis serves nobody else meanwhile."""


class Reading:
    """Asks the source, with a limit on how much and, after a failure, on how often."""

    def __init__(
        self, source: FeatureSource, variant: str, learner: Learner, circuit: Circuit
    ) -> None:
        self._source = source
        self._variant = variant
        self._learner = learner
        self._circuit = circuit
        self._complaint: tuple[int, str] | None = None

    def read(
        self, user_ids: Sequence[str], moment: Moment, *, check_history: bool
    ) -> list[UserRead]:
        """Read viewers, in their order; an unreachable Redis makes them DEGRADED."""
        reads: list[UserRead] = []
        for start in range(0, len(user_ids), USERS_AT_ONCE):
            chunk = user_ids[start : start + USERS_AT_ONCE]
            reads += self._read(chunk, moment, check_history=check_history)
        return reads

    def with_histories(self, reads: Sequence[UserRead]) -> list[UserRead]:
        """Return the reads with their histories, where they have none and could use one.

        Where Redis does not answer, a read keeps its vectors and becomes DEGRADED.
        """
        completed = list(reads)
        lacking = [index for index, read in enumerate(reads) if _lacks_history(read)]
        for start in range(0, len(lacking), USERS_AT_ONCE):
            chunk = lacking[start : start + USERS_AT_ONCE]
            try:
                values = self._values([history_key(reads[index].user_id) for index in chunk])
            except StoreUnavailable as failure:
                for index in chunk:
                    completed[index] = replace(
                        reads[index], status=Status.DEGRADED, error=failure.kind
                    )
                continue
            histories, _, is_broken = decode(values)
            for position, index in enumerate(chunk):
                error = BROKEN_HISTORY if is_broken[position] else reads[index].error
                completed[index] = replace(
                    reads[index], history=row_of(histories, position), error=error
                )
        return completed

    def _read(
        self, user_ids: Sequence[str], moment: Moment, *, check_history: bool
    ) -> list[UserRead]:
        try:
            keys = [features_key(self._variant, user_id) for user_id in user_ids]
        except UnicodeEncodeError:  # a lone surrogate, which JSON lets through
            if len(user_ids) == 1:
                return without_features(user_ids, moment, Status.COLD, NOT_AN_ID)
            each = [self._read([one], moment, check_history=check_history) for one in user_ids]
            return [read for reads in each for read in reads]
        if check_history:
            keys += map(history_key, user_ids)
        try:
            values = self._values(keys)
        except StoreUnavailable as failure:
            return without_features(user_ids, moment, Status.DEGRADED, failure.kind)
        draft = Draft(user_ids, decode_table(values[: len(user_ids)]), moment)
        if check_history:
            every_row = np.arange(len(user_ids))
            draft.add_histories(every_row, decode(values[len(user_ids) :]), self._learner)
        elif moment.served is not None and len(draft.unusable):
            self._add_histories(draft, user_ids, draft.unusable)
        if draft.learner_error is not None and moment.served is not None:
            self._complain(draft.learner_error, moment.served.generation)
        return draft.finish()

    def _add_histories(self, draft: Draft, user_ids: Sequence[str], rows: NDArray[np.intp]) -> None:
        try:
            values = self._values([history_key(user_ids[row]) for row in rows.tolist()])
        except StoreUnavailable as failure:
            draft.degrade(rows, failure.kind)
        else:
            draft.add_histories(rows, decode(values), self._learner)

    def _complain(self, error: LearnerError, generation: int) -> None:
        """Say once a publish what is wrong; every read says that something is."""
        if (generation, error.reason) != self._complaint:
            self._complaint = generation, error.reason
            log.error("variant %s cannot be folded in: %s", self._variant, error, exc_info=error)

    def _values(self, keys: Sequence[str]) -> list[bytes | None]:
        if not self._circuit.admits():
            raise StoreUnavailable("Redis failed a moment ago", kind=CIRCUIT_OPEN)
        try:
            values = self._source.read_values(keys)
        except StoreUnavailable:
            self._circuit.fail()
            raise
        self._circuit.succeed()
        return values


def _lacks_history(read: UserRead) -> bool:
    return (
        read.history is None
        and read.served is not None
        and read.status is not Status.DEGRADED
        and read.error != NOT_AN_ID
    )
