"""What one call of ``write.lua`` carries for its users, and what its answer means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson

from streamer.pipeline.ports import WriteOutcome
from streamer.pipeline.step import UserWrites
from streamer.stores.keys import (
    FEATURES_OF_BUCKET,
    HISTORIES_OF_BUCKET,
    N_BUCKETS,
    bucket_number,
    forgettable_keys,
    sums_key,
)


class PackedRows(NamedTuple):
    """The part of a call that is about users.

    Attributes:
        keys: What follows the sequence in KEYS.
        args: What follows the generation in ARGV.
        n_bytes: Of the values among them.
    """

    keys: list[str]
    args: list[bytes]
    n_bytes: int


class RowPacker:
    """Packs users of one batch into calls, column by column: a loop over users would cost more.

    Attributes:
        buckets: Of each user.
        generations: Of the live variants, in the order of their keys, 4 bytes each.
    """

    def __init__(self, writes: UserWrites) -> None:
        """Name every key and cut what is one byte string, once for all calls."""
        self._writes = writes
        user_ids = writes.user_ids
        self.buckets = [bucket_number(user_id) for user_id in user_ids]
        pairs = list(zip(self.buckets, user_ids, strict=True))
        self._keys = [[HISTORIES_OF_BUCKET[bucket] + user_id for bucket, user_id in pairs]]
        for variant in writes.features:
            middle = variant + ":"
            self._keys.append(
                [FEATURES_OF_BUCKET[bucket] + middle + user_id for bucket, user_id in pairs]
            )
        self._values = [writes.histories, *writes.features.values()]
        generations = [writes.generations[variant] for variant in writes.features]
        self.generations = np.array(generations, "<u4").tobytes()
        self._digests = writes.expected_digests.astype("<u8", copy=False).tobytes()
        self._tombstones = writes.is_tombstone.tobytes()
        self._forgotten = frozenset(np.flatnonzero(writes.is_forgotten).tolist())
        self._bucket_of_row = np.array(self.buckets, np.int64)

    def is_any_forgotten(self, rows: Sequence[int]) -> bool:
        """Whether `pack` needs every variant ever used."""
        return bool(self._forgotten) and not self._forgotten.isdisjoint(rows)

    def pack(self, rows: Sequence[int], all_variants: Sequence[str]) -> PackedRows:
        """Return what a call needs to write some users.

        Args:
            rows: Whom of the batch.
            all_variants: Every variant ever used; needed if anybody among them is forgotten.
        """
        keys = [column[row] for column in self._keys for row in rows]
        values = [column[row] for column in self._values for row in rows]
        digests = b"".join([self._digests[8 * row : 8 * row + 8] for row in rows])
        tombstones = bytes([self._tombstones[row] for row in rows])
        n_doomed = b""
        if self.is_any_forgotten(rows):
            lost = [
                forgettable_keys(self._writes.user_ids[row], all_variants)
                if row in self._forgotten
                else []
                for row in rows
            ]
            n_doomed = np.array(list(map(len, lost)), "<u2").tobytes()
            keys += chain.from_iterable(lost)
        sums_keys, additions = self._pack_additions(rows)
        keys += sums_keys
        args = [digests, tombstones, n_doomed, additions, *values]
        return PackedRows(keys, args, sum(map(len, values)))

    def _pack_additions(self, rows: Sequence[int]) -> tuple[list[str], bytes]:
        """Return the keys of the sums, and JSON: their number, names of fields, four columns."""
        additions = self._writes.additions
        if not len(additions):
            return [], b""
        place_of_row = np.full(len(self.buckets), -1, np.int64)
        place_of_row[np.asarray(rows)] = np.arange(len(rows))
        here = np.flatnonzero(place_of_row[additions.rows] >= 0)
        if not len(here):
            return [], b""
        of_rows = additions.rows[here]
        codes = additions.book_of[here] * N_BUCKETS + self._bucket_of_row[of_rows]
        codes, key_of = np.unique(codes, return_inverse=True)
        keys = [
            sums_key(code % N_BUCKETS, additions.books[code // N_BUCKETS])
            for code in codes.tolist()
        ]
        columns = (place_of_row[of_rows], key_of, additions.field_of[here], additions.amounts[here])
        content = [len(keys), additions.fields, *columns]
        return keys, orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)

    def rows_by_bucket(self) -> dict[int, list[int]]:
        """Return the rows of each bucket's users, in their order."""
        rows: dict[int, list[int]] = {}
        for row, bucket in enumerate(self.buckets):
            rows.setdefault(bucket, []).append(row)
        return rows


def outcome_of(answer: Sequence[Any], rows: Sequence[int], n_bytes: int) -> WriteOutcome:
    """Return what became of the users of a call that did not forget.

    Args:
        answer: Of ``write.lua``.
        rows: Whom the call carried.
        n_bytes: Of the values that it carried.
    """
    conflicts, n_superseded, n_quarantined = answer
    if not conflicts:
        return WriteOutcome({}, frozenset(), n_superseded, n_quarantined, n_bytes)
    stored = {
        rows[place]: value for place, value in zip(conflicts[::2], conflicts[1::2], strict=True)
    }
    return WriteOutcome(
        conflicts={row: None if value == 0 else value for row, value in stored.items()},
        foreign=frozenset(row for row, value in stored.items() if value == 0),
        n_superseded=n_superseded,
        n_quarantined=n_quarantined,
        n_bytes=n_bytes,
    )


def joined(outcomes: Iterable[WriteOutcome]) -> WriteOutcome:
    """Return the outcome of calls that carried different users of a batch."""
    conflicts: dict[int, bytes | None] = {}
    foreign: set[int] = set()
    n_superseded = n_quarantined = n_bytes = 0
    for outcome in outcomes:
        conflicts.update(outcome.conflicts)
        foreign |= outcome.foreign
        n_superseded += outcome.n_superseded
        n_quarantined += outcome.n_quarantined
        n_bytes += outcome.n_bytes
    return WriteOutcome(conflicts, frozenset(foreign), n_superseded, n_quarantined, n_bytes)
