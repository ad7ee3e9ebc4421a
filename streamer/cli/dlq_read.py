"""Reading the dead-letter topics for the verbs that do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from streamer.config import KafkaSection, Settings
from streamer.kafka.letter_survey import LetterFilter, Survey
from streamer.kafka.letters import Letter, letter_of
from streamer.kafka.log_reader import read_log
from streamer.pipeline.records import Partition

DAY_MS: Final = 86_400_000


def survey_letters(settings: Settings, options: Mapping[str, Any], max_samples: int = 0) -> Survey:
    """Read the dead-letter topics once.

    Args:
        settings: Of the deployment.
        options: `topics`, `reasons`, `since_ms`, `until_ms` and `quiet` of the command line.
        max_samples: Letters to keep of each group.

    Raises:
        UsageError: A topic is not one of the deployment's.
        BrokerUnavailable: A dead-letter topic is missing, or there is no answer.
    """
    kafka = settings.kafka
    topics = options["topics"] or kafka.topics
    if unknown := sorted(set(topics) - set(kafka.topics)):
        raise click.UsageError(
            f"{unknown[0]} is not an event topic of this deployment: "
            f"expected {' or '.join(kafka.topics)}"
        )
    survey = Survey(
        kafka.dead_letter_suffix,
        LetterFilter(
            frozenset(topics),
            frozenset(options["reasons"]),
            options["since_ms"] or 0,
            options["until_ms"],
        ),
        expired_before_ms=int(time.time() * 1000 - settings.redis.tombstone_days * DAY_MS),
        max_samples=max_samples,
    )
    names = [topic + kafka.dead_letter_suffix for topic in kafka.topics if topic in topics]
    with reading_progress(is_silent=options["quiet"]) as on_progress:
        survey.take(read_log(kafka.client, kafka.bootstrap_servers, names), on_progress)
    return survey


@contextmanager
def reading_progress(*, is_silent: bool) -> Iterator[Callable[[int], None]]:
    """Show how many dead letters were read, on a terminal."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.fields[n]:,} letters read"), TimeElapsedColumn())
    is_silent = is_silent or not console.is_terminal
    with Progress(*columns, console=console, disable=is_silent, transient=True) as progress:
        task = progress.add_task("", total=None, n=0)
        yield lambda n_records: progress.update(task, n=n_records)


def newest_letter_of(kafka: KafkaSection, place: Partition, offset: int) -> Letter | None:
    """Return the newest letter of a rejected record; a crash may have left two."""
    found = None
    name = place.topic + kafka.dead_letter_suffix
    for record in read_log(kafka.client, kafka.bootstrap_servers, [name]):
        letter = letter_of(record)
        if letter is not None and (letter.place, letter.offset) == (place, offset):
            found = letter
    return found


def letter_topics(kafka: KafkaSection) -> list[str]:
    """Return the names of the dead-letter topics."""
    return [topic + kafka.dead_letter_suffix for topic in kafka.topics]
