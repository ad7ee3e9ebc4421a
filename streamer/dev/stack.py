"""Kafka and Redis on this machine without Docker, started together and gone together."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streamer.dev.kafka_program import find_kafka_program
from streamer.dev.kafka_server import KafkaServer
from streamer.dev.mock_broker import MockBroker
from streamer.dev.processes import say
from streamer.dev.redis_cluster import RedisCluster
from streamer.dev.redis_server import RedisServer, redis_version
from streamer.errors import BrokerUnavailable, StreamerError, TransientError

KafkaChoice = Literal["real", "mock", "auto"]
EXTERNAL_KAFKA = "external"
REACH_TIMEOUT_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class LocalStack:
    """A running Kafka and Redis.

    Attributes:
        kafka_name: ``apache-kafka X.Y.Z``, ``librdkafka-mock``, or ``external``.
        kafka: The server, for stopping and freezing it; None if it was there before.
        redis: Likewise.
    """

    bootstrap_servers: str
    redis_url: str
    kafka_name: str
    redis_version: str
    kafka: KafkaServer | MockBroker | None
    redis: RedisServer | RedisCluster | None

    @classmethod
    @contextmanager
    def start(
        cls,
        kafka: KafkaChoice = "auto",
        *,
        bootstrap_servers: str = "",
        redis_url: str = "",
        redis_shards: int = 0,
    ) -> Iterator[LocalStack]:
        """Start what is not given, and stop it, with all its data, at the end.

        Args:
            kafka: ``real`` needs Java, and Maven for the first time; ``mock`` needs neither;
                ``auto`` takes the mock where the real one cannot be had, and says so.
            bootstrap_servers: A Kafka that runs already; then none is started.
            redis_url: A Redis that runs already; then none is started.
            redis_shards: Start a Redis Cluster of so many; 0 starts one standalone Redis.

        Raises:
            TransientError: A server cannot be had, did not start, or does not answer.
        """
        with ExitStack() as cleanup:
            folder = Path(
                cleanup.enter_context(
                    tempfile.TemporaryDirectory(prefix="streamer-dev-", ignore_cleanup_errors=True)
                )
            )
            redis = None if redis_url else _start_redis(redis_shards, folder, cleanup)
            version = redis.version if redis else redis_version(redis_url)
            broker = None if bootstrap_servers else _start_kafka(kafka, folder, cleanup)
            if broker is None:
                _ensure_reachable(bootstrap_servers)
            yield cls(
                bootstrap_servers=broker.bootstrap_servers if broker else bootstrap_servers,
                redis_url=redis.url if redis else redis_url,
                kafka_name=broker.name if broker else EXTERNAL_KAFKA,
                redis_version=version,
                kafka=broker,
                redis=redis,
            )

    def ensure_running(self) -> None:
        """Raise StreamerError if a server that we started has ended; says which, how, and why."""
        redis = self.redis.servers if isinstance(self.redis, RedisCluster) else [self.redis]
        for server in (self.kafka, *redis):
            if server is not None and not server.is_running:
                raise StreamerError(server.process.describe_end())


def _start_redis(n_shards: int, folder: Path, cleanup: ExitStack) -> RedisServer | RedisCluster:
    home = folder / "redis"
    home.mkdir()
    server = RedisCluster(home, n_shards) if n_shards else RedisServer(home)
    cleanup.callback(server.stop)
    server.start()
    return server


def _start_kafka(choice: KafkaChoice, folder: Path, cleanup: ExitStack) -> KafkaServer | MockBroker:
    home = folder / "kafka"
    home.mkdir()
    server = _choose_kafka(choice, home)
    cleanup.callback(server.stop)
    server.start()
    return server


def _choose_kafka(choice: KafkaChoice, folder: Path) -> KafkaServer | MockBroker:
    if choice == "mock":
        return MockBroker(folder)
    try:
        return KafkaServer(find_kafka_program(), folder)
    except TransientError as error:
        if choice == "real":
            raise
        # Only where a Kafka cannot be had: one that is here and does not start is a fault to show.
        say(f"taking librdkafka's mock broker instead of Apache Kafka: {error}")
        return MockBroker(folder)


def _ensure_reachable(bootstrap_servers: str) -> None:
    try:
        client = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
        client.list_topics(timeout=REACH_TIMEOUT_SECONDS)
    except KafkaException as error:
        raise BrokerUnavailable(
            f"Kafka at {bootstrap_servers} did not answer within {REACH_TIMEOUT_SECONDS:g} s: "
            f"{error.args[0].str()}"
        ) from error
