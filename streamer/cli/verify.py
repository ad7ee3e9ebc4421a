"""`streamer verify`: recompute viewers from the log and compare with Redis."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from streamer.app import read_live_model, redis_client
from streamer.cli.main import EXIT_FAILURE, EXIT_TEMPORARY
from streamer.config import Settings, load_settings
from streamer.evaluation.judgement import Verdict
from streamer.evaluation.letter_offsets import LetterReader
from streamer.evaluation.selection import EVERYBODY, Sample
from streamer.evaluation.verification import (
    Sources,
    Stage,
    Verification,
    VerifyOptions,
    VerifyProgress,
)
from streamer.evaluation.verify import verify
from streamer.kafka.log_reader import KafkaLog
from streamer.models import read_pointer
from streamer.pipeline.ports import FeatureStore
from streamer.pipeline.records import Partition
from streamer.pipeline.step import LiveModel
from streamer.stores import RedisClient, open_store, read_values

DOING: Final[Mapping[Stage, str]] = {
    "reading": "records read",
    "comparing": "viewers compared",
    "settling": "viewers asked again",
}


class SampleType(click.ParamType[Sample]):
    """``1%`` or a number of viewers."""

    name = "sample"

    def convert(
        self, value: str | Sample, param: click.Parameter | None, ctx: click.Context | None
    ) -> Sample:
        """Read it."""
        if isinstance(value, Sample):
            return value
        try:
            return Sample.parse(value)
        except ValueError:
            self.fail(f"{value!r} is neither a share like 1% nor a number of viewers", param, ctx)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """What the options of `streamer verify` say."""

    config: Path | None
    sample: Sample | None
    rate: float
    log_rate: float | None
    max_users: int
    n_listed: int
    as_json: bool
    quiet: bool

    def options(self, settings: Settings) -> VerifyOptions:
        """Return who is verified, and how gently."""
        return VerifyOptions(
            sample=self.sample or EVERYBODY,
            max_users=self.max_users,
            users_per_second=self.rate,
            records_per_second=self.log_rate,
            expire_after_days=settings.redis.expire_after_days,
            tombstone_days=settings.redis.tombstone_days,
            n_listed=self.n_listed,
        )


@click.command()
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file.")
@click.option(
    "--sample",
    type=SampleType(),
    metavar="1%|N",
    help="A share of the viewers, or so many: the same ones in every run. All if not given.",
)
@click.option(
    "--rate",
    type=click.FloatRange(1, 1_000_000),
    default=20_000,
    show_default=True,
    help="Viewers read from Redis a second, at most.",
)
@click.option(
    "--log-rate",
    type=click.FloatRange(1, 10_000_000),
    help="Records read from Kafka a second, at most; no limit if not given.",
)
@click.option(
    "--max-users",
    type=click.IntRange(1, 100_000_000),
    default=100_000,
    show_default=True,
    help="Viewers in memory at once, 1 kB each, 5 kB at worst; more take several passes.",
)
@click.option(
    "--list",
    "n_listed",
    type=click.IntRange(0, 1_000_000),
    default=0,
    metavar="N",
    help="Name at most so many of those who are different.",
)
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.pass_context
def command(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401  one of every type
    """Recompute viewers from the log and compare with Redis, also while everything runs.

    Histories must be equal byte for byte, vectors within the stored precision. A viewer whose
    events are still on their way is behind, not different: nothing that the marks vouch for may
    be missing, and nothing may be there that the log does not say. Records with a dead letter are
    left out. Where the topics no longer hold their first records, older evidence in Redis cannot
    be checked, and that is said.

    Reads the topics from their earliest record; commits nothing and writes nothing. Exit 1 if any
    viewer is different, 75 if some are behind and no mark says what should be there.
    """
    request = VerifyRequest(**options)
    settings = load_settings(request.config)
    with (
        redis_client(settings.redis) as client,
        sources_of(settings, client) as sources,
        _showing(quiet=request.quiet) as show,
    ):
        result = verify(sources, request.options(settings), show)
    text = json.dumps(as_json_object(result)) if request.as_json else "\n".join(as_lines(result))
    click.echo(text)
    if result.n_different:
        context.exit(EXIT_FAILURE)
    if not result.is_conclusive:
        click.echo(
            "streamer: not conclusive: "
            + (
                "the marks went down meanwhile"
                if result.has_rewound
                else f"{result.n_unvouched} partitions with records have no mark; is [kafka] "
                "group_id right, and does a worker run?"
            ),
            err=True,
        )
        context.exit(EXIT_TEMPORARY)


@contextmanager
def sources_of(settings: Settings, client: RedisClient) -> Iterator[Sources]:
    """Give what a verification reads: the configured topics, Redis and model."""
    kafka, variant = settings.kafka, settings.models.variant
    letter_topics = [topic + kafka.dead_letter_suffix for topic in kafka.topics]
    store = open_store(client, kafka.group_id, tombstone_days=settings.redis.tombstone_days)
    log = KafkaLog(kafka.client, kafka.bootstrap_servers, kafka.topics)
    letters = KafkaLog(kafka.client, kafka.bootstrap_servers, letter_topics, may_be_missing=True)
    with closing(log), closing(letters):
        yield Sources(
            log=log,
            new_letters=LetterReader(letters).new_places,
            marks=lambda partitions: vouched_offsets(store, log, partitions),
            read=lambda user_ids: read_values(client, variant, user_ids),
            live=_live_model_reader(settings, client),
        )


def vouched_offsets(
    store: FeatureStore, log: KafkaLog, partitions: Sequence[Partition]
) -> dict[Partition, int | None]:
    """Return the offset of each partition below which everything is in Redis.

    None where there is none, or where it counts in a topic that has been made anew since.
    """
    marks = store.read_marks(partitions)
    topic_ids = log.topic_ids()
    return {
        partition: mark.next_offset
        if mark is not None and mark.topic_id in {"", topic_ids.get(partition.topic, mark.topic_id)}
        else None
        for partition, mark in marks.items()
    }


def _live_model_reader(settings: Settings, client: RedisClient) -> Callable[[], LiveModel | None]:
    """Return a function that reads the live model, and loads it only when it is another."""
    loaded: LiveModel | None = None

    def read() -> LiveModel | None:
        nonlocal loaded
        pointer = read_pointer(client, settings.models.variant)
        if loaded is None or pointer is None or pointer.generation != loaded.generation:
            loaded = read_live_model(settings, client)
        return loaded

    return read


@contextmanager
def _showing(*, quiet: bool) -> Iterator[Callable[[VerifyProgress], None]]:
    """Show progress on a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"))
    with Progress(
        *columns, TimeElapsedColumn(), console=console, disable=quiet or not console.is_terminal
    ) as progress:
        task = progress.add_task("reading the log", total=None, count="")

        def show(at: VerifyProgress) -> None:
            progress.update(
                task,
                description=f"pass {at.pass_number}",
                completed=at.n_done,
                total=max(at.n_total, 1),
                count=f"{at.n_done:,} of {at.n_total:,} {DOING[at.stage]}",
            )

        yield show


def as_json_object(result: Verification) -> dict[str, object]:
    """Return the result for machines."""
    return {
        "users": result.n_users,
        "equal": result.n_equal,
        "behind": result.n_behind,
        "different": result.n_different,
        "beyond_log": result.n_beyond_log,
        "verdicts": {str(verdict): result.verdicts[verdict] for verdict in Verdict},
        "worst_vector_error": result.worst_error,
        "records": result.n_records,
        "applied": result.n_applied,
        "rejected": result.n_rejected,
        "letters": result.n_letters,
        "passes": result.n_passes,
        "log_is_cut": result.is_log_cut,
        "rewound": result.has_rewound,
        "unvouched_partitions": result.n_unvouched,
        "listed": {user_id: str(verdict) for user_id, verdict in result.listed.items()},
    }


def as_lines(result: Verification) -> Sequence[str]:
    """Return the result for people."""
    lines = [
        f"{result.n_records:,} records: {result.n_applied:,} events, "
        f"{result.n_rejected:,} dead letters",
        f"{result.n_users:,} viewers: {result.n_equal:,} equal, {result.n_behind:,} behind, "
        f"{result.n_different:,} different; worst vector error {result.worst_error:.1e}",
    ]
    if result.n_beyond_log:
        lines.append(
            f"{result.n_beyond_log:,} more hold evidence older than the topics, and agree as far "
            "back as those reach"
        )
    if result.is_log_cut and not result.n_beyond_log:
        lines.append("the topics no longer hold their first records; nobody has older evidence")
    if result.has_rewound:
        lines.append("the marks went down meanwhile: Redis forgot, and events come again; repeat")
    lines += [
        f"  {verdict}: {n_users:,}"
        for verdict, n_users in result.verdicts.items()
        if verdict is not Verdict.EQUAL
    ]
    lines += [f"{user_id}\t{verdict}" for user_id, verdict in result.listed.items()]
    return lines
