"""Records of a log that has no Kafka around it: lines of a file.

A file tells no time of arrival. An event cannot be found to be ahead of its record then, and a
`forget` counts from its own event time, as in `streamer model train`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from streamer.errors import RejectedRecord
from streamer.events import LATEST_EVENT_TIME_MS, EventType, decode_event
from streamer.models.training_log import read_lines
from streamer.pipeline.records import Partition, Record

IN_A_FILE: Final = Partition("file", 0)
REPORT_EVERY: Final = 5_000


def records_of_values(values: Iterable[bytes]) -> Iterator[Record]:
    """Yield a record for each value of an event, in the same order."""
    for offset, value in enumerate(values):
        yield record_of_value(value, offset)


def record_of_value(value: bytes, offset: int) -> Record:
    """Return the record of an event's JSON."""
    return Record(IN_A_FILE, offset, _timestamp_ms(value), None, value)


def records_of_lines(
    path: Path, on_bytes: Callable[[int], None] = lambda _: None
) -> Iterator[Record]:
    """Yield a record for each line of a file, one event in JSON each; blank ones are left out.

    Args:
        path: The file.
        on_bytes: Told how much was read, after every few thousand lines.

    Raises:
        ModelError: The file cannot be read.
    """

    def lines() -> Iterator[bytes]:
        n_bytes = 0
        for count, (line, _) in enumerate(read_lines(path), 1):
            n_bytes += len(line) + 1
            if count % REPORT_EVERY == 0:
                on_bytes(n_bytes)
            yield line

    return records_of_values(lines())


def _timestamp_ms(value: bytes) -> int:
    """Return the latest time there is; of a `forget`, its event time."""
    if b"forget" not in value and b"\\u" not in value:  # a letter may be written as \u0066
        return LATEST_EVENT_TIME_MS
    try:
        event = decode_event(value, LATEST_EVENT_TIME_MS)
    except RejectedRecord:
        return LATEST_EVENT_TIME_MS
    return event.event_time_ms if event.type is EventType.FORGET else LATEST_EVENT_TIME_MS
