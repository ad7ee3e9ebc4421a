"""One chaos run: three workers, a recording that is fed to them, faults, and the verdict.

A scenario feeds, harms, and calls `finish`, which judges: every history must be what the oracle
makes of the log, byte for byte, and every vector what the live model makes of that history. It
says what it did to whom by `injected`, and proves each by an assertion of its own.
"""

import os
import time
from collections import Counter
from typing import NamedTuple

import numpy as np
import oracle
from chaos.feed import Feed
from chaos.report import Row
from waiting import eventually

from streamer.evaluation.judgement import Verdict
from streamer.evaluation.log import Log
from streamer.evaluation.verification import Sources
from streamer.evaluation.verify import verify
from streamer.factors import FoldInParams, RecencyFoldIn
from streamer.kafka.log_reader import LogBounds
from streamer.models import load_model, publish, write_model
from streamer.pipeline.records import Partition
from streamer.pipeline.step import LiveModel
from streamer.stores import read_values

N_WORKERS = 3
N_FACTORS = 16
PATIENCE_SECONDS = 180
WHOLE = Partition("everything", 0)
"""For what happens by itself once nothing harms any more, on a busy machine."""


class Size(NamedTuple):
    """How large a run is."""

    name: str
    n_events: int
    n_users: int
    batch_records: int
    feed_seconds: float
    """Of the whole recording, where a scenario feeds it evenly."""

    def pick(self, short, full):
        return full if self.name == "full" else short


SHORT = Size("short", 4_000, 500, 20, 4.0)
FULL = Size("full", 200_000, 5_000, 500, 40.0)
SIZE = FULL if os.environ.get("CHAOS") == "full" else SHORT


class ChaosRun:
    """A deployment under chaos; `finish` must be reached, or the scenario has shown nothing."""

    def __init__(self, deployment, size, records, dtype="f16"):
        self.deployment, self.size, self.dtype = deployment, size, dtype
        self.records = records
        self.injected = Counter()
        self._verdict = 0, 0, None
        self.members = []
        """The workers that should be alive."""
        self.past_log = []
        """Records of topics that are gone."""
        self._feed = None
        self._live = None
        self._started = time.monotonic()

    def close(self):
        if self._feed is not None:
            self._feed.close()

    # the parts

    def open(self, partitioners=("murmur2_random",), **topics):
        """Make the topics, with four partitions, and publish a model."""
        self.deployment.create_topics(**{"partitions": 4, **topics})
        self.publish_model(item_ids_known=200)
        self._feed = Feed(
            self.deployment.bootstrap_servers, self.deployment.topics, self.records, partitioners
        )

    def publish_model(self, item_ids_known):
        deployment = self.deployment
        folder = deployment.folder / "model"
        item_ids = [f"title-{number}" for number in range(item_ids_known)]
        random = np.random.default_rng(1)
        write_model(
            folder,
            params=FoldInParams(alpha=3.0, regularization=0.7),
            item_ids=item_ids,
            item_factors=random.normal(size=(len(item_ids), N_FACTORS)).astype(np.float32),
            popularity=np.ones(len(item_ids), np.float32),
        )
        pointer = publish(deployment.redis, deployment.models, folder, "default")
        model = load_model(deployment.models / pointer.model_id)
        self._live = LiveModel("default", pointer.generation, model, RecencyFoldIn())

    def start_worker(self, **settings):
        """Start one more worker, and return it without waiting."""
        worker = self.deployment.start_worker(
            **{
                "worker__batch_records": self.size.batch_records,
                "redis__timeout_seconds": 0.5,
                "features__dtype": self.dtype,
                "kafka__client__topic_metadata_refresh_interval_ms": 1000,
                "kafka__client__reconnect_backoff_max_ms": 1000,
            }
            | settings
        )
        self.members.append(worker)
        return worker

    def kill(self, worker):
        worker.kill()
        self.members.remove(worker)

    def start_workers(self, **settings):
        """Start three, and return when every one has partitions."""
        workers = [self.start_worker(**settings) for _ in range(N_WORKERS)]
        self.wait_until_shared()
        return workers

    def wait_until_shared(self, n_partitions=8):
        """Return when every partition has one owner, and every worker has some."""

        def is_shared():
            owned = [worker.total("partitions_assigned") for worker in self.members]
            return min(owned) > 0 and sum(owned) == n_partitions

        eventually(is_shared, PATIENCE_SECONDS, 0.1)

    # the traffic

    def feed(self, share, seconds=None, age_seconds=0):
        """Produce a share of the recording in the background; 1 is what is left."""
        n_records = self._feed.n_left if share == 1 else round(share * len(self.records))
        seconds = self.size.feed_seconds * share if seconds is None else seconds
        self._feed.allow(n_records, seconds, age_seconds)

    def wait_until_fed(self):
        """Return when everything that may be produced is acknowledged."""
        self._feed.wait()

    def is_fed(self):
        """Whether everything that may be produced is acknowledged."""
        return self._feed.n_acknowledged == self._feed.n_allowed

    def wait_until(self, condition):
        """Return when something has come about that nothing prevents."""
        eventually(condition, PATIENCE_SECONDS, 0.05)

    def wait_until_applied(self):
        """Return when the group has committed everything that was fed."""
        self._feed.wait()
        eventually(self.is_applied, PATIENCE_SECONDS, 0.2)

    def is_applied(self):
        committed = self.deployment.committed()
        return committed is not None and dict(self._feed.ends).items() <= committed.items()

    def consumed(self):
        """Return how many records each member has consumed since it started."""
        return {w: w.counts()[0] if w.said("worker_started") else 0 for w in self.members}

    def wait_for_progress(self, before, n_records=1):
        """Return the members that went on, once they consumed so many more than `before`."""

        def who_went_on():
            after = self.consumed()
            gains = {w: n - before.get(w, 0) for w, n in after.items()}
            return sum(gains.values()) >= n_records and [w for w, gain in gains.items() if gain]

        return eventually(who_went_on, PATIENCE_SECONDS)

    def has_caught_up(self, worker):
        """Whether a worker has applied all of its partitions to their ends, and has some."""
        next_offsets = worker.next_offsets()
        return bool(next_offsets) and all(
            offset >= self._feed.ends.get(place, 0) for place, offset in next_offsets.items()
        )

    def retire_topics(self):
        """Remember the log of topics that will be deleted; their offsets mean nothing any more."""
        self.past_log += self.deployment.log()
        self._feed.ends.clear()

    # what was seen

    def rewinds(self):
        """Count the rewinds that all workers, also dead ones, have reported."""
        return sum(len(w.said("partition_rewound")) for w in self.deployment.workers)

    # the verdict

    def row_of(self, scenario):
        seconds = round(time.monotonic() - self._started, 1)
        return Row(scenario, dict(self.injected), *self._verdict, seconds)

    def finish(self):
        """Feed what is left, wait until it is applied, and compare everything."""
        if self._feed.n_left:
            self.feed(1)
        self.wait_until_applied()
        records = [*self.past_log, *self.deployment.log()]
        assert len(records) >= self._feed.n_acknowledged == len(self.records)
        golden = golden_histories(records)
        different = self._different(golden)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while different and time.monotonic() < deadline:
            time.sleep(0.5)
            different = self._different(golden)
        found = self._verify(records)
        self._verdict = len(records), len(golden), max(len(different), found.n_different)
        assert not different, found.verdicts
        assert found.verdicts[Verdict.EQUAL] == len(golden) >= self.size.n_users
        self._ensure_letters(records)
        for worker in self.members:
            assert worker.terminate(60) == 0, worker.output[-2000:]
            assert not worker.said("rewind_incomplete")

    def _different(self, golden):
        return different_keys(golden, self.deployment.histories())

    def _verify(self, records):
        log = WholeLog(records)
        return verify(
            Sources(
                log=log,
                new_letters=lambda: iter(()),
                marks=lambda _: {WHOLE: len(records)},  # everything is applied
                read=lambda user_ids: read_values(self.deployment.redis, "default", user_ids),
                live=lambda: self._live,
            )
        )

    def _ensure_letters(self, records):
        """Every rejected record has its letter; some may have two."""
        rejected = {
            (record.partition.topic, record.partition.number, record.offset)
            for record in records
            if oracle.verdict(record.value, record.timestamp_ms) is None
        }
        letters = {
            (headers["topic"].decode(), int(headers["partition"]), int(headers["offset"]))
            for letter in self.deployment.dead_letters()
            for headers in [dict(letter.headers)]
        }
        assert letters == rejected


class WholeLog(Log):
    """Records of all topics, also of those that were deleted since, as if of one partition."""

    def __init__(self, records):
        self._records = [
            record._replace(partition=WHOLE, offset=offset) for offset, record in enumerate(records)
        ]

    def bounds(self):
        return {WHOLE: LogBounds(0, len(self._records))}

    def read(self, start, until):
        return iter(self._records[start[WHOLE] : until[WHOLE]])

    def gone_until_ms(self):
        return 0


def golden_histories(records):
    """Return what the oracle makes of a log, by key: all that a user ever did, merged at once.

    One by one, as `oracle.replay` does it, gives the same and takes twice as long.
    """
    interactions, forgotten = {}, {}
    for record in records:
        accepted = oracle.verdict(record.value, record.timestamp_ms)
        if accepted is None:
            continue
        who = accepted.user_id
        if accepted.interaction:
            interactions.setdefault(who, []).append(accepted.interaction)
        if accepted.forgotten_before_ms:
            forgotten[who] = max(forgotten.get(who, 0), accepted.forgotten_before_ms)
    return {
        oracle.history_key(who): oracle.State()
        .learn(interactions.get(who, ()), forgotten.get(who, 0))
        .to_bytes()
        for who in interactions.keys() | forgotten.keys()
    }


def different_keys(golden, found):
    """Return the keys that only one of them has, or that differ."""
    return {key for key in golden.keys() | found.keys() if golden.get(key) != found.get(key)}
