"""Where `streamer replay` reads: a file, or topics between two times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from streamer.config import Settings
from streamer.evaluation.trial.court import OnProgress
from streamer.evaluation.trial.notebook import records_of_file
from streamer.kafka.stretch import Topics
from streamer.pipeline.records import Record

KAFKA: Final = "kafka:"
REPORT_EVERY: Final = 1_000


@dataclass(frozen=True, slots=True)
class Source:
    """A log.

    Attributes:
        log: A path, or `kafka:` with or without names of topics.
        since_ms: Of `kafka:` alone; epoch milliseconds, None for the beginning.
        until_ms: Likewise; None for the present end.
    """

    log: str
    since_ms: int | None
    until_ms: int | None

    @property
    def is_kafka(self) -> bool:
        """Whether the configuration is needed to read it."""
        return self.log.startswith(KAFKA)

    def ensure_sound(self) -> None:
        """Refuse what cannot be read.

        Raises:
            BadParameter: There is no such file, or times that do not fit.
        """
        if not self.is_kafka:
            if not Path(self.log).is_file():
                raise click.BadParameter(f"{self.log} is not a file, and not {KAFKA}")
            if (self.since_ms, self.until_ms) != (None, None):
                raise click.BadParameter(f"--since and --until are for {KAFKA}, not for a file")
        elif self.until_ms is not None and self.until_ms <= (self.since_ms or 0):
            raise click.BadParameter("--until is not after --since")

    def records(self, settings: Settings | None, show: OnProgress) -> Iterator[Record]:
        """Yield the records."""
        if not self.is_kafka:
            yield from records_of_file(Path(self.log), show)
            return
        assert settings is not None, "loaded for every source that is Kafka"
        kafka = settings.kafka
        names = self.log.removeprefix(KAFKA)
        topics = Topics(
            kafka.client, kafka.bootstrap_servers, names.split(",") if names else kafka.topics
        )
        stretch = topics.between(self.since_ms, self.until_ms)
        for partition, earliest in stretch.cut.items():
            click.echo(
                f"streamer: {partition.topic}/{partition.number} begins at offset {earliest}: "
                "older records are gone",
                err=True,
            )
        for count, record in enumerate(topics.read(stretch), 1):
            if count % REPORT_EVERY == 0:
                show("reading", count, stretch.n_offsets)
            yield record
