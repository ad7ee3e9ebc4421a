"""Reading a batch: one MGET of features, one more of histories where those are needed. Pure."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.errors import LearnerError, StoreUnavailable
from streamer.factors import Learner, decode_imported
from streamer.history import decode
from streamer.reader.conversation import Conversation
from streamer.reader.draft import BROKEN_HISTORY, Draft, Moment, row_of, without_features
from streamer.reader.feature_table import decode_table
from streamer.reader.read import Status, UserRead
from streamer.stores.keys import features_key, history_key, imported_key

log = logging.getLogger("streamer.reader")

NOT_AN_ID: Final = "not_an_id"
USERS_AT_ONCE: Final = 2000
"""Of one MGET: Redis serves nobody else meanwhile."""


class Reading:
    """What to ask about viewers of one variant, with a limit on how much at once."""

    def __init__(self, variant: str, learner: Learner, *, imported: bool = False) -> None:
        """Keep the parts.

        Args:
            variant: Whose features.
            learner: What to fold in with.
            imported: Ask for imported vectors too, in the same commands.
        """
        self._variant = variant
        self._learner = learner
        self._imported = imported
        self._complaint: tuple[int, str] | None = None

    def read(
        self, user_ids: Sequence[str], moment: Moment, *, check_history: bool
    ) -> Conversation[list[UserRead]]:
        """Read viewers, in their order; an unreachable Redis makes them DEGRADED."""
        reads: list[UserRead] = []
        for start in range(0, len(user_ids), USERS_AT_ONCE):
            chunk = user_ids[start : start + USERS_AT_ONCE]
            reads += yield from self._read(chunk, moment, check_history=check_history)
        return reads

    def _read(
        self, user_ids: Sequence[str], moment: Moment, *, check_history: bool
    ) -> Conversation[list[UserRead]]:
        n_users = len(user_ids)
        try:
            keys = self._keys(user_ids, check_history=check_history)
        except UnicodeEncodeError:  # a lone surrogate, which JSON lets through
            if n_users == 1:
                return without_features(user_ids, moment, Status.COLD, NOT_AN_ID)
            reads: list[UserRead] = []
            for one in user_ids:
                reads += yield from self._read([one], moment, check_history=check_history)
            return reads
        try:
            values = yield keys
        except StoreUnavailable as failure:
            return without_features(user_ids, moment, Status.DEGRADED, failure.kind)
        draft = Draft(user_ids, decode_table(values[:n_users]), moment)
        if check_history:
            every_row = np.arange(n_users)
            draft.add_histories(every_row, decode(values[n_users : 2 * n_users]), self._learner)
        elif moment.served is not None and len(draft.unusable):
            yield from self._add_histories(draft, user_ids, draft.unusable)
        if draft.learner_error is not None and moment.served is not None:
            self._complain(draft.learner_error, moment.served.generation)
        if self._imported:
            draft.add_imported(decode_imported(values[-n_users:]))
        return draft.finish()

    def _keys(self, user_ids: Sequence[str], *, check_history: bool) -> list[str]:
        """Return the keys of all users, one kind after the other."""
        keys = [features_key(self._variant, user_id) for user_id in user_ids]
        if check_history:
            keys += map(history_key, user_ids)
        if self._imported:
            keys += [imported_key(self._variant, user_id) for user_id in user_ids]
        return keys

    def _add_histories(
        self, draft: Draft, user_ids: Sequence[str], rows: NDArray[np.intp]
    ) -> Conversation[None]:
        try:
            values = yield [history_key(user_ids[row]) for row in rows.tolist()]
        except StoreUnavailable as failure:
            draft.degrade(rows, failure.kind)
        else:
            draft.add_histories(rows, decode(values), self._learner)

    def _complain(self, error: LearnerError, generation: int) -> None:
        """Say once a publish what is wrong; every read says that something is."""
        if (generation, error.reason) != self._complaint:
            self._complaint = generation, error.reason
            log.error("variant %s cannot be folded in: %s", self._variant, error, exc_info=error)


def with_histories(reads: Sequence[UserRead]) -> Conversation[list[UserRead]]:
    """Return the reads, of any variants, with histories where they have none and could use one.

    Where Redis does not answer, a read keeps its vectors and becomes DEGRADED.
    """
    completed = list(reads)
    lacking = [index for index, read in enumerate(reads) if _lacks_history(read)]
    for start in range(0, len(lacking), USERS_AT_ONCE):
        chunk = lacking[start : start + USERS_AT_ONCE]
        try:
            values = yield [history_key(reads[index].user_id) for index in chunk]
        except StoreUnavailable as failure:
            for index in chunk:
                completed[index] = replace(reads[index], status=Status.DEGRADED, error=failure.kind)
            continue
        histories, _, is_broken = decode(values)
        for position, index in enumerate(chunk):
            error = BROKEN_HISTORY if is_broken[position] else reads[index].error
            completed[index] = replace(
                reads[index], history=row_of(histories, position), error=error
            )
    return completed


def _lacks_history(read: UserRead) -> bool:
    return (
        read.history is None
        and read.served is not None
        and read.status is not Status.DEGRADED
        and read.error != NOT_AN_ID
    )
