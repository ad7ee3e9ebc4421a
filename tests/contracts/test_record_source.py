"""What every source of records does, held against the tests' fake and a real Kafka."""

import time

import pytest
from confluent_kafka import Producer
from unit.test_runtime_fakes import FakeSource

from streamer.errors import BrokerUnavailable
from streamer.kafka.source import KafkaSource
from streamer.kafka.topics import create_topics, open_admin, topic_specs
from streamer.pipeline.ports import Standing
from streamer.pipeline.records import Partition

LIMIT_SECONDS = 20.0


class Listener:
    """Remembers what the group said; resumes what is assigned, unless told otherwise."""

    def __init__(self):
        self.assigned, self.revoked, self.lost, self.errors = [], [], [], []

    def on_assigned(self, partitions):
        self.assigned += partitions

    def on_revoked(self, partitions):
        self.revoked += partitions

    def on_lost(self, partitions):
        self.lost += partitions

    def on_error(self, code, *, is_fatal):
        self.errors.append((code, is_fatal))


class Bench:
    """A topic with two partitions of five records each, and sources that read it.

    `open` returns a source that has joined the group, `append` adds a record.
    """

    def join(self):
        """Return a source that owns both partitions, still paused, and its listener."""
        source, listener = self.open()
        deadline = time.monotonic() + LIMIT_SECONDS
        while len(source.owned) < 2:
            assert source.poll(100, 0.05) == [], "a new partition is paused"
            assert time.monotonic() < deadline
        assert sorted(listener.assigned) == self.partitions
        return source, listener

    def read(self, source, n_records, max_records=100):
        """Return the next `n_records` records as [(partition number, offset), ...]."""
        records, deadline = [], time.monotonic() + LIMIT_SECONDS
        while len(records) < n_records:
            batch = source.poll(max_records, 0.05)
            assert len(batch) <= max_records
            records += batch
            assert time.monotonic() < deadline, records
        return [(record.partition.number, record.offset) for record in records]

    def seek(self, source, partition, next_offset):
        """Seek; repeat it while the client has only begun to fetch, as the port allows."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            try:
                source.seek(partition, next_offset)
            except BrokerUnavailable:
                assert time.monotonic() < deadline
                source.wait(0.02)
            else:
                return

    def committed(self, source):
        """Return the committed offsets."""
        standings = source.standings(self.partitions)
        return {partition: standings[partition].committed for partition in self.partitions}

    def nothing_comes(self, source):
        return all(source.poll(100, 0.02) == [] for _ in range(10))


def in_order(found, number):
    return [offset for partition, offset in found if partition == number]


class RecordSourceContract:
    """`bench` is a `Bench`."""

    def test_new_partitions_are_told_and_deliver_nothing_until_they_are_resumed(self, bench):
        source, _ = bench.join()
        assert bench.nothing_comes(source)
        source.resume(bench.partitions)
        found = bench.read(source, 10, max_records=3)
        for number in (0, 1):
            assert in_order(found, number) == [0, 1, 2, 3, 4]
        source.close()

    def test_a_paused_partition_goes_on_where_it_stopped(self, bench):
        source, _ = bench.join()
        source.resume(bench.partitions)
        found = bench.read(source, 3, max_records=1)
        source.pause(bench.partitions)
        for _ in range(5):
            source.wait(0.02)
        source.resume(bench.partitions)
        found += bench.read(source, 7)
        for number in (0, 1):
            assert in_order(found, number) == [0, 1, 2, 3, 4]
        source.close()

    def test_records_that_come_while_one_waits_are_kept_in_order(self, bench):
        source, _ = bench.join()
        source.resume(bench.partitions)
        for _ in range(20):
            source.wait(0.05)
        found = bench.read(source, 10)
        for number in (0, 1):
            assert in_order(found, number) == [0, 1, 2, 3, 4]
        source.close()

    def test_a_seek_goes_back_or_ahead_and_drops_what_was_on_its_way(self, bench):
        source, _ = bench.join()
        first, second = bench.partitions
        bench.seek(source, first, 3)
        bench.seek(source, second, None)
        source.resume(bench.partitions)
        source.wait(0.5)
        found = bench.read(source, 7)
        assert in_order(found, 0) == [3, 4]
        assert in_order(found, 1) == [0, 1, 2, 3, 4]
        bench.seek(source, first, 1)
        assert bench.read(source, 4) == [(0, 1), (0, 2), (0, 3), (0, 4)]
        source.close()

    def test_offsets_are_committed_only_when_they_were_stored(self, bench):
        source, _ = bench.join()
        first, second = bench.partitions
        nowhere = Partition(first.topic, 99)
        assert source.standings([first, nowhere]) == {first: Standing(None, 0)}
        assert bench.committed(source) == {first: None, second: None}
        source.resume(bench.partitions)
        bench.read(source, 10)
        source.store_offsets({first: 4, nowhere: 7})
        source.close()
        source, _ = bench.join()
        assert bench.committed(source) == {first: 4, second: None}
        source.resume(bench.partitions)
        found = bench.read(source, 6)
        assert in_order(found, 0) == [4]
        assert in_order(found, 1) == [0, 1, 2, 3, 4]
        source.close()

    def test_a_commit_can_be_lowered_and_grows_again_from_there(self, bench):
        source, _ = bench.join()
        first, second = bench.partitions
        source.resume(bench.partitions)
        bench.read(source, 10)
        source.store_offsets({first: 5, second: 5})
        source.close()
        source, _ = bench.join()
        assert source.standings([first]) == {first: Standing(5, 0)}
        source.lower_commit(first, 2)
        bench.seek(source, first, 2)
        source.resume(bench.partitions)
        assert bench.read(source, 3) == [(0, 2), (0, 3), (0, 4)]
        source.store_offsets({first: 3})
        source.close()
        source, _ = bench.join()
        assert bench.committed(source) == {first: 3, second: 5}
        source.close()

    def test_a_topic_has_an_id_of_which_one_hears_without_waiting(self, bench):
        source, _ = bench.join()
        topic = bench.partitions[0].topic
        deadline = time.monotonic() + LIMIT_SECONDS
        while not (told := dict(source.topic_ids())):
            assert time.monotonic() < deadline
            source.wait(0.02)
        assert told.keys() == {topic}
        assert 16 <= len(told[topic]) <= 64
        source.close()

    def test_closing_twice_is_closing_once(self, bench):
        source, _ = bench.join()
        source.close()
        source.close()


class FakeBench(Bench):
    partitions = [Partition("play-events", 0), Partition("play-events", 1)]  # noqa: RUF012

    def __init__(self):
        self._committed = {}

    def open(self):
        source, listener = FakeSource(), Listener()
        source.committed_offsets = self._committed
        source.ids = {"play-events": "dyaXjV-zRQqJqxzkBfDVWA"}
        source.leaderless = {Partition("play-events", 99)}
        for partition in self.partitions:
            source.append(partition, *[b"value"] * 5)
        source.subscribe(listener)
        source.scheduled.append(lambda: source.assign(*self.partitions))
        return source, listener


class TestFakeSource(RecordSourceContract):
    @pytest.fixture
    def bench(self):
        return FakeBench()


class KafkaBench(Bench):
    def __init__(self, bootstrap_servers, name, protocol):
        self._bootstrap_servers, self._name, self._protocol = bootstrap_servers, name, protocol
        self.partitions = [Partition(name, 0), Partition(name, 1)]
        admin = open_admin({"bootstrap.servers": bootstrap_servers})
        specs = topic_specs([name], ".dlq", partitions=2, replication=1, retention_days=7)
        create_topics(admin, specs[:1])
        producer = Producer({"bootstrap.servers": bootstrap_servers})
        for partition in self.partitions:
            for _ in range(5):
                producer.produce(name, b"value", partition=partition.number)
        assert producer.flush(20) == 0
        self._sources = []

    def open(self):
        listener = Listener()
        source = KafkaSource({}, self._bootstrap_servers, self._name, [self._name], self._protocol)
        self._sources.append(source)
        source.subscribe(listener)
        return source, listener

    def close(self):
        for source in self._sources:
            source.close()


class TestKafkaSource(RecordSourceContract):
    @pytest.fixture(params=["consumer", "classic"])
    def bench(self, bootstrap_servers, unique_name, request):
        bench = KafkaBench(bootstrap_servers, unique_name, request.param)
        yield bench
        bench.close()
