"""The loop that one writes first: poll one, GET, learn, SET, commit; ``background`` leaves commits.

Its synchronous commit after every record is what most examples show.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import orjson
import redis
from confluent_kafka import Consumer

from benchmarks.contenders.job import Job, Progress
from benchmarks.contenders.sgd import N_FACTORS, item_row, item_vectors, step


def main() -> None:
    """Run until SIGTERM."""
    job = Job.from_arguments()
    in_background = "background" in sys.argv[2:]
    consumer = Consumer(
        {
            "bootstrap.servers": job.bootstrap_servers,
            "group.id": job.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": in_background,
            "fetch.wait.max.ms": 2,
        }
    )
    consumer.subscribe(list(job.topics))
    client = redis.Redis.from_url(job.redis_url)
    items = item_vectors()
    commits = "in the background" if in_background else "after every record, synchronous"
    progress = Progress(job, ("confluent-kafka", "orjson", "redis"), {"commits": commits})
    while True:
        message = consumer.poll(1.0)
        if message is None or message.error() is not None:
            continue
        event = orjson.loads(message.value() or b"{}")
        key = f"naive:{event['user_id']}"
        stored: Any = client.get(key)
        user = np.zeros(N_FACTORS, np.float32) if stored is None else np.frombuffer(stored, "<f4")
        client.set(key, step(user, items[item_row(event["item_id"])]).tobytes())
        progress.applied([message.timestamp()[1]])
        if not in_background:
            consumer.commit(message=message, asynchronous=False)


if __name__ == "__main__":
    main()
