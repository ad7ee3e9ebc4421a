"""What the log says of some users, split by how surely it must be in Redis.

- *vouched*: below the marks, so it must be there;
- *tail*: at or after the marks, so it may be there;
- *lettered*: has a dead letter, so it was rejected once. It need not be there, but may: a newer
  version accepts it, and has perhaps read that part of the log again.

``vouched ≤ stored ≤ vouched ∨ tail ∨ lettered`` in the lattice of histories is what a sound
system keeps at any moment. Memory: at most three histories a user, in a quiet system one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamer.evaluation.golden import GoldenHistories
from streamer.evaluation.lattice import join
from streamer.evaluation.letter_offsets import LetterOffsets
from streamer.evaluation.selection import HashRange
from streamer.history import HistoryBatch
from streamer.pipeline.records import Decoder, Partition, Record

Offsets = Mapping[Partition, int]


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """Histories of n_users users between which the stored ones must be.

    Attributes:
        vouched: The least.
        said: What everything that the log says, and nothing that has a letter, makes.
        most: The same with what has a letter.
    """

    vouched: HistoryBatch
    said: HistoryBatch
    most: HistoryBatch


class Expected:
    """Learns the log for the users of one range."""

    def __init__(self, users: HashRange, letters: LetterOffsets) -> None:
        self._users = users
        self._letters = letters
        self._decoder = Decoder()
        self._vouched, self._tail, self._lettered = (GoldenHistories() for _ in range(3))
        self.n_records = 0
        self.n_applied = 0
        self.n_rejected = 0

    @property
    def user_ids(self) -> list[str]:
        """Every user of the range with evidence or a forget."""
        return self._users.user_ids

    def apply(self, records: Sequence[Record], marks: Offsets) -> None:
        """Learn records in any order, also again.

        Args:
            records: Some of the log.
            marks: What is below them is vouched for; partitions without one are not.
        """
        has_letter = self._letters.find(records).tolist()
        vouched: list[Record] = []
        tail: list[Record] = []
        lettered: list[Record] = []
        for record, is_lettered in zip(records, has_letter, strict=True):
            if is_lettered:
                lettered.append(record)
            elif record.offset < marks.get(record.partition, 0):
                vouched.append(record)
            else:
                tail.append(record)
        n_applied = self._learn(self._vouched, vouched) + self._learn(self._tail, tail)
        self._learn(self._lettered, lettered)
        self.n_records += len(records)
        self.n_applied += n_applied
        self.n_rejected += len(records) - n_applied

    def _learn(self, golden: GoldenHistories, records: Sequence[Record]) -> int:
        """Return how many were accepted by today's decoder."""
        if not records:
            return 0
        decoded = self._decoder.decode(records)
        n_accepted = len(records) - len(decoded.rejected)
        chosen = self._users.choose(decoded.user_ids)
        if chosen:
            rows = golden.rows_of([decoded.user_ids[index] for index in chosen])
            golden.merge(rows, decoded.arrived.of_users(np.array(chosen, np.intp)))
        if self._users.shrink():
            self._forget_others()
        return n_accepted

    def finish(self) -> None:
        """Leave out users beyond the number that is wanted."""
        if self._users.shrink(at_end=True):
            self._forget_others()

    def _forget_others(self) -> None:
        for golden in (self._vouched, self._tail, self._lettered):
            golden.keep(self._users.user_ids)

    def narrow(self, user_ids: Sequence[str]) -> None:
        """Go on with these users only."""
        self._users.narrow(user_ids)
        self._forget_others()

    def bounds(self, user_ids: Sequence[str]) -> Bounds:
        """Return what the log says of some users."""
        vouched = self._vouched.read(user_ids)
        said = join(vouched, self._tail.read(user_ids))
        return Bounds(vouched, said, join(said, self._lettered.read(user_ids)))
