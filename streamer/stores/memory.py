"""The feature store in memory: for unit tests and the simulation, under the same contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from streamer.errors import StoreForgot
from streamer.pipeline.ports import FeatureStore, Mark, MarkMove, WriteOutcome
from streamer.pipeline.records import Partition
from streamer.pipeline.step import UserWrites
from streamer.stores.keys import (
    bucket_number,
    features_key,
    forgettable_keys,
    history_key,
    quarantine_key,
    sums_key,
)

T = TypeVar("T")
_ABSENT = bytes(8)


@dataclass(slots=True)
class MemoryState:
    """What a Redis would hold, and the scripts that it would run; nothing expires.

    Each method is one script call: nothing comes between. `Writer` tells a script who calls.

    Attributes:
        values: Every string value by its key. A test may look, change and forget.
        variants: Every variant ever used.
        marks: Marks by partition.
        fresh_ms: Freshness by partition.
        sequences: Number of the last write of each writer.
        n_writers: How many writers there ever were.
        sums: Sums of experiments by key and field.
        sweeps: States of sweeps by variant and server.
        n_lives: How often it forgot; nothing that it forgets itself.
    """

    values: dict[str, bytes] = field(default_factory=dict)
    variants: set[str] = field(default_factory=set)
    marks: dict[Partition, Mark] = field(default_factory=dict)
    fresh_ms: dict[Partition, int] = field(default_factory=dict)
    sequences: dict[int, int] = field(default_factory=dict)
    n_writers: int = 0
    sums: dict[str, dict[str, int]] = field(default_factory=dict)
    sweeps: dict[str, dict[str, bytes]] = field(default_factory=dict)
    n_lives: int = 0

    @property
    def server(self) -> str:
        """Who holds this: after it forgot, another one."""
        return f"life-{self.n_lives}"

    def copy(self) -> MemoryState:
        """Return what a replica would hold that is up to date now."""
        return MemoryState(
            dict(self.values),
            set(self.variants),
            dict(self.marks),
            dict(self.fresh_ms),
            dict(self.sequences),
            self.n_writers,
            {key: dict(fields) for key, fields in self.sums.items()},
            {variant: dict(states) for variant, states in self.sweeps.items()},
        )

    def forget(self, since: MemoryState | None = None) -> None:
        """Go back to a copy, or to nothing."""
        then = MemoryState() if since is None else since.copy()
        self.values, self.variants, self.marks = then.values, then.variants, then.marks
        self.fresh_ms, self.sequences, self.sums = then.fresh_ms, then.sequences, then.sums
        self.sweeps = then.sweeps
        self.n_lives += 1

    def write(self, writer: Writer, writes: UserWrites, rows: Sequence[int]) -> WriteOutcome | None:
        """Write every user of `rows` whose stored digest is the expected one.

        Returns:
            None, with nothing written, if an acknowledged write of this writer is missing, or if
            a later one came first: this one waited where nobody listens any more.
        """
        is_late = self.sequences.get(writer.number, 0) >= writer.attempted
        if is_late or not self._remembers(writer):
            return None
        self.sequences[writer.number] = writer.attempted
        conflicts: dict[int, bytes | None] = {}
        n_superseded = n_quarantined = n_bytes = 0
        for row in rows:
            key = history_key(writes.user_ids[row])
            expected = int(writes.expected_digests[row]).to_bytes(8, "little")
            if stored_digest(self.values.get(key)) != expected:
                conflicts[row] = self.values.get(key)
                continue
            if writes.histories[row]:
                self.values[key] = writes.histories[row]
            if writes.is_forgotten[row]:
                self._forget_user(writes.user_ids[row], writes.features)
            for variant, values in writes.features.items():
                if not values[row]:
                    continue
                features = features_key(variant, writes.user_ids[row])
                there = self.values.get(features, b"")
                if there and (len(there) < 28 or there[:3] != b"SF\1"):
                    self.set_aside(features)
                    n_quarantined += 1
                elif there and int.from_bytes(there[24:28], "little") > writes.generations[variant]:
                    n_superseded += 1
                    continue
                self.values[features] = values[row]
                n_bytes += len(values[row])
            n_bytes += len(writes.histories[row])
        self._add(writes, set(rows) - conflicts.keys())
        return WriteOutcome(conflicts, frozenset(), n_superseded, n_quarantined, n_bytes)

    def move_marks(
        self, writer: Writer, moves: Mapping[Partition, MarkMove]
    ) -> dict[Partition, Mark | None] | None:
        """Set each mark whose stored value is the expected one; return what is stored then.

        Returns:
            None, with no mark set, if an acknowledged write of this writer is missing.
        """
        if not self._remembers(writer):
            return None
        for partition, move in moves.items():
            if move.wanted is not None and self.marks.get(partition) == move.expected:
                self.marks[partition] = move.wanted
        return {partition: self.marks.get(partition) for partition in moves}

    def set_aside(self, key: str) -> None:
        """Move a broken value away; the first one is the one with something in it to be saved."""
        self.values.setdefault(quarantine_key(key), self.values.pop(key))

    def _add(self, writes: UserWrites, written: AbstractSet[int]) -> None:
        added = writes.additions
        columns = (added.rows, added.book_of, added.field_of, added.amounts)
        for row, book, each, amount in zip(*(col.tolist() for col in columns), strict=True):
            if row in written:
                key = sums_key(bucket_number(writes.user_ids[row]), added.books[book])
                name = added.fields[each]
                sums = self.sums.setdefault(key, {})
                sums[name] = sums.get(name, 0) + amount

    def _remembers(self, writer: Writer) -> bool:
        return self.sequences.get(writer.number, 0) >= writer.acknowledged

    def _forget_user(self, user_id: str, variants: Mapping[str, Sequence[bytes]]) -> None:
        for lost in forgettable_keys(user_id, self.variants | set(variants)):
            self.values.pop(lost, None)


class Writer(NamedTuple):
    """Who calls a script, with the numbers of its last acknowledged and of this write."""

    number: int
    acknowledged: int
    attempted: int


class MemoryStore(FeatureStore):
    """One writer of a `MemoryState`, by default of one of its own."""

    def __init__(self, state: MemoryState | None = None) -> None:
        self.state = state or MemoryState()
        self.state.n_writers += 1
        self._me = Writer(self.state.n_writers, 0, 0)

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
        return self.written(self.state.write(self.attempt(), writes, range(len(writes.user_ids))))

    def attempt(self) -> Writer:
        """Return who writes next; `written` must be told the answer."""
        self._me = self._me._replace(attempted=self._me.attempted + 1)
        return self._me

    def written(self, answer: WriteOutcome | None) -> WriteOutcome:
        """Return the answer to the last attempt, which acknowledges it.

        Raises:
            StoreForgot: Writes that were acknowledged before are gone.
        """
        answer = self._remembering(answer)
        self._me = self._me._replace(acknowledged=self._me.attempted)
        return answer

    def quarantine(self, user_id: str, value: bytes | None) -> None:
        """Move a broken history aside, if it is still there."""
        key = history_key(user_id)
        if value is not None and self.values.get(key) == value:
            self.state.set_aside(key)

    def move_marks(self, moves: Mapping[Partition, MarkMove]) -> dict[Partition, Mark | None]:
        """Set each mark whose stored value is the expected one; return what is stored then."""
        return self._remembering(self.state.move_marks(self._me, moves))

    def read_marks(self, partitions: Sequence[Partition]) -> dict[Partition, Mark | None]:
        """Return each partition's mark, None where there is none."""
        return {partition: self.marks.get(partition) for partition in partitions}

    def write_fresh(self, fresh_ms: Mapping[Partition, int]) -> None:
        """Publish freshness by partition."""
        self.fresh_ms.update(fresh_ms)

    def _remembering(self, answer: T | None) -> T:
        if answer is None:
            self._me = self._me._replace(acknowledged=0)
            raise StoreForgot("the store has forgotten writes that it had acknowledged")
        return answer


def stored_digest(stored: bytes | None) -> bytes | None:
    """Return what a compare-and-set compares; None for a value of an unknown form."""
    if stored is None:
        return _ABSENT
    is_known = stored[:3] == b"SH\1" and len(stored) >= 16 and stored[8:16] != _ABSENT
    return stored[8:16] if is_known else None
