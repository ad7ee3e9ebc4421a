"""What is measured on: a real Kafka, a real Redis, a recorded log, and a published item model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import redis
from confluent_kafka import Producer

from benchmarks.workload import (
    Encoded,
    World,
    draw,
    encode_events,
    item_factors,
    item_id,
    stored_histories,
)
from streamer.dev.kafka_program import find_kafka_program
from streamer.dev.kafka_server import KafkaServer
from streamer.dev.redis_server import RedisServer
from streamer.factors import FoldInParams
from streamer.kafka.topics import create_topics, open_admin, topic_specs
from streamer.models.folder_writer import write_model
from streamer.models.publish import publish

N_FACTORS: Final = 64
N_PARTITIONS: Final = 2
VARIANT: Final = "default"
MSET_VALUES: Final = 1000
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Topics:
    """A topic of plays and one of browsing, with the name that both begin with."""

    name: str

    @property
    def both(self) -> tuple[str, str]:
        """Both topics."""
        return f"{self.name}-play", f"{self.name}-browse"


class Stack:
    """Two servers and what is in them; `folder` is where contenders leave their files."""

    def __init__(self, kafka: KafkaServer, redis_server: RedisServer, folder: Path) -> None:
        self.kafka = kafka
        self.redis_server = redis_server
        self.folder = folder
        self.world = World()
        self._admin = open_admin({"bootstrap.servers": kafka.bootstrap_servers})
        self._client = redis.Redis.from_url(redis_server.url)
        self._histories: dict[str, bytes] = {}

    @property
    def bootstrap_servers(self) -> str:
        """Of Kafka."""
        return self.kafka.bootstrap_servers

    @property
    def models(self) -> Path:
        """Where models are published."""
        return self.folder / "models"

    def prepare(self, world: World) -> None:
        """Write the item model, and compute the histories that viewers start with."""
        self.world = world
        write_items(self.folder / "trained", world.n_items)
        self._histories = stored_histories(world, _days_ago_ms(2))

    def create_topics(self, name: str) -> Topics:
        """Create a pair of topics with the broker's own time, and their dead letters."""
        topics = Topics(name)
        create_topics(
            self._admin,
            topic_specs(
                topics.both, ".dlq", partitions=N_PARTITIONS, replication=1, retention_days=7
            ),
        )
        return topics

    def record(self, topics: Topics, n_events: int) -> None:
        """Write the log that contenders catch up with."""
        self.produce(topics, encode_events(draw(self.world, n_events, _days_ago_ms(1))))

    def produce(self, topics: Topics, events: Iterable[Encoded]) -> None:
        """Write events as fast as possible; returns when the broker has them all."""
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "linger.ms": 20,
                "queue.buffering.max.messages": 2_000_000,
            }
        )
        both = topics.both
        for event in events:
            producer.produce(both[event.topic], event.value, event.key)
        left = producer.flush(120)
        if left:
            raise RuntimeError(f"Kafka did not take {left} records within 120 s")

    def reset_redis(self, *, with_histories: bool = True, n_items: int | None = None) -> None:
        """Empty Redis, publish a model, and give viewers what they start with.

        Args:
            with_histories: Or let viewers start with nothing.
            n_items: Of another model than the world's.
        """
        self._client.flushall()
        folder = self.folder / ("trained" if n_items is None else f"model-{n_items}")
        if not folder.exists():
            write_items(folder, n_items or self.world.n_items)
        publish(self._client, self.models, folder, VARIANT)
        if with_histories:
            self.write(iter(self._histories.items()))

    def write(self, values: Iterator[tuple[str, bytes]]) -> None:
        """Set many keys, lazily: two million values are not held at once."""
        while chunk := dict(islice(values, MSET_VALUES)):
            self._client.mset(chunk)

    def used_memory(self) -> int:
        """Return the bytes that Redis uses."""
        return int(self._client.info("memory")["used_memory"])


def write_items(folder: Path, n_items: int) -> None:
    """Write an item model of 64 factors, random but with a trained model's spectrum."""
    write_model(
        folder,
        params=FoldInParams(alpha=20.0, regularization=1.0),
        item_ids=[item_id(number) for number in range(n_items)],
        item_factors=item_factors(World(n_items=n_items), N_FACTORS),
        popularity=np.ones(n_items, np.float32),
    )


@contextmanager
def running_stack(folder: Path, say: Say) -> Iterator[Stack]:
    """Start both servers in `folder`, and stop them at the end."""
    say("starting Kafka and Redis")
    folders = {name: folder / name for name in ("kafka", "redis", "runs")}
    for path in folders.values():
        path.mkdir()
    kafka = KafkaServer(find_kafka_program(), folders["kafka"])
    redis_server = RedisServer(folders["redis"])
    try:
        kafka.start()
        redis_server.start()
        yield Stack(kafka, redis_server, folders["runs"])
    finally:
        redis_server.stop()
        kafka.stop()


def _days_ago_ms(days: float) -> int:
    return round((time.time() - days * 86_400) * 1000)
