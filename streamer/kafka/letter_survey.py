"""What lies in the dead letters: counts by topic and reason, samples, and what can be redriven.

One pass in the order of the log. Of every letter it keeps two bytes, the number of its group, so
that a marker further on can say of each letter that it was redriven; the rest is bounded.
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from streamer.kafka.letter_content import oldest_evidence_ms
from streamer.kafka.letters import Letter, letter_of, marked_by
from streamer.pipeline.records import Partition, Record

PROGRESS_RECORDS: Final = 1000
MAX_GROUPS: Final = 1000
OTHER: Final = "other"
"""The reason under which everything beyond that is counted."""


class Fate(StrEnum):
    """What can become of a letter."""

    WAITING = "waiting"
    REDRIVEN = "redriven"
    REDUCED = "reduced"
    """Hash and size only: there is nothing to send."""
    EXPIRED = "expired"
    """Older than the marker of a forgotten user lives: it could bring somebody back."""


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters are meant.

    Attributes:
        topics: Of the rejected records; empty means all.
        reasons: Empty means all.
        since_ms: Rejected records with this timestamp or a later one.
        until_ms: And with an earlier one than this; None: no bound.
    """

    topics: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()
    since_ms: int = 0
    until_ms: int | None = None

    def is_met_by(self, letter: Letter) -> bool:
        """Say whether the letter is meant."""
        return (
            (not self.topics or letter.place.topic in self.topics)
            and (not self.reasons or letter.reason in self.reasons)
            and letter.timestamp_ms >= self.since_ms
            and (self.until_ms is None or letter.timestamp_ms < self.until_ms)
        )


@dataclass(slots=True)
class Group:
    """The letters of one topic and reason.

    Attributes:
        topic: Of the rejected records.
        reason: Why they were rejected.
        fates: Number of letters by fate.
        n_failed_again: Letters whose record had been redriven before.
        max_attempts: The most redrives that any of them has behind it.
        first_ms: Least timestamp of a rejected record.
        last_ms: Greatest one.
        samples: The newest letters in the order of the log.
    """

    topic: str
    reason: str
    samples: deque[Letter]
    fates: Counter[Fate] = field(default_factory=Counter)
    n_failed_again: int = 0
    max_attempts: int = 0
    first_ms: int | None = None
    last_ms: int | None = None

    @property
    def n_letters(self) -> int:
        """All of them."""
        return self.fates.total()

    def add(self, letter: Letter, fate: Fate) -> None:
        """Count one letter."""
        self.fates[fate] += 1
        if letter.redriven is not None:
            self.n_failed_again += 1
            self.max_attempts = max(self.max_attempts, letter.redriven.n_attempts)
        time_ms = letter.timestamp_ms
        self.first_ms = time_ms if self.first_ms is None else min(self.first_ms, time_ms)
        self.last_ms = time_ms if self.last_ms is None else max(self.last_ms, time_ms)
        self.samples.append(letter)


@dataclass(slots=True)
class _Codes:
    """Of each offset of a partition since `first_offset`: 0, or a number of (group, fate)."""

    first_offset: int
    numbers: array[int] = field(default_factory=lambda: array("H"))

    def put(self, offset: int, number: int) -> None:
        gap = offset - self.first_offset - len(self.numbers)
        assert gap >= 0, "a partition is read in its order"
        self.numbers.frombytes(bytes(gap * self.numbers.itemsize))
        self.numbers.append(number)

    def get(self, offset: int) -> int:
        index = offset - self.first_offset
        return self.numbers[index] if 0 <= index < len(self.numbers) else 0


class Survey:
    """Counts of the letters that a filter means, and the fate of each."""

    def __init__(
        self,
        suffix: str,
        letter_filter: LetterFilter | None = None,
        *,
        expired_before_ms: int = 0,
        max_samples: int = 0,
    ) -> None:
        """Begin with nothing.

        Args:
            suffix: Of the names of dead-letter topics.
            letter_filter: Which letters count; None: all.
            expired_before_ms: Evidence older than this may be of a user who was forgotten and
                whose marker is gone.
            max_samples: How many letters of each group to keep.
        """
        self._suffix = suffix
        self._filter = letter_filter or LetterFilter()
        self._expired_before_ms = expired_before_ms
        self._max_samples = max_samples
        self._groups: dict[tuple[str, str], Group] = {}
        self._codes: dict[Partition, _Codes] = {}
        self._numbered: list[tuple[Group, Fate] | None] = [None]
        self._numbers: dict[tuple[str, str, Fate], int] = {}
        self.n_foreign = 0
        """Records that are neither letters of their own topic nor markers."""

    @property
    def groups(self) -> Sequence[Group]:
        """By topic, the largest first."""
        return sorted(self._groups.values(), key=lambda g: (g.topic, -g.n_letters, g.reason))

    @property
    def fates(self) -> Counter[Fate]:
        """Number of letters by fate."""
        return sum((group.fates for group in self._groups.values()), Counter[Fate]())

    def take(
        self, records: Iterable[Record], on_progress: Callable[[int], None] = lambda _: None
    ) -> None:
        """Read dead-letter topics, each partition in its order.

        Args:
            records: The records; a marker comes after what it marks.
            on_progress: Told the number of records read so far.
        """
        n_records = 0
        for n_records, record in enumerate(records, 1):
            self._take_one(record)
            if n_records % PROGRESS_RECORDS == 0:
                on_progress(n_records)
        on_progress(n_records)

    def waiting(self, records: Iterable[Record]) -> Iterator[Letter]:
        """Yield the letters of a second reading that were waiting at the first."""
        for record in records:
            codes = self._codes.get(record.partition)
            numbered = self._numbered[codes.get(record.offset)] if codes else None
            if numbered is not None and numbered[1] is Fate.WAITING:
                letter = letter_of(record)
                assert letter is not None, "a place in a log holds one record for ever"
                yield letter

    def _take_one(self, record: Record) -> None:
        letter = letter_of(record)
        if letter is not None and letter.place.topic + self._suffix == record.partition.topic:
            if self._filter.is_met_by(letter):
                self._add(letter)
        elif (marked := marked_by(record)) is not None:
            for first, last in marked:
                self._mark(record.partition, first, last)
        else:
            self.n_foreign += 1

    def _add(self, letter: Letter) -> None:
        fate = self._fate(letter)
        group = self._group(letter)
        group.add(letter, fate)
        name = (group.topic, group.reason, fate)
        number = self._numbers.setdefault(name, len(self._numbered))
        if number == len(self._numbered):
            self._numbered.append((group, fate))
        record = letter.record
        codes = self._codes.setdefault(record.partition, _Codes(record.offset))
        codes.put(record.offset, number)

    def _group(self, letter: Letter) -> Group:
        reason = letter.reason
        if (letter.place.topic, reason) not in self._groups and len(self._groups) >= MAX_GROUPS:
            reason = OTHER
        return self._groups.setdefault(
            (letter.place.topic, reason),
            Group(letter.place.topic, reason, deque(maxlen=self._max_samples)),
        )

    def _fate(self, letter: Letter) -> Fate:
        if letter.is_reduced:
            return Fate.REDUCED
        oldest_ms = oldest_evidence_ms(letter)
        is_expired = oldest_ms is not None and oldest_ms < self._expired_before_ms
        return Fate.EXPIRED if is_expired else Fate.WAITING

    def _mark(self, partition: Partition, first: int, last: int) -> None:
        codes = self._codes.get(partition)
        if codes is None:
            return
        start = max(first - codes.first_offset, 0)
        for index in range(start, min(last - codes.first_offset + 1, len(codes.numbers))):
            numbered = self._numbered[codes.numbers[index]]
            if numbered is not None:
                group, fate = numbered
                group.fates[fate] -= 1
                group.fates[Fate.REDRIVEN] += 1
                codes.numbers[index] = 0
