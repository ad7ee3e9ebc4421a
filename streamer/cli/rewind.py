"""`streamer rewind`: let the workers read a stretch of the log again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from streamer.app import redis_client
from streamer.cli.moments import Moment
from streamer.config import load_settings
from streamer.kafka.offsets import OffsetsAt, offsets_at
from streamer.kafka.topics import open_admin
from streamer.pipeline.records import Partition
from streamer.runtime.rewind import Lowered, lower_marks
from streamer.stores import open_store


@click.command()
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file.")
@click.option(
    "--since",
    "since_ms",
    type=Moment(),
    required=True,
    help="From when on to read again: 10m, 2h, 1d ago, or a time with an offset.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be read again, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list instead of a table.")
def command(config: Path | None, since_ms: int, dry_run: bool, as_json: bool) -> None:
    """Let the whole group read again what was appended since then.

    For data that Redis lost without its marks, or a mended bug. It lowers the marks in Redis:
    running workers notice with their next checkpoint, others when they start. It is always safe:
    what is learned already changes nothing when it comes again.
    """
    settings = load_settings(config)
    kafka = settings.kafka
    admin = open_admin({**kafka.client, "bootstrap.servers": kafka.bootstrap_servers})
    offsets = offsets_at(admin, kafka.topics, since_ms)
    client = redis_client(settings.redis)
    store = open_store(client, kafka.group_id, tombstone_days=settings.redis.tombstone_days)
    wanted = {partition: each.at for partition, each in offsets.items()}
    lowered = lower_marks(store, wanted, is_dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(as_json_list(lowered, offsets)))
    else:
        Console().print(as_table(lowered, offsets))
        n_records = sum(each.n_records for each in lowered.values())
        would = "would be read again" if dry_run else "will be read again"
        click.echo(f"{n_records:,} records {would}")
    for partition, each in offsets.items():
        if not reaches_back(each):
            click.echo(
                f"streamer: {partition.topic}/{partition.number} begins at offset {each.earliest}: "
                "older records of that time are gone",
                err=True,
            )


def reaches_back(offsets: OffsetsAt) -> bool:
    """Whether the topic surely holds all of its records since the time that was asked for."""
    return offsets.at > offsets.earliest or offsets.earliest == 0


def as_json_list(
    lowered: Mapping[Partition, Lowered], offsets: Mapping[Partition, OffsetsAt]
) -> list[dict[str, object]]:
    """Return the result for machines."""
    return [
        {
            "topic": partition.topic,
            "partition": partition.number,
            "mark_before": each.before,
            "mark_after": each.after,
            "records": each.n_records,
            "reaches_back": reaches_back(offsets[partition]),
        }
        for partition, each in lowered.items()
    ]


def as_table(lowered: Mapping[Partition, Lowered], offsets: Mapping[Partition, OffsetsAt]) -> Table:
    """Return the result for people."""
    table = Table("topic", "partition", "mark", "lowered to", "records", "end")
    for partition, each in lowered.items():
        is_lower = each.n_records > 0
        table.add_row(
            partition.topic,
            str(partition.number),
            "none" if each.before is None else f"{each.before:,}",
            f"{each.after:,}" if is_lower else "stays",
            f"{each.n_records:,}" if is_lower else "",
            f"{offsets[partition].end:,}",
        )
    return table
