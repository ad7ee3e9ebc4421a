"""`streamer dev`: Kafka and Redis on this machine, until Ctrl-C."""

from __future__ import annotations

import json
import signal
import sys
import time
from types import FrameType
from typing import Final, NoReturn

import click

from streamer.dev.mock_broker import MOCK_NAME
from streamer.dev.processes import say
from streamer.dev.stack import KafkaChoice, LocalStack

WATCH_INTERVAL_SECONDS: Final = 0.2
N_SHARDS: Final = 3


@click.command()
@click.option(
    "--kafka",
    type=click.Choice(["real", "mock", "auto"]),
    default="auto",
    show_default=True,
    help="real: Apache Kafka, by Java and Maven. mock: librdkafka's. auto: real if it can be had.",
)
@click.option("--redis-url", default="", metavar="URL", help="Use this Redis and start none.")
@click.option("--redis-cluster", is_flag=True, help="Start a Redis Cluster of three shards.")
@click.option("--bootstrap", default="", metavar="SERVERS", help="Use this Kafka and start none.")
def command(kafka: KafkaChoice, redis_url: str, bootstrap: str, *, redis_cluster: bool) -> None:
    """Start Kafka and Redis on free local ports, until Ctrl-C or SIGTERM.

    Prints one line of JSON on stdout when both answer: bootstrap_servers, redis_url, and what
    they are. Everything they held is gone afterwards.
    """
    signal.signal(signal.SIGINT, _leave)
    signal.signal(signal.SIGTERM, _leave)
    with LocalStack.start(
        kafka,
        bootstrap_servers=bootstrap,
        redis_url=redis_url,
        redis_shards=N_SHARDS if redis_cluster else 0,
    ) as stack:
        line = {
            "bootstrap_servers": stack.bootstrap_servers,
            "redis_url": stack.redis_url,
            "kafka": stack.kafka_name,
            "redis": stack.redis_version,
        }
        print(json.dumps(line), flush=True)
        if stack.kafka_name == MOCK_NAME:
            say("the mock broker makes topics on first use; `streamer topics` cannot talk to it")
        say("running; Ctrl-C stops and forgets everything")
        while True:
            stack.ensure_running()
            time.sleep(WATCH_INTERVAL_SECONDS)


def _leave(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001  signal's signature
    """Unwind, which stops the servers; further signals must not interrupt that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)
