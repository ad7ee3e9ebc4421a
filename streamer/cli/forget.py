"""`streamer forget`: forget one viewer, wait until it is done, and show what was found."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import click
import orjson
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from streamer.app import redis_client
from streamer.cli.dlq_read import letter_topics, reading_progress
from streamer.cli.dlq_show import place_json, printable
from streamer.cli.main import EXIT_FAILURE, EXIT_TEMPORARY
from streamer.cli.moments import in_utc
from streamer.cli.stopping import stop_flag
from streamer.config import KafkaSection, Settings, load_settings
from streamer.errors import BrokerUnavailable, StoreUnavailable, StreamerError
from streamer.events import LATEST_EVENT_TIME_MS, MAX_AHEAD_MS, is_id
from streamer.kafka.letter_content import Match, find_user
from streamer.kafka.letters import Letter, letter_of
from streamer.kafka.log_reader import read_log
from streamer.kafka.one_event import Written, write_event
from streamer.kafka.topics import missing_topics, open_admin
from streamer.stores import RedisClient, Traces, ping, read_traces

MAX_LISTED: Final = 10_000
"""Dead letters of one viewer that a receipt lists; the rest are counted."""
FIRST_POLL_SECONDS: Final = 0.02
MAX_POLL_SECONDS: Final = 0.5


@dataclass(slots=True)
class Receipt:
    """What a forget did and found.

    Attributes:
        user_id: Who.
        written: Where the event is.
        forgotten_before_ms: Everything at or before this is forgotten.
        before: What Redis held before.
        after: What it held when it was looked at last.
        seconds: From the write to that look.
        found: The viewer's dead letters, and where each names them.
        n_found: How many there are.
        n_reduced: Letters of hash and size, of which nobody can say whose they are.
        is_complete: Whether all dead letters were looked at.
    """

    user_id: str
    written: Written
    forgotten_before_ms: int
    before: Traces
    after: Traces
    seconds: float
    found: list[tuple[Letter, Match]]
    n_found: int = 0
    n_reduced: int = 0
    is_complete: bool = False

    @property
    def is_applied(self) -> bool:
        """Whether a worker has forgotten the viewer."""
        return self.after.forgotten_before_ms >= self.forgotten_before_ms

    @property
    def left(self) -> tuple[str, ...]:
        """Keys that should be gone; a viewer who is back since then has features again."""
        return () if self.after.n_entries else self.after.others


@click.command()
@click.argument("user_id", metavar="USER")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file.")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=click.FloatRange(0, 3600, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds to wait for a worker to apply it.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="The receipt as one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.pass_context
def command(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401  one of every type
    """Forget one viewer for good, and show the receipt.

    Writes a `forget` event to the play topic and waits until a worker has applied it: the history
    is a bare header, and features of every variant are gone. Lists the viewer's dead letters,
    which Kafka keeps until their retention ends. No replay brings the viewer back.

    Exit 75 if no worker applied it in time, or before Ctrl-C: the event is written and will be
    applied. Exit 1 if something is left that should be gone.
    """
    user_id = options["user_id"]
    if not is_id(user_id):
        raise click.UsageError("USER must be 1 to 128 bytes without control characters")
    settings = load_settings(options["config"])
    client = redis_client(settings.redis)
    ping(client)
    _ensure_topic(settings.kafka)
    if sys.stdin.isatty() and not options["yes"]:
        click.confirm(
            f"Forget {printable(user_id)} for good? This cannot be undone.", abort=True, err=True
        )
    with stop_flag() as stopped:  # once it is written, a receipt is due whatever comes
        receipt = _forget(settings, client, user_id, options, stopped)
    try:
        _find_letters(settings.kafka, receipt, is_silent=options["quiet"])
    finally:  # the event is written: a receipt is due, also if Kafka went away meanwhile
        click.echo(json.dumps(as_json_object(receipt)) if options["as_json"] else as_text(receipt))
    if not receipt.is_applied:
        context.exit(EXIT_TEMPORARY)
    if receipt.left:
        context.exit(EXIT_FAILURE)


def as_json_object(receipt: Receipt) -> dict[str, Any]:
    """Return the receipt for programs."""
    partition = receipt.written.partition
    return {
        "user_id": receipt.user_id,
        "applied": receipt.is_applied,
        "seconds": round(receipt.seconds, 3),
        "written": {
            "topic": partition.topic,
            "partition": partition.number,
            "offset": receipt.written.offset,
            "timestamp_ms": receipt.written.timestamp_ms,
        },
        "forgotten_before_ms": receipt.forgotten_before_ms,
        "history": {
            "entries_before": receipt.before.n_entries,
            "entries": receipt.after.n_entries,
            "bytes": len(receipt.after.history or b""),
            "forgotten_before_ms": receipt.after.forgotten_before_ms or None,
        },
        "deleted": sorted(set(receipt.before.others) - set(receipt.after.others)),
        "left": list(receipt.left),
        "dead_letters": [
            {**place_json(letter), "named_by": match} for letter, match in receipt.found
        ],
        "dead_letters_found": receipt.n_found,
        "dead_letters_reduced": receipt.n_reduced,
        "dead_letters_complete": receipt.is_complete,
    }


def as_text(receipt: Receipt) -> str:
    """Return the receipt for people."""
    partition, after = receipt.written.partition, receipt.after
    lines = [
        f"forget     {partition.topic} {partition.number} {receipt.written.offset}, "
        f"everything until {in_utc(receipt.forgotten_before_ms)} UTC"
    ]
    if receipt.is_applied:
        lines.append(f"applied    after {receipt.seconds:.1f} s")
        now = f"{after.n_entries} that came later" if after.n_entries else "a bare header"
        lines.append(f"history    {receipt.before.n_entries} entries before, now {now}")
    else:
        lines.append(
            f"NOT YET    no worker has applied it within {receipt.seconds:.0f} s; "
            "it will be when one reads it"
        )
    lines += [f"deleted    {key}" for key in sorted({*receipt.before.others} - {*after.others})]
    lines += [f"LEFT       {key}" for key in receipt.left if receipt.is_applied]
    lines.append(f"letters    {receipt.n_found:,} dead letters of this viewer")
    for letter, match in receipt.found:
        place = letter.record.partition
        where = f"{place.topic} {place.number} {letter.record.offset}"
        lines.append(f"           {where}  {letter.reason}, named by {match}")
    if receipt.n_found > len(receipt.found):
        lines.append(f"           and {receipt.n_found - len(receipt.found):,} more")
    if receipt.n_found:
        lines.append("           Kafka keeps them until their retention ends")
    if receipt.n_reduced:
        lines.append(
            f"           {receipt.n_reduced:,} more letters are hash and size only: "
            "nobody can say whose they are"
        )
    if not receipt.is_complete:
        lines.append("           NOT ALL: the dead letters could not be read to their end")
    return "\n".join(printable(line) for line in lines)


def _ensure_topic(kafka: KafkaSection) -> None:
    admin = open_admin({**kafka.client, "bootstrap.servers": kafka.bootstrap_servers})
    if missing_topics(admin, [kafka.play_topic]):
        raise BrokerUnavailable(f"topic {kafka.play_topic} does not exist", kind="missing_topic")


def _forget(
    settings: Settings,
    client: RedisClient,
    user_id: str,
    options: dict[str, Any],
    stopped: Sequence[int],
) -> Receipt:
    """Write the event, and look at Redis until it is applied, time is up, or Ctrl-C."""
    kafka, variants = settings.kafka, [settings.models.variant]
    before = read_traces(client, user_id, variants)
    now_ms = time.time_ns() // 1_000_000
    event = {
        "type": "forget",
        "event_id": uuid4().hex,
        "user_id": user_id,
        "event_time": now_ms,
    }
    written = write_event(
        kafka.client,
        kafka.bootstrap_servers,
        kafka.play_topic,
        user_id.encode(),
        orjson.dumps(event),
    )
    ahead_ms = now_ms - written.timestamp_ms
    if ahead_ms > MAX_AHEAD_MS:
        raise StreamerError(
            f"the forget will be a dead letter: this machine's clock is {ahead_ms / 1000:,.0f} s "
            "ahead of the broker's; set it right and repeat"
        )
    until_ms = min(written.timestamp_ms + MAX_AHEAD_MS, LATEST_EVENT_TIME_MS)
    receipt = Receipt(user_id, written, until_ms, before, before, 0.0, [])
    started, pause_seconds = time.monotonic(), FIRST_POLL_SECONDS
    with _waiting_progress(is_silent=options["quiet"]):
        while not (receipt.is_applied or stopped or receipt.seconds >= options["timeout_seconds"]):
            time.sleep(min(pause_seconds, options["timeout_seconds"]))
            pause_seconds = min(2 * pause_seconds, MAX_POLL_SECONDS)
            with suppress(StoreUnavailable):  # the event is written: only time decides now
                receipt.after = read_traces(client, user_id, variants)
            receipt.seconds = time.monotonic() - started
    return receipt


def _waiting_progress(*, is_silent: bool) -> Progress:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("waiting for a worker"), TimeElapsedColumn())
    is_silent = is_silent or not console.is_terminal
    progress = Progress(*columns, console=console, disable=is_silent, transient=True)
    progress.add_task("")
    return progress


def _find_letters(kafka: KafkaSection, receipt: Receipt, *, is_silent: bool) -> None:
    """List the viewer's dead letters."""
    admin = open_admin({**kafka.client, "bootstrap.servers": kafka.bootstrap_servers})
    names = letter_topics(kafka)
    there = sorted(set(names) - set(missing_topics(admin, names)))
    with reading_progress(is_silent=is_silent) as on_progress:
        records = read_log(kafka.client, kafka.bootstrap_servers, there)
        n_records = 0
        while chunk := list(islice(records, 1000)):
            n_records += len(chunk)
            on_progress(n_records)
            for letter in filter(None, map(letter_of, chunk)):
                receipt.n_reduced += letter.is_reduced
                match = find_user(letter, receipt.user_id)
                if match is not None:
                    receipt.n_found += 1
                    if len(receipt.found) < MAX_LISTED:
                        receipt.found.append((letter, match))
    receipt.is_complete = True
