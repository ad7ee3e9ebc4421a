"""Faust: one agent that takes up to 500 events, or what comes within 50 ms."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import faust
import orjson
import redis

from benchmarks.contenders.job import Job, Progress
from benchmarks.contenders.sgd import UserVectors

TAKE = 500
WITHIN_SECONDS = 0.05


def main() -> None:
    """Run until SIGTERM."""
    job = Job.from_arguments()
    shown = {"take": TAKE, "within_s": WITHIN_SECONDS, "broker_max_poll_records": TAKE}
    progress = Progress(job, ("faust-streaming", "aiokafka"), shown)
    client = redis.Redis.from_url(job.redis_url)  # one command a batch: a pool would only cost
    vectors = UserVectors("faust")
    app = faust.App(
        job.group,
        broker=f"kafka://{job.bootstrap_servers}",
        store="memory://",
        datadir=tempfile.mkdtemp(prefix="faust-"),
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=TAKE,
        stream_wait_empty=False,
        topic_disable_leader=True,
    )
    topic = app.topic(*job.topics, key_serializer="raw", value_serializer="raw", value_type=bytes)

    @app.agent(topic)
    async def learn(stream: Any) -> None:  # noqa: ANN401  Faust has no type for it
        batches: AsyncIterator[Any] = stream.take_events(TAKE, within=WITHIN_SECONDS)
        async for batch in batches:
            events = [orjson.loads(event.value) for event in batch]
            users = [event["user_id"] for event in events]
            client.mset(vectors.learn(users, [event["item_id"] for event in events]))
            progress.applied([round(event.message.timestamp * 1000) for event in batch])

    sys.argv = [sys.argv[0], "worker", "-l", "warn", "--without-web"]
    app.main()


if __name__ == "__main__":
    main()
