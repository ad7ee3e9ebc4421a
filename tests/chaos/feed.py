"""Producing a recording in the background, a portion at a time, so that faults meet traffic."""

import queue
import threading
import time
from itertools import count

from confluent_kafka import Producer
from waiting import eventually

TICK_SECONDS = 0.05
DELIVERY_SECONDS = 120


class Feed:
    """A thread of producers, one for each partitioner in turn, that write what they are told to.

    Args:
        bootstrap_servers: Where to.
        topics: The topic of "play" and of "browse".
        records: What to produce, in this order.
        partitioners: librdkafka's names.
    """

    def __init__(self, bootstrap_servers, topics, records, partitioners):
        self.n_allowed = 0
        self.n_acknowledged = 0
        self.ends = {}
        """The offset after the last acknowledged record, by (topic, partition)."""
        self._bootstrap_servers, self._topics = bootstrap_servers, topics
        self._records, self._partitioners = records, partitioners
        self._portions = queue.Queue()
        self._errors = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self):
        self._portions.put(None)
        self._thread.join(DELIVERY_SECONDS)

    @property
    def n_left(self):
        return len(self._records) - self.n_allowed

    def allow(self, n_records, seconds, age_seconds=0):
        """Produce so many more, evenly over so many seconds; returns at once.

        Args:
            n_records: How many.
            seconds: How long that takes at least.
            age_seconds: By how much the producers' clock is behind, in topics that believe it.
        """
        start = self.n_allowed
        self.n_allowed = min(start + n_records, len(self._records))
        self._portions.put((self._records[start : self.n_allowed], seconds, age_seconds))

    def wait(self):
        """Return when all that was allowed is acknowledged."""
        eventually(lambda: self._errors or self.n_acknowledged == self.n_allowed, DELIVERY_SECONDS)
        assert not self._errors, self._errors[:3]

    def _run(self):
        while (portion := self._portions.get()) is not None:
            records, seconds, age_seconds = portion
            producers = [self._producer(partitioner) for partitioner in self._partitioners]
            turns = count()
            for tick in _ticks(records, seconds):
                until = time.monotonic() + (TICK_SECONDS if seconds else 0)
                time_ms = round((time.time() - age_seconds) * 1000)
                for record in tick:
                    self._produce(producers[next(turns) % len(producers)], record, time_ms)
                for producer in producers:
                    producer.poll(0)
                while (left := until - time.monotonic()) > 0:
                    producers[0].poll(left)  # returns with every report
            for producer in producers:
                producer.flush(DELIVERY_SECONDS)

    def _produce(self, producer, record, time_ms):
        while True:
            try:
                producer.produce(
                    self._topics[record.topic],
                    value=record.value,
                    key=record.key,
                    timestamp=time_ms,
                    on_delivery=self._on_delivery,
                )
            except BufferError:
                producer.poll(0.1)
            else:
                return

    def _on_delivery(self, error, message):
        if error is not None:
            self._errors.append(error)
            return
        place = message.topic(), message.partition()
        self.ends[place] = max(self.ends.get(place, 0), message.offset() + 1)
        self.n_acknowledged += 1

    def _producer(self, partitioner):
        return Producer(
            {
                "bootstrap.servers": self._bootstrap_servers,
                "partitioner": partitioner,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 5,
                "reconnect.backoff.max.ms": 500,
                "topic.metadata.refresh.interval.ms": 500,  # new partitions are used at once
                "log_level": 0,
            }
        )


def _ticks(records, seconds):
    size = max(1, -(-len(records) // max(1, round(seconds / TICK_SECONDS))))
    return [records[start : start + size] for start in range(0, len(records), size)]
