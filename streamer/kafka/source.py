"""Records from a consumer group: the source of the worker's loop.

Offsets are committed by the client in the background, and only those that were stored. Nothing here
commits synchronously: against a frozen broker that blocks for minutes and no signal is handled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Literal

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from streamer.errors import BrokerUnavailable
from streamer.kafka.client import (
    SILENT_LOGGER,
    broker_errors,
    client_settings,
    record_of,
    topic_partition,
)
from streamer.kafka.queries import QUERY_SECONDS, BrokerQueries
from streamer.pipeline.ports import GroupListener, Standing
from streamer.pipeline.records import Partition, Record

WAIT_SLICE_SECONDS: Final = 0.02
MAX_MESSAGES_PER_CALL: Final = 500
_FATAL: Final = KafkaError._FATAL  # noqa: SLF001  librdkafka's own code
_UNSUPPORTED: Final = KafkaError(KafkaError.UNSUPPORTED_VERSION).str()
"""What the text of a fatal error says when the broker is older than the group protocol."""


class KafkaSource:
    """A member of a consumer group, with the newest group protocol that the broker offers."""

    def __init__(
        self,
        client: Mapping[str, str],
        bootstrap_servers: str,
        group_id: str,
        topics: Sequence[str],
        protocol: Literal["auto", "consumer", "classic"],
    ) -> None:
        """Keep the settings; `subscribe` connects.

        Args:
            client: Settings of librdkafka, passed through.
            bootstrap_servers: host:port, comma-separated.
            group_id: The consumer group.
            topics: What to read.
            protocol: `auto` falls back to `classic` when the broker refuses `consumer`.
        """
        self._settings = client_settings(
            client,
            bootstrap_servers,
            {
                "group.id": group_id,
                "enable.auto.offset.store": False,
                "enable.auto.commit": True,
                "auto.commit.interval.ms": 1000,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 10,
                "fetch.queue.backoff.ms": 20,
                "queued.min.messages": 20_000,
                # Topics and partitions that appear later are found within this time.
                "topic.metadata.refresh.interval.ms": 5000,
            },
        )
        self._topics = list(topics)
        self._broker = BrokerQueries(client, bootstrap_servers, topics)
        self._protocol: Literal["consumer", "classic"] = (
            "classic" if protocol == "classic" else "consumer"
        )
        self._may_fall_back = protocol == "auto"
        self._consumer: Consumer | None = None
        self._listener: GroupListener | None = None
        self._owned: set[Partition] = set()
        self._backlog: list[Record] = []

    @property
    def owned(self) -> frozenset[Partition]:
        """The partitions that are ours now."""
        return frozenset(self._owned)

    @property
    def protocol(self) -> str:
        """The group protocol in use."""
        return self._protocol

    @property
    def missing_topics(self) -> frozenset[str]:
        """Event topics that do not exist, as the broker said last; from any thread."""
        return self._broker.missing

    def assume_missing(self, topics: frozenset[str]) -> None:
        """Take these topics for missing until the broker says otherwise."""
        self._broker.missing = topics

    def subscribe(self, listener: GroupListener) -> None:
        """Join the group; partitions come later, through `listener`."""
        self._listener = listener
        self._open()

    def poll(self, max_records: int, timeout_seconds: float) -> list[Record]:
        """Return what has arrived; waits only while there is nothing."""
        with broker_errors("consuming"):
            if not self._backlog:
                self._take(max_records)
            if not self._backlog:
                self._wait_for_some(max_records, timeout_seconds)
        records, self._backlog = self._backlog[:max_records], self._backlog[max_records:]
        return records

    def _wait_for_some(self, max_records: int, timeout_seconds: float) -> None:
        """Wait for a record, or for a change of the assignment, which the loop must admit.

        consume() would wait for a whole batch; poll() returns with the first record, but goes on
        waiting after a rebalance, so it waits in slices.
        """
        owned = self.owned
        until = time.monotonic() + timeout_seconds
        while (left := until - time.monotonic()) > 0 and self.owned == owned:
            first = self._live.poll(min(left, WAIT_SLICE_SECONDS))
            if first is not None:
                self._keep([first])  # before anything that may fail: the client is past it
                self._take(max_records - 1)
                return

    def _take(self, max_records: int) -> None:
        """Take what has arrived already, some hundred a call: more would be dearer each."""
        while max_records > 0:
            messages = self._live.consume(min(max_records, MAX_MESSAGES_PER_CALL), 0)
            self._keep(messages)
            if len(messages) < MAX_MESSAGES_PER_CALL:
                return
            max_records -= len(messages)

    def wait(self, timeout_seconds: float) -> None:
        """Stay a member for a while; a record that was on its way is kept for the next poll."""
        with broker_errors("staying in the group"):
            message = self._live.poll(timeout_seconds)
        if message is not None:
            self._keep([message])

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Deliver nothing from these until they are resumed. A new partition is paused too."""
        mine = [topic_partition(partition) for partition in partitions if partition in self._owned]
        if mine:
            with broker_errors("pausing"):
                self._live.pause(mine)

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Deliver from these again."""
        mine = [topic_partition(partition) for partition in partitions if partition in self._owned]
        if mine:
            with broker_errors("resuming"):
                self._live.resume(mine)

    def standings(self, partitions: Sequence[Partition]) -> dict[Partition, Standing]:
        """Ask where partitions stand; one of which the broker knows nothing now is left out."""
        earliest = self._broker.ask_earliest(partitions)
        with broker_errors("reading committed offsets"):
            found = self._live.committed(
                [topic_partition(partition) for partition in partitions], timeout=QUERY_SECONDS
            )
        committed = {
            Partition(tp.topic, tp.partition): tp.offset if tp.offset >= 0 else None
            for tp in found
            if tp.error is None
        }
        return {
            partition: Standing(committed[partition], offset)
            for partition, offset in earliest().items()
            if partition in committed
        }

    def topic_ids(self) -> Mapping[str, str]:
        """Return each topic's id as the broker told it last; asks again in the background."""
        return self._broker.topic_ids()

    def seek(self, partition: Partition, next_offset: int | None) -> None:
        """Go on from `next_offset`, None for the earliest."""
        offset = OFFSET_BEGINNING if next_offset is None else next_offset
        with broker_errors("seeking"):
            self._live.seek(topic_partition(partition, offset))
        self._drop_backlog({partition})

    def lower_commit(self, partition: Partition, next_offset: int) -> None:
        """Commit an offset below the committed one, without waiting.

        The background commit never lowers an offset, so this one is explicit; and the stored
        offset is lowered with it, or the next background commit would raise it again.
        """
        lowered = [topic_partition(partition, next_offset)]
        with broker_errors("committing a lower offset"):
            self._live.store_offsets(offsets=lowered)
            self._live.commit(offsets=lowered, asynchronous=True)

    def store_offsets(self, next_offsets: Mapping[Partition, int]) -> None:
        """Let the background commit have these; partitions that are not ours are dropped."""
        for partition, next_offset in next_offsets.items():
            if partition not in self._owned:
                continue
            try:
                self._live.store_offsets(offsets=[topic_partition(partition, next_offset)])
            except KafkaException as exception:
                # Erroneous state: it was taken from us a moment ago. Its new owner repeats the
                # records, which changes nothing.
                if exception.args[0].code() != KafkaError._STATE:  # noqa: SLF001
                    raise BrokerUnavailable(f"storing an offset: {exception}") from exception

    def close(self) -> None:
        """Commit what is stored and leave the group; may take as long as the broker does."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    @property
    def _live(self) -> Consumer:
        assert self._consumer is not None, "subscribe() comes first"
        return self._consumer

    def _open(self) -> None:
        group = (
            {"group.protocol": "consumer", "group.remote.assignor": "range"}
            if self._protocol == "consumer"
            else {
                "group.protocol": "classic",
                "partition.assignment.strategy": "range",  # play and browse of a user together
                "session.timeout.ms": 10_000,  # a killed worker's partitions move after this
            }
        )
        with broker_errors("creating a consumer"):
            self._consumer = Consumer(
                {**group, **self._settings, "error_cb": self._on_error}, logger=SILENT_LOGGER
            )
            self._consumer.subscribe(
                self._topics,
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )

    def _keep(self, messages: Sequence[Message]) -> None:
        """Take what the client has delivered; it will not deliver it again."""
        for message in messages:
            error = message.error()
            if error is not None:
                self._on_error(error)
            else:
                self._backlog.append(record_of(message))

    def _drop_backlog(self, partitions: set[Partition]) -> None:
        self._backlog = [record for record in self._backlog if record.partition not in partitions]

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        """Take partitions over.

        Nothing may be raised from here: the client would throw away the records of the call that
        it is in, and go on behind them.
        """
        try:
            if self._protocol == "consumer":
                consumer.incremental_assign(assigned)
            else:
                consumer.assign(assigned)
        except KafkaException as exception:
            code = exception.args[0].name()
            self._tell(lambda listener: listener.on_error(code, is_fatal=True))
            return
        partitions = [Partition(tp.topic, tp.partition) for tp in assigned]
        self._owned |= set(partitions)
        # Until the marks have been read: Redis may have forgotten. If it fails, records come that
        # vouch for nothing, until the partition is admitted.
        with suppress(BrokerUnavailable):
            self.pause(partitions)
        self._tell(lambda listener: listener.on_assigned(partitions))

    def _on_revoke(self, _: Consumer, revoked: list[TopicPartition]) -> None:
        partitions = [Partition(tp.topic, tp.partition) for tp in revoked]
        self._tell(lambda listener: listener.on_revoked(partitions))
        self._forget(partitions)

    def _on_lost(self, _: Consumer, lost: list[TopicPartition]) -> None:
        partitions = [Partition(tp.topic, tp.partition) for tp in lost]
        self._forget(partitions)
        self._tell(lambda listener: listener.on_lost(partitions))

    def _forget(self, partitions: Sequence[Partition]) -> None:
        self._owned -= set(partitions)
        self._drop_backlog(set(partitions))

    def _on_error(self, error: KafkaError) -> None:
        # A fatal error from the queue is marked by its code alone.
        is_fatal = error.fatal() or error.code() == _FATAL
        is_too_new = is_fatal and _UNSUPPORTED in error.str()
        if is_too_new and self._protocol == "consumer" and self._may_fall_back:
            # The broker is older than the protocol; nothing was assigned yet.
            self._protocol = "classic"
            self.close()
            self._open()
            return
        self._tell(lambda listener: listener.on_error(error.name(), is_fatal=is_fatal))

    def _tell(self, call: Callable[[GroupListener], None]) -> None:
        if self._listener is not None:
            call(self._listener)
