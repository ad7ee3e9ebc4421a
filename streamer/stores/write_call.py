"""What one call of ``write.lua`` carries for its users, and what its answer means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from streamer.pipeline.ports import WriteOutcome
from streamer.pipeline.step import UserWrites
from streamer.stores.keys import (
    FEATURES_OF_BUCKET,
    HISTORIES_OF_BUCKET,
    bucket_number,
    forgettable_keys,
)


class PackedRows(NamedTuple):
    """The part of a call that is about users.

    Attributes:
        keys: What follows the sequence in KEYS.
        args: What follows the generation in ARGV.
        n_bytes: Of the values among them.
    """

    keys: list[str]
    args: list[bytes | int]
    n_bytes: int


class RowPacker:
    """Packs users of one batch into calls.

    Attributes:
        buckets: Of each user.
    """

    def __init__(self, writes: UserWrites) -> None:
        """Turn what calls share into plain values, once: NumPy is slow one by one."""
        self._writes = writes
        self.buckets = [bucket_number(user_id) for user_id in writes.user_ids]
        self._variants = tuple(writes.features.items())
        self._digests = writes.expected_digests.astype("<u8", copy=False).tobytes()
        self._is_forgotten: list[bool] = writes.is_forgotten.tolist()
        self._is_tombstone: list[int] = writes.is_tombstone.astype(int).tolist()

    def is_any_forgotten(self, rows: Sequence[int]) -> bool:
        """Whether `pack` needs every variant ever used."""
        return any(self._is_forgotten[row] for row in rows)

    def pack(self, rows: Sequence[int], all_variants: Sequence[str]) -> PackedRows:
        """Return what a call needs to write some users.

        Args:
            rows: Whom of the batch.
            all_variants: Every variant ever used; needed if anybody among them is forgotten.
        """
        user_ids, histories = self._writes.user_ids, self._writes.histories
        keys: list[str] = []
        args: list[bytes | int] = []
        doomed: list[str] = []
        n_bytes = 0
        for row in rows:
            user_id, history = user_ids[row], histories[row]
            lost = forgettable_keys(user_id, all_variants) if self._is_forgotten[row] else ()
            doomed += lost
            bucket = self.buckets[row]
            keys.append(HISTORIES_OF_BUCKET[bucket] + user_id)
            digest = self._digests[8 * row : 8 * row + 8]
            args += (digest, history, len(lost), self._is_tombstone[row])
            n_bytes += len(history)
            for variant, values in self._variants:
                keys.append(f"{FEATURES_OF_BUCKET[bucket]}{variant}:{user_id}")
                args.append(values[row])
                n_bytes += len(values[row])
        return PackedRows(keys + doomed, args, n_bytes)

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
