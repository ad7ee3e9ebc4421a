"""The offsets that have a dead letter, 8 bytes each: there may be millions.

A record that was rejected is in no history, even if today's decoder accepts it.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from streamer.evaluation.log import Log
from streamer.kafka.letters import letter_of
from streamer.pipeline.records import Partition, Record


class LetterOffsets:
    """A set of (partition, offset); letters may come twice."""

    def __init__(self) -> None:
        self._offsets: dict[Partition, NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._offsets.values()))

    def add(self, places: Iterable[tuple[Partition, int]]) -> None:
        """Remember places of rejected records. Cost: a sort of the partitions concerned."""
        new: dict[Partition, array[int]] = defaultdict(lambda: array("q"))
        for partition, offset in places:
            new[partition].append(offset)
        for partition, offsets in new.items():
            known = self._offsets.get(partition, np.empty(0, np.int64))
            self._offsets[partition] = np.union1d(known, np.frombuffer(offsets, np.int64))

    def find(self, records: Sequence[Record]) -> NDArray[np.bool_]:
        """Say which records have a letter; shape (n_records,)."""
        has_letter = np.zeros(len(records), bool)
        if not self._offsets:
            return has_letter
        places: dict[Partition, list[int]] = defaultdict(list)
        for index, record in enumerate(records):
            if record.partition in self._offsets:
                places[record.partition].append(index)
        for partition, indices in places.items():
            known = self._offsets[partition]
            offsets = np.array([records[index].offset for index in indices], np.int64)
            at = np.minimum(np.searchsorted(known, offsets), len(known) - 1)
            has_letter[indices] = known[at] == offsets
        return has_letter


class LetterReader:
    """Reads the dead-letter topics on, from where it was."""

    def __init__(self, log: Log) -> None:
        """Begin at the earliest letters of `log`, the dead-letter topics."""
        self._log = log
        self._next_offsets: dict[Partition, int] = {}

    def new_places(self) -> Iterator[tuple[Partition, int]]:
        """Yield the places of records that were rejected since the last call."""
        bounds = self._log.bounds()
        start = {p: self._next_offsets.get(p, bound.low) for p, bound in bounds.items()}
        until = {p: bound.high for p, bound in bounds.items()}
        for record in self._log.read(start, until):
            letter = letter_of(record)
            if letter is not None:
                yield letter.place, letter.offset
        self._next_offsets = until
