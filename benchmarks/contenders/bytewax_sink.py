"""Bytewax: its Kafka source straight into a sink that decodes, learns and writes a batch.

No recovery store is configured, so after a crash it would begin anew; that is its fastest form.
"""

from __future__ import annotations

from typing import Any

import bytewax.operators as op
import orjson
import redis
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main

from benchmarks.contenders.job import Job, Progress
from benchmarks.contenders.sgd import UserVectors

BATCH_SIZE = 500
FETCH = {"fetch.wait.max.ms": "2", "fetch.queue.backoff.ms": "2"}


class VectorPartition(StatelessSinkPartition[Any]):
    """The only worker's sink."""

    def __init__(self, job: Job, progress: Progress) -> None:
        """Connect to Redis."""
        self._client = redis.Redis.from_url(job.redis_url)
        self._vectors = UserVectors("bytewax")
        self._progress = progress

    def write_batch(self, items: list[Any]) -> None:
        """Learn from a batch of Kafka messages and write its users."""
        events = [orjson.loads(message.value) for message in items]
        users = [event["user_id"] for event in events]
        self._client.mset(self._vectors.learn(users, [event["item_id"] for event in events]))
        self._progress.applied([message.timestamp[1] for message in items])


class VectorSink(DynamicSink[Any]):
    """Builds the worker's part."""

    def __init__(self, job: Job, progress: Progress) -> None:
        """Keep what the part needs."""
        self._job, self._progress = job, progress

    def build(self, _step_id: str, _index: int, _count: int) -> VectorPartition:
        """Return the part of one worker."""
        return VectorPartition(self._job, self._progress)


def main() -> None:
    """Run until SIGTERM."""
    job = Job.from_arguments()
    shown = {"batch_size": BATCH_SIZE, "workers": 1, "recovery": "none", **FETCH}
    progress = Progress(job, ("bytewax", "confluent-kafka"), shown)
    flow = Dataflow("bench")
    source = KafkaSource(
        [job.bootstrap_servers], list(job.topics), add_config=FETCH, batch_size=BATCH_SIZE
    )
    op.output("out", op.input("in", flow, source), VectorSink(job, progress))
    cli_main(flow, workers_per_process=1)


if __name__ == "__main__":
    main()
