"""`streamer rewind`: let the workers read a stretch of the log again."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from streamer.app import redis_client
from streamer.config import load_settings
from streamer.kafka.offsets import OffsetsAt, offsets_at
from streamer.kafka.topics import open_admin
from streamer.pipeline.records import Partition
from streamer.runtime.rewind import Lowered, lower_marks
from streamer.stores import RedisStore

UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


class Since(click.ParamType[int]):
    """A duration before now, or a time with an offset; becomes epoch milliseconds."""

    name = "10m|2h|1d|TIME"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return epoch milliseconds, or fail with what would be right."""
        text = str(value)
        found = DURATION.fullmatch(text)
        if found is not None:
            return int((time.time() - float(found[1]) * UNITS[found[2]]) * 1000)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self.fail(
                f"{text!r} is neither a duration such as 90s, 10m, 2h or 1d, nor a time with an "
                "offset such as 2026-11-23T19:08:00Z",
                param,
                ctx,
            )
        return int(moment.timestamp() * 1000)


@click.command()
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file.")
@click.option(
    "--since", "since_ms", type=Since(), required=True, help="From when on to read again."
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
    store = RedisStore(client, kafka.group_id, tombstone_days=settings.redis.tombstone_days)
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
