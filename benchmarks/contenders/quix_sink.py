"""Quix Streams: a batching sink, flushed with every commit.

The commit interval decides both the batch and the delay: 1 s is cheap, 20 ms is quick.
"""

from __future__ import annotations

import redis
from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch

from benchmarks.contenders.job import Job, Progress
from benchmarks.contenders.sgd import UserVectors

CHUNK = 500


class VectorSink(BatchingSink):
    """Learns and writes what has come since the last commit."""

    def __init__(self, job: Job, progress: Progress) -> None:
        """Connect to Redis."""
        super().__init__()
        self._client = redis.Redis.from_url(job.redis_url)
        self._vectors = UserVectors("quix")
        self._progress = progress

    def write(self, batch: SinkBatch) -> None:
        """Write one partition's batch in chunks."""
        for chunk in batch.iter_chunks(CHUNK):
            users = [item.value["user_id"] for item in chunk]
            items = [item.value["item_id"] for item in chunk]
            self._client.mset(self._vectors.learn(users, items))
            self._progress.applied([item.timestamp for item in chunk])


def main() -> None:
    """Run until SIGTERM."""
    job = Job.from_arguments()
    settings = {
        "commit_interval": 0.02 if job.trace else 1.0,
        "commit_every": 0 if job.trace else 2000,
        "consumer_poll_timeout": 0.005,
        "fetch.wait.max.ms": 2,
    }
    app = Application(
        broker_address=job.bootstrap_servers,
        consumer_group=job.group,
        auto_offset_reset="earliest",
        commit_interval=settings["commit_interval"],
        commit_every=settings["commit_every"],
        consumer_extra_config={"fetch.wait.max.ms": settings["fetch.wait.max.ms"]},
        consumer_poll_timeout=settings["consumer_poll_timeout"],
        auto_create_topics=False,
        loglevel="WARNING",
    )
    shown = settings | {
        "commit_interval": "0.02 s for the delay, 1 s to catch up",
        "commit_every": "unset for the delay, 2,000 to catch up",
        "sink": f"BatchingSink, {CHUNK} a write",
    }
    sink = VectorSink(job, Progress(job, ("quixstreams",), shown))
    for name in job.topics:
        app.dataframe(app.topic(name, value_deserializer="json")).sink(sink)
    app.run()


if __name__ == "__main__":
    main()
