"""The feature store in memory: for unit tests and the simulation, under the same contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from streamer.errors import StoreForgot
from streamer.pipeline.ports import FeatureStore, Mark, MarkMove, WriteOutcome
from streamer.pipeline.records import Partition
from streamer.pipeline.step import UserWrites
from streamer.stores.keys import features_key, history_key, quarantine_key

_ABSENT = bytes(8)


@dataclass(slots=True)
class MemoryState:
    """What a Redis would hold; nothing expires. Several stores may share one.

    Attributes:
        values: Every string value by its key. A test may look, change and forget.
        variants: Every variant ever used.
        marks: Marks by partition.
        fresh_ms: Freshness by partition.
        sequences: Number of the last write of each writer.
    """

    values: dict[str, bytes] = field(default_factory=dict)
    variants: set[str] = field(default_factory=set)
    marks: dict[Partition, Mark] = field(default_factory=dict)
    fresh_ms: dict[Partition, int] = field(default_factory=dict)
    sequences: dict[int, int] = field(default_factory=dict)
    n_writers: int = 0

    def copy(self) -> MemoryState:
        """Return what a replica would hold that is up to date now."""
        return MemoryState(
            dict(self.values),
            set(self.variants),
            dict(self.marks),
            dict(self.fresh_ms),
            dict(self.sequences),
            self.n_writers,
        )

    def forget(self, since: MemoryState | None = None) -> None:
        """Go back to a copy, or to nothing."""
        then = MemoryState() if since is None else since.copy()
        self.values, self.variants, self.marks = then.values, then.variants, then.marks
        self.fresh_ms, self.sequences = then.fresh_ms, then.sequences


class MemoryStore(FeatureStore):
    """One writer of a `MemoryState`, by default of one of its own."""

    def __init__(self, state: MemoryState | None = None) -> None:
        self.state = state or MemoryState()
        self._acknowledged = 0
        self._attempted = 0
        self.state.n_writers += 1
        self._writer = self.state.n_writers

    @property
    def values(self) -> dict[str, bytes]:
        """Every string value by its key."""
        return self.state.values

    @property
    def marks(self) -> dict[Partition, Mark]:
        """Marks by partition."""
        return self.state.marks

    @property
    def fresh_ms(self) -> dict[Partition, int]:
        """Freshness by partition."""
        return self.state.fresh_ms

    def read_histories(self, user_ids: Sequence[str]) -> list[bytes | None]:
        """Return each user's stored history, None where there is none."""
        return [self.values.get(history_key(user_id)) for user_id in user_ids]

    def write(self, writes: UserWrites) -> WriteOutcome:
        """Write every user whose stored digest is the expected one."""
        return self.write_rows(writes, range(len(writes.user_ids)))

    def write_rows(self, writes: UserWrites, rows: Sequence[int]) -> WriteOutcome:
        """Write some of the users, in one step that nothing can come between."""
        self._attempted += 1
        self._ensure_remembering()
        self.state.sequences[self._writer] = self._attempted
        conflicts: dict[int, bytes | None] = {}
        n_superseded = n_quarantined = n_bytes = 0
        for row in rows:
            user_id = writes.user_ids[row]
            key = history_key(user_id)
            stored = self.values.get(key)
            expected = int(writes.expected_digests[row]).to_bytes(8, "little")
            if stored_digest(stored) != expected:
                conflicts[row] = stored
                continue
            if writes.histories[row]:
                self.values[key] = writes.histories[row]
            if writes.is_forgotten[row]:
                self._forget_user(user_id, writes.features)
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
        self._acknowledged = self._attempted
        return WriteOutcome(conflicts, frozenset(), n_superseded, n_quarantined, n_bytes)

    def quarantine(self, user_id: str, value: bytes | None) -> None:
        """Move a broken history aside, if it is still there."""
        key = history_key(user_id)
        if value is not None and self.values.get(key) == value:
            self.values[quarantine_key(key)] = self.values.pop(key)

    def move_marks(self, moves: Mapping[Partition, MarkMove]) -> dict[Partition, Mark | None]:
        """Set each mark whose stored value is the expected one; return what is stored then."""
        self._ensure_remembering()
        for partition, move in moves.items():
            if move.wanted is not None and self.marks.get(partition) == move.expected:
                self.marks[partition] = move.wanted
        return {partition: self.marks.get(partition) for partition in moves}

    def read_marks(self, partitions: Sequence[Partition]) -> dict[Partition, Mark | None]:
        """Return each partition's mark, None where there is none."""
        return {partition: self.marks.get(partition) for partition in partitions}

    def write_fresh(self, fresh_ms: Mapping[Partition, int]) -> None:
        """Publish freshness by partition."""
        self.fresh_ms.update(fresh_ms)

    def _ensure_remembering(self) -> None:
        """Raise StoreForgot if a test took acknowledged writes away."""
        if self.state.sequences.get(self._writer, 0) < self._acknowledged:
            self._acknowledged = 0
            raise StoreForgot("the store has forgotten writes that it had acknowledged")

    def _forget_user(self, user_id: str, variants: Mapping[str, Sequence[bytes]]) -> None:
        for variant in self.state.variants | set(variants):
            features = features_key(variant, user_id)
            self.values.pop(features, None)
            self.values.pop(quarantine_key(features), None)
        self.values.pop(quarantine_key(history_key(user_id)), None)


def stored_digest(stored: bytes | None) -> bytes | None:
    """Return what a compare-and-set compares; None for a value of an unknown form."""
    if stored is None:
        return _ABSENT
    is_known = stored[:3] == b"SH\1" and len(stored) >= 16 and stored[8:16] != _ABSENT
    return stored[8:16] if is_known else None
