"""Which offsets a topic has at a time: for a rewind by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # it is public all the same

from streamer.errors import BrokerUnavailable
from streamer.kafka.client import broker_errors, topic_partition
from streamer.pipeline.records import Partition

TIMEOUT_SECONDS: Final = 8.0
EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # confluent-kafka has none
LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class OffsetsAt(NamedTuple):
    """Offsets of one partition.

    Attributes:
        earliest: The first that the topic still has.
        at: The first whose record is of the time that was asked for, or later; `end` if none is.
        end: After the last.
    """

    earliest: int
    at: int
    end: int


def offsets_at(
    admin: AdminClient, topics: Sequence[str], time_ms: int
) -> dict[Partition, OffsetsAt]:
    """Return the offsets of every partition of the topics at a time, epoch milliseconds.

    Raises:
        BrokerUnavailable: No answer within 8 s, or a topic or a partition's leader is missing.
    """
    partitions = _partitions(admin, topics)
    at = OffsetSpec.for_timestamp(time_ms)
    found = [_ask(admin, partitions, spec) for spec in (EARLIEST, at, LATEST)]
    return {
        partition: OffsetsAt(earliest, at if at >= 0 else end, end)
        for partition, earliest, at, end in zip(partitions, *found, strict=True)
    }


def _partitions(admin: AdminClient, topics: Sequence[str]) -> list[Partition]:
    with broker_errors("listing topics"):
        listed = admin.list_topics(timeout=TIMEOUT_SECONDS).topics
    for topic in topics:
        if topic not in listed:
            raise BrokerUnavailable(f"topic {topic} does not exist", kind="missing_topic")
    return [Partition(topic, number) for topic in topics for number in listed[topic].partitions]


def _ask(admin: AdminClient, partitions: Sequence[Partition], spec: OffsetSpec) -> list[int]:
    wanted: dict[TopicPartition, OffsetSpec] = {topic_partition(p): spec for p in partitions}
    with broker_errors("asking for offsets"):
        answers = admin.list_offsets(wanted, request_timeout=TIMEOUT_SECONDS)
        return [int(answers[tp].result(TIMEOUT_SECONDS).offset) for tp in wanted]
