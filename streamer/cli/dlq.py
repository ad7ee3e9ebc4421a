"""`streamer dlq`: what lies in the dead letters, one of them whole, and back to where they were."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from streamer.cli.dlq_read import letter_topics, newest_letter_of, survey_letters
from streamer.cli.dlq_show import (
    fates_json,
    letter_json,
    redrive_lines,
    show_letter,
    show_survey,
    survey_json,
)
from streamer.cli.moments import Moment
from streamer.cli.stopping import stop_flag
from streamer.config import KafkaSection, load_settings
from streamer.errors import ConfigError, StreamerError
from streamer.events import RejectReason
from streamer.kafka.letter_survey import Fate, Survey
from streamer.kafka.letters import letter_of
from streamer.kafka.log_reader import read_log, read_record
from streamer.kafka.redrive import BATCH_LETTERS, Outcome, Redriver
from streamer.pipeline.records import Partition

EXIT_FAILURE: Final = 1


@click.group()
def command() -> None:
    """List, show and redrive dead letters: records that workers had to reject."""


def _complete_topic(
    ctx: click.Context, _param: click.Parameter, incomplete: str, *, with_letters: bool = False
) -> list[str]:
    try:
        kafka = load_settings(ctx.params.get("config")).kafka
    except ConfigError:
        return []
    names = [*kafka.topics]
    if with_letters:
        names = [*letter_topics(kafka), *names]
    return [name for name in names if name.startswith(incomplete)]


def _complete_any_topic(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return _complete_topic(ctx, param, incomplete, with_letters=True)


def _options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that `list` and `redrive` share."""
    for option in (
        click.option("--quiet", is_flag=True, help="No progress."),
        click.option("--json", "as_json", is_flag=True, help="The result as one JSON object."),
        click.option(
            "--until",
            "until_ms",
            type=Moment(),
            help="Records with an earlier timestamp than this.",
        ),
        click.option(
            "--since",
            "since_ms",
            type=Moment(),
            help="Records with this timestamp or a later one: 10m, 2h, 3d ago, or RFC 3339.",
        ),
        click.option(
            "--topic",
            "topics",
            multiple=True,
            shell_complete=_complete_topic,
            help="Only records of this event topic; may be repeated.",
        ),
        click.option(
            "--reason",
            "reasons",
            multiple=True,
            type=click.Choice([str(reason) for reason in RejectReason]),
            help="Only letters with this reason; may be repeated.",
        ),
        click.option(
            "--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file."
        ),
    ):
        function = option(function)
    return function


@command.command("list")
@_options
@click.option(
    "--samples",
    type=click.IntRange(0, 20),
    default=1,
    show_default=True,
    help="Newest letters of each group to show.",
)
def list_letters(**options: Any) -> None:  # noqa: ANN401  one of every type
    """Count dead letters by topic and reason, with their first and last time and samples.

    `waiting` can be redriven; `redriven` were; `reduced` are hash and size only; `expired` are
    older than redis.tombstone_days and could bring a forgotten viewer back. `failed again` are
    letters of records that had been redriven before. Reads only.
    """
    settings = load_settings(options["config"])
    survey = survey_letters(settings, options, max_samples=options["samples"])
    if options["as_json"]:
        click.echo(json.dumps(survey_json(survey)))
    else:
        show_survey(survey)


@command.command()
@click.argument("topic", shell_complete=_complete_any_topic)
@click.argument("partition", type=click.IntRange(0))
@click.argument("offset", type=click.IntRange(0))
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead.")
def show(topic: str, partition: int, offset: int, config: Path | None, as_json: bool) -> None:
    """Show one dead letter whole: reason, original place, key, headers, value.

    The place is that of the letter, as `dlq list` prints it, or that of the rejected record in its
    event topic; then the whole dead-letter topic is read to find its newest letter.
    """
    kafka = load_settings(config).kafka
    place = Partition(topic, partition)
    if topic in letter_topics(kafka):
        record = read_record(kafka.client, kafka.bootstrap_servers, place, offset)
        letter = record and letter_of(record)
    elif topic in kafka.topics:
        letter = newest_letter_of(kafka, place, offset)
    else:
        known = ", ".join([*letter_topics(kafka), *kafka.topics])
        raise click.UsageError(f"{topic} is not a topic of this deployment: expected {known}")
    if letter is None:
        raise StreamerError(f"there is no dead letter at {topic} {partition} {offset}")
    if as_json:
        click.echo(json.dumps(letter_json(letter)))
    else:
        show_letter(letter)


@command.command()
@_options
@click.option(
    "--limit", type=click.IntRange(1), help="Redrive at most so many, in the order of the log."
)
@click.option("--dry-run", is_flag=True, help="Say what would be redriven, and send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def redrive(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401  one of every type
    """Send dead letters back to the topic and partition where they were rejected.

    Each with its original key, value, headers and time, once what made them fail is mended. Reads
    up to the present end: what fails again meanwhile waits for the next redrive. May be stopped
    and repeated at any moment: letters that are there are marked and left out, and one that is
    sent twice changes nothing. Exit 1 if a topic refuses some for good,
    or if it was stopped.
    """
    settings = load_settings(options["config"])
    survey = survey_letters(settings, options)
    n_waiting = survey.fates[Fate.WAITING]
    n_planned = n_waiting if options["limit"] is None else min(n_waiting, options["limit"])
    total, is_stopped = Outcome(), False
    if n_planned and not options["dry_run"]:
        if sys.stdin.isatty() and not options["yes"]:
            click.confirm(f"Redrive {n_planned:,} letters?", abort=True, err=True)
        total, is_stopped = _redrive(settings.kafka, survey, n_planned, options)
    counts = fates_json(survey.fates)
    answer = {
        **counts,
        "redriven_before": counts[Fate.REDRIVEN],
        "redriven": total.n_redriven,
        "left": n_waiting - total.n_redriven,
        "refused": total.refused.total(),
        "errors": dict(total.refused),
        "planned": n_planned,
        "stopped": is_stopped,
        "dry_run": options["dry_run"],
        "groups": survey_json(survey)["groups"],
    }
    click.echo(json.dumps(answer) if options["as_json"] else "\n".join(redrive_lines(answer)))
    if total.refused or is_stopped:
        context.exit(EXIT_FAILURE)


def _redrive(
    kafka: KafkaSection, survey: Survey, n_planned: int, options: dict[str, Any]
) -> tuple[Outcome, bool]:
    """Redrive in batches; return the sum and whether a signal stopped it."""
    topics = sorted({group.topic for group in survey.groups if group.fates[Fate.WAITING]})
    redriver = Redriver(kafka.client, kafka.bootstrap_servers, topics)
    records = read_log(
        kafka.client,
        kafka.bootstrap_servers,
        [topic + kafka.dead_letter_suffix for topic in topics],
    )
    letters = survey.waiting(records)
    total = Outcome()
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    is_silent = options["quiet"] or not console.is_terminal
    with (
        stop_flag() as stopped,
        Progress(TextColumn("redriving"), *columns, console=console, disable=is_silent) as progress,
    ):
        task = progress.add_task("", total=n_planned)
        while not stopped:
            # What a topic refuses does not count, or a limit would try the same ones for ever.
            n_left = n_planned - total.n_redriven
            batch = list(islice(letters, min(BATCH_LETTERS, n_left)))
            if not batch:
                break
            outcome = redriver.redrive(batch)
            total.n_redriven += outcome.n_redriven
            total.refused += outcome.refused
            progress.update(task, completed=total.n_redriven)
    return total, bool(stopped)
