"""The feature store in memory: for unit tests and the simulation, under the same contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamer.errors import StoreForgot
from streamer.pipeline.ports import MarkMove, WriteOutcome
from streamer.pipeline.records import Partition
from streamer.pipeline.step import UserWrites
from streamer.stores.keys import features_key, forgettable_keys, history_key, quarantine_key

_ABSENT = bytes(8)


class MemoryStore:
    """Keeps the same keys and values as Redis would; nothing expires.

    Attributes:
        values: Every string value by its key. A test may look, change and forget.
        variants: Every variant ever used.
        marks: Next offset by partition.
        fresh_ms: Freshness by partition.
        sequence: Number of the last write that the store remembers.
    """

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.variants: set[str] = set()
        self.marks: dict[Partition, int] = {}
        self.fresh_ms: dict[Partition, int] = {}
        self.sequence = 0
        self._acknowledged = 0

    def read_histories(self, user_ids: Sequence[str]) -> list[bytes | None]:
        """Return each user's stored history, None where there is none."""
        return [self.values.get(history_key(user_id)) for user_id in user_ids]

    def write(self, writes: UserWrites) -> WriteOutcome:
        """Write every user whose stored digest is the expected one."""
        self._ensure_remembering()
        self._acknowledged += 1
        self.sequence = self._acknowledged
        conflicts: dict[int, bytes | None] = {}
        n_superseded = n_quarantined = n_bytes = 0
        for row, user_id in enumerate(writes.user_ids):
            key = history_key(user_id)
            stored = self.values.get(key)
            expected = int(writes.expected_digests[row]).to_bytes(8, "little")
            if _digest(stored) != expected:
                conflicts[row] = stored
                continue
            if writes.histories[row]:
                self.values[key] = writes.histories[row]
            if writes.is_forgotten[row]:
                for lost in forgettable_keys(user_id, self.variants | set(writes.features)):
                    self.values.pop(lost, None)
            for variant, values in writes.features.items():
                if not values[row]:
                    continue
                features = features_key(variant, user_id)
                there = self.values.get(features, b"")
                if there and (len(there) < 28 or there[:3] != b"SF\1"):
                    self.values[quarantine_key(features)] = self.values.pop(features)
                    n_quarantined += 1
                elif there and int.from_bytes(there[24:28], "little") > writes.generation:
                    n_superseded += 1
                    continue
                self.values[features] = values[row]
                n_bytes += len(values[row])
            n_bytes += len(writes.histories[row])
        return WriteOutcome(conflicts, frozenset(), n_superseded, n_quarantined, n_bytes)

    def quarantine(self, user_id: str, value: bytes | None) -> None:
        """Move a broken history aside, if it is still there."""
        key = history_key(user_id)
        if value is not None and self.values.get(key) == value:
            self.values[quarantine_key(key)] = self.values.pop(key)

    def move_marks(self, moves: Mapping[Partition, MarkMove]) -> dict[Partition, int | None]:
        """Set each mark whose stored value is the expected one; return what is stored then."""
        self._ensure_remembering()
        for partition, move in moves.items():
            if move.next_offset is not None and self.marks.get(partition) == move.expected:
                self.marks[partition] = move.next_offset
        return self.read_marks(list(moves))

    def read_marks(self, partitions: Sequence[Partition]) -> dict[Partition, int | None]:
        """Return each partition's mark, None where there is none."""
        return {partition: self.marks.get(partition) for partition in partitions}

    def _ensure_remembering(self) -> None:
        """Raise StoreForgot if a test took acknowledged writes away."""
        if self.sequence < self._acknowledged:
            self._acknowledged = 0
            raise StoreForgot("the store has forgotten writes that it had acknowledged")

    def write_fresh(self, fresh_ms: Mapping[Partition, int]) -> None:
        """Publish freshness by partition."""
        self.fresh_ms.update(fresh_ms)


def _digest(stored: bytes | None) -> bytes | None:
    """Return what a compare-and-set compares; None for a value of an unknown form."""
    if stored is None:
        return _ABSENT
    is_known = stored[:3] == b"SH\1" and len(stored) >= 16 and stored[8:16] != _ABSENT
    return stored[8:16] if is_known else None
