"""A system in memory for tests of verify: a log, dead letters, a store, and a worker of sorts.

The worker applies by the real updater whatever it is told to, so a test decides what is applied,
dropped, rejected and vouched for.
"""

from __future__ import annotations

from random import Random

import numpy as np
from worlds import NOW_MS, live_model

from streamer.evaluation.verification import Clock, Sources, VerifyOptions
from streamer.evaluation.verify import verify
from streamer.factors import FeatureDtype
from streamer.kafka.log_reader import LogBounds
from streamer.pipeline.records import Decoder, Partition, Record
from streamer.runtime.cache import HistoryCache
from streamer.runtime.updater import Updater
from streamer.stores.keys import features_key, history_key
from streamer.stores.memory import MemoryStore


class MemoryLog:
    """Topics in memory, under the contract of `KafkaLog`; `before` runs before it is asked."""

    def __init__(self):
        self.before = lambda: None
        self.records: dict[Partition, list[Record]] = {}
        self.lows: dict[Partition, int] = {}

    def append(self, partition, value, timestamp_ms=NOW_MS, headers=()):
        mine = self.records.setdefault(partition, [])
        record = Record(partition, len(mine), timestamp_ms, None, value, headers)
        mine.append(record)
        return record

    def delete_before(self, partition, low):
        self.lows[partition] = low

    def bounds(self):
        self.before()
        return {p: LogBounds(self.lows.get(p, 0), len(r)) for p, r in self.records.items()}

    def read(self, start, until):
        self.before()
        for partition, end in until.items():
            first = max(start[partition], self.lows.get(partition, 0))
            yield from self.records[partition][first:end]

    def gone_until_ms(self):
        return max((self.records[p][low].timestamp_ms for p, low in self.lows.items()), default=0)


class World:
    """What verify looks at; `before_read` and `before_marks` run before users and marks are."""

    def __init__(self, live=None):
        self.log = MemoryLog()
        self.store = MemoryStore()
        self.marks = {}
        self.live = live_model() if live is None else live
        self.places = []  # of dead letters
        self.n_letters_read = 0
        self.before_read = self.before_marks = lambda: None
        self.seconds = NOW_MS / 1000
        self.n_reads = []  # users a read, with the time
        self._updater = Updater(
            self.store,
            HistoryCache(1),
            FeatureDtype.F16,
            lambda: NOW_MS / 1000,
            lambda _: None,
            Random(7),
        )

    def apply(self, records, live=None):
        decoded = Decoder().decode(records)
        self._updater.apply(decoded.user_ids, decoded.arrived, [live or self.live])

    def apply_everything(self, *, but=()):
        """Apply the whole log and vouch for it, whatever was left out."""
        records = [r for mine in self.log.records.values() for r in mine if r not in but]
        self.apply(records)
        self.vouch()

    def vouch(self):
        self.marks = {p: len(mine) for p, mine in self.log.records.items()}

    def read(self, user_ids):
        self.before_read()
        self.n_reads.append((self.seconds, len(user_ids)))
        return [
            (
                self.store.values.get(history_key(u)),
                self.store.values.get(features_key("default", u)),
            )
            for u in user_ids
        ]

    def read_marks(self, partitions):
        self.before_marks()
        return {partition: self.marks.get(partition) for partition in partitions}

    def new_letters(self):
        new, self.n_letters_read = self.places[self.n_letters_read :], len(self.places)
        return new

    def sleep(self, seconds):
        self.seconds += seconds

    def verify(self, on_progress=lambda _: None, live=None, **options):
        sources = Sources(
            self.log,
            self.new_letters,
            self.read_marks,
            self.read,
            lambda: self.live if live is None else live,
        )
        self.n_letters_read = 0
        clock = Clock(lambda: self.seconds, lambda: self.seconds, self.sleep)
        return verify(sources, VerifyOptions(n_listed=1000, **options), on_progress, clock)


def damage(value):
    """Return features with a first vector that is 10 % too long."""
    changed = bytearray(value)
    vectors = np.frombuffer(changed, "<f2", offset=64).copy()
    vectors[0] *= np.float16(1.1)
    changed[64:] = vectors.tobytes()
    return bytes(changed)
