"""A stretch of topics between two times, read from outside: for a replay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from streamer.kafka.log_reader import KafkaLog
from streamer.kafka.offsets import OffsetsAt, offsets_at
from streamer.kafka.topics import open_admin
from streamer.pipeline.records import Partition, Record


@dataclass(frozen=True, slots=True)
class Stretch:
    """Offsets to read.

    Attributes:
        start: The first of each partition.
        until: The one after the last.
        cut: Partitions that do not reach back to the beginning that was asked for, as far as they
            can tell, and their earliest offsets.
    """

    start: Mapping[Partition, int]
    until: Mapping[Partition, int]
    cut: Mapping[Partition, int]

    @property
    def n_offsets(self) -> int:
        """How many records there are at most; a transaction's marker takes up an offset too."""
        return sum(max(0, end - self.start[p]) for p, end in self.until.items())


@dataclass(frozen=True, slots=True)
class Topics:
    """Where a log is kept.

    Attributes:
        client: Settings of librdkafka, passed through.
        bootstrap_servers: host:port, comma-separated.
        names: Of the topics.
    """

    client: Mapping[str, str]
    bootstrap_servers: str
    names: Sequence[str]

    def between(self, since_ms: int | None, until_ms: int | None) -> Stretch:
        """Return what was appended at or after a time and before another, by Kafka's index.

        Args:
            since_ms: Epoch milliseconds; None for the earliest record.
            until_ms: Likewise; None for the present end.

        Raises:
            BrokerUnavailable: No answer, or a topic is missing.
        """
        admin = open_admin({**self.client, "bootstrap.servers": self.bootstrap_servers})
        since = offsets_at(admin, self.names, since_ms or 0)
        start = {p: each.at if since_ms is not None else each.earliest for p, each in since.items()}
        until = {p: each.end for p, each in since.items()}
        if until_ms is not None:
            until = {p: each.at for p, each in offsets_at(admin, self.names, until_ms).items()}
        cut = {p: each.earliest for p, each in since.items() if _is_cut(each)}
        return Stretch(start, until, cut)

    def read(self, stretch: Stretch) -> Iterator[Record]:
        """Yield the records, in order by partition; nothing is joined, committed or stored.

        Raises:
            BrokerUnavailable: The broker stopped answering.
        """
        with closing(KafkaLog(self.client, self.bootstrap_servers, self.names)) as log:
            yield from log.read(stretch.start, stretch.until)


def _is_cut(offsets: OffsetsAt) -> bool:
    """Say whether records of the time that was asked for may be gone."""
    return offsets.at <= offsets.earliest and offsets.earliest > 0
