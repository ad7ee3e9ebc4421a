"""`streamer topics create`: the topics, with the settings the guarantees rely on."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from streamer.config import load_settings
from streamer.errors import BrokerUnavailable
from streamer.kafka.topics import (
    DEAD_LETTER_RETENTION_FACTOR,
    TopicOutcome,
    create_topics,
    open_admin,
    topic_specs,
)


@click.group()
def command() -> None:
    """Create the topics, with the settings the guarantees rely on."""


@command.command()
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file.")
@click.option(
    "--partitions",
    type=click.IntRange(1, 10_000),
    default=8,
    show_default=True,
    help="Of an event topic: the most workers that can share it.",
)
@click.option(
    "--replication",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="Copies of each partition; 3 in production.",
)
@click.option(
    "--retention-days",
    type=click.FloatRange(0.01, 3650),
    default=7.0,
    show_default=True,
    help="Of events; dead letters are kept four times as long.",
)
@click.option("--json", "as_json", is_flag=True, help="A JSON list instead of a line a topic.")
def create(
    config: Path | None, partitions: int, replication: int, retention_days: float, as_json: bool
) -> None:
    """Create both event topics and their dead-letter topics where they are missing.

    An existing topic is never altered: where it has fewer partitions, or its records do not carry
    the broker's time, that is said. May be repeated.
    """
    settings = load_settings(config)
    kafka = settings.kafka
    specs = topic_specs(
        kafka.topics,
        kafka.dead_letter_suffix,
        partitions=partitions,
        replication=replication,
        retention_days=retention_days,
    )
    _warn_of_retention(retention_days, settings.redis.tombstone_days)
    admin = open_admin({**kafka.client, "bootstrap.servers": kafka.bootstrap_servers})
    try:
        outcomes = create_topics(admin, specs)
    except BrokerUnavailable as error:
        where = f"kafka.bootstrap_servers = {kafka.bootstrap_servers}"
        raise BrokerUnavailable(f"{error} ({where})") from error
    if as_json:
        print(json.dumps([asdict(outcome) for outcome in outcomes]))
    else:
        print("\n".join(_lines(outcomes)))


def _warn_of_retention(retention_days: float, tombstone_days: float) -> None:
    longest_days = retention_days * DEAD_LETTER_RETENTION_FACTOR
    if longest_days > tombstone_days:
        print(
            f"streamer: dead letters are kept for {longest_days:g} days, but a forgotten user's "
            f"marker for redis.tombstone_days = {tombstone_days:g}: what is older could bring the "
            "user back, and `streamer dlq redrive` leaves it out",
            file=sys.stderr,
        )


def _lines(outcomes: Sequence[TopicOutcome]) -> list[str]:
    width = max(len(outcome.name) for outcome in outcomes)
    says = {"created": "created", "exists": "exists", "differs": "exists but differs: "}
    return [
        f"{outcome.name:{width}}  {says[outcome.state]}{'; '.join(outcome.differences)}"
        for outcome in outcomes
    ]
