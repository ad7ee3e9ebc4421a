"""`streamer produce`: synthetic viewers' events, to Kafka as they happen or to a file at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streamer.cli.stopping import stop_flag
from streamer.config import load_settings
from streamer.dev.delivery import Tally, Watch, deliver_live, write_lines
from streamer.dev.kafka_producer import KafkaTarget, connect_sender
from streamer.dev.traffic import generate
from streamer.dev.traffic_plan import (
    HISTORY_END_MS,
    Disturbances,
    TrafficPlan,
    World,
    plan_history,
    plan_live,
)

DEFAULT_SECONDS: Final = 20.0
DEFAULT_DAYS: Final = 14.0
DEFAULT_MALFORMED_SHARE: Final = 0.001
SHARE: Final = click.FloatRange(0.0, 0.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProduceRequest:
    """What the options of `streamer produce` say."""

    config: Path | None
    rate: float
    seconds: float | None
    events: int | None
    users: int
    items: int
    seed: int
    late: float
    duplicates: float
    malformed: float | None
    to: Path | None
    days: float | None
    end_time: datetime | None
    as_json: bool
    quiet: bool

    @property
    def world(self) -> World:
        """Viewers and titles."""
        return World(self.seed, self.users, self.items)

    @property
    def n_records(self) -> int | None:
        """How many records are asked for; None if that is left open."""
        if self.events is not None:
            return self.events
        return None if self.seconds is None else max(1, round(self.rate * self.seconds))

    @property
    def disturbances(self) -> Disturbances:
        """What goes wrong on the way; a file has malformed lines only when they are asked for."""
        malformed = self.malformed
        if malformed is None:
            malformed = 0.0 if self.to else DEFAULT_MALFORMED_SHARE
        return Disturbances(self.late, self.duplicates, malformed, lines_only=self.to is not None)


@click.command()
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file.")
@click.option(
    "--rate",
    type=click.FloatRange(0.1, 1_000_000),
    default=2_000,
    show_default=True,
    help="Records a second.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, 30 * 86_400, min_open=True),
    help=f"For how long; {DEFAULT_SECONDS:g} if neither this nor --events is given.",
)
@click.option("--events", type=click.IntRange(1, 10**10), help="How many, instead of --seconds.")
@click.option(
    "--users", type=click.IntRange(1, 10**6), default=2_000, show_default=True, help="Viewers."
)
@click.option(
    "--items", type=click.IntRange(1, 10**5), default=2_000, show_default=True, help="Titles."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=7,
    show_default=True,
    help="Same seed, users and items: same tastes and titles, in a file and in Kafka.",
)
@click.option(
    "--late",
    type=SHARE,
    default=0.02,
    show_default=True,
    help="Share dated up to 10 minutes too early for its place.",
)
@click.option(
    "--duplicates", type=SHARE, default=0.02, show_default=True, help="Share sent a second time."
)
@click.option(
    "--malformed",
    type=SHARE,
    help=f"Share that must be dead-lettered; {DEFAULT_MALFORMED_SHARE:g}, or 0 with --to.",
)
@click.option(
    "--to",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a log of the past as JSON lines instead, as fast as possible.",
)
@click.option(
    "--days",
    type=click.FloatRange(0.1, 3_650),
    help=f"With --to: how much time the log covers; {DEFAULT_DAYS:g} if not given.",
)
@click.option(
    "--end-time",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]),
    help="With --to: where the log ends, in UTC; 2025-11-01 if not given.",
)
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.pass_context
def command(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401  one of every type
    """Write synthetic viewers' events to Kafka, or to a file.

    Viewers have lasting tastes and, in each sitting, a mood; a model trained on the log that --to
    writes serves the live events of the same seed. With --to and neither --events nor --seconds,
    every viewer has a sitting of about 40 events every other day. Ctrl-C stops early, with the
    summary.
    """
    request = ProduceRequest(**options)
    _ensure_options_agree(request)
    tally, where = _to_kafka(request) if request.to is None else _to_file(request, request.to)
    click.echo(_as_json(tally) if request.as_json else _as_line(tally, where))
    if tally.failed:
        context.exit(1)


def _ensure_options_agree(request: ProduceRequest) -> None:
    if request.events is not None and request.seconds is not None:
        raise click.UsageError("--events and --seconds both say how many: give one of them")
    if request.to is None and (request.days is not None or request.end_time is not None):
        raise click.UsageError("--days and --end-time are of a log: give --to FILE as well")


def _to_kafka(request: ProduceRequest) -> tuple[Tally, str]:
    kafka = load_settings(request.config).kafka
    target = KafkaTarget(
        kafka.bootstrap_servers,
        kafka.play_topic,
        kafka.browse_topic,
        {name: str(value) for name, value in kafka.client.items()},
    )
    sender = connect_sender(target)
    plan = plan_live(
        request.n_records or round(request.rate * DEFAULT_SECONDS),
        rate_per_s=request.rate,
        start_ms=time.time_ns() // 1_000_000,
        world=request.world,
        disturbances=request.disturbances,
    )
    with _watching(plan, request) as watch:
        tally = deliver_live(plan, sender, watch)
    return tally, f"{kafka.play_topic} and {kafka.browse_topic} at {kafka.bootstrap_servers}"


def _to_file(request: ProduceRequest, path: Path) -> tuple[Tally, str]:
    end_ms = HISTORY_END_MS
    if request.end_time is not None:
        end_ms = int(request.end_time.replace(tzinfo=UTC).timestamp() * 1_000)
    plan = plan_history(
        request.n_records,
        days=DEFAULT_DAYS if request.days is None else request.days,
        end_ms=end_ms,
        world=request.world,
        disturbances=request.disturbances,
    )
    try:
        with path.open("wb") as file, _watching(plan, request) as watch:
            return write_lines(generate(plan), file, watch), str(path)
    except OSError as error:
        raise click.FileError(str(path), error.strerror) from error


@contextmanager
def _watching(plan: TrafficPlan, request: ProduceRequest) -> Iterator[Watch]:
    """Show a progress bar on a terminal, and turn SIGINT and SIGTERM into a clean stop."""
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("producing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}/s"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=request.quiet or not console.is_terminal,
    )
    task = progress.add_task("", total=plan.n_records, rate="-")
    started = time.monotonic()

    def show(n_sent: int) -> None:
        seconds = max(time.monotonic() - started, 1e-3)
        progress.update(task, completed=n_sent, rate=f"{n_sent / seconds:,.0f}")

    with stop_flag() as stopped, progress:
        yield Watch(should_stop=lambda: bool(stopped), on_progress=show)


def _as_json(tally: Tally) -> str:
    return orjson.dumps(
        {
            "produced": tally.produced,
            "failed": tally.failed,
            "play": tally.play,
            "browse": tally.browse,
            "late": tally.late,
            "duplicates": tally.duplicates,
            "malformed": tally.malformed,
            "seconds": round(tally.seconds, 3),
        }
    ).decode()


def _as_line(tally: Tally, where: str) -> str:
    rate_per_s = tally.produced / max(tally.seconds, 1e-3)
    line = (
        f"produced {tally.produced:,} events ({tally.play:,} play, {tally.browse:,} browse; "
        f"{tally.late:,} late, {tally.duplicates:,} duplicates, {tally.malformed:,} malformed) "
        f"in {tally.seconds:.1f} s, {rate_per_s:,.0f}/s, to {where}"
    )
    return f"{line}; {tally.failed:,} failed: {tally.first_error}" if tally.failed else line
