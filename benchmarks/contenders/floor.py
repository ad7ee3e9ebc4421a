"""The floor: consume, decode, one MSET of a constant vector a user; nothing is learned at all."""

from __future__ import annotations

import numpy as np
import orjson
import redis
from confluent_kafka import Consumer

from benchmarks.contenders.job import Job, Progress

BATCH_RECORDS = 500
POLL_SECONDS = 0.002
SETTINGS = {"fetch.wait.max.ms": 2, "fetch.queue.backoff.ms": 2, "queued.min.messages": 20_000}


def main() -> None:
    """Run until SIGTERM."""
    job = Job.from_arguments()
    base = {"bootstrap.servers": job.bootstrap_servers, "group.id": job.group}
    consumer = Consumer({**base, "auto.offset.reset": "earliest", **SETTINGS})
    consumer.subscribe(list(job.topics))
    client = redis.Redis.from_url(job.redis_url)
    vector = np.ones(64, np.float32).tobytes()
    shown = {"batch": BATCH_RECORDS, "poll_s": POLL_SECONDS, **SETTINGS}
    progress = Progress(job, ("confluent-kafka", "orjson", "redis"), shown)
    while True:
        messages = [m for m in consumer.consume(BATCH_RECORDS, POLL_SECONDS) if m.error() is None]
        if not messages:
            continue
        users = {orjson.loads(message.value() or b"{}")["user_id"] for message in messages}
        client.mset({f"floor:{user}": vector for user in users})
        progress.applied([message.timestamp()[1] for message in messages])


if __name__ == "__main__":
    main()
