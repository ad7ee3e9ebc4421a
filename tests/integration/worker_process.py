"""A deployment under test: topics, a Redis, and `streamer worker` processes of its own.

Workers are watched from outside only: their log, their port, Kafka and Redis. Every worker that a
`Deployment` started has ended when the deployment closes, and none may have named a user.
"""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

import oracle
import orjson
import redis
from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    ConsumerGroupTopicPartitions,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec
from waiting import eventually

from streamer.dev.faults import FAULTS
from streamer.errors import BrokerUnavailable
from streamer.factors import DEFAULT_LEARNER
from streamer.host.tether import tethered
from streamer.kafka.log_reader import KafkaLog, read_log
from streamer.kafka.topics import create_topics, open_admin, topic_specs
from streamer.stores import connect, read_many

STREAMER = Path(sys.executable).with_name("streamer")
PROGRAM = [str(STREAMER)]
SECRET = "u-7f3a9c"  # noqa: S105  part of every user id of these tests, and of no output
BASE_MS = 1_763_900_000_000
SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Sent(NamedTuple):
    """One record to produce; `topic` is "play" or "browse"."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple = ()


class Produced(NamedTuple):
    """One record that the broker has: (topic, partition), offset, the broker's time, value."""

    place: tuple[str, int]
    offset: int
    time_ms: int
    value: bytes | None


def user(number):
    return f"{SECRET}-{number}"


def event(event_type="play_stop", who=1, item="title-1", time_ms=BASE_MS, **more):
    fields = {"type": event_type, "user_id": user(who), "event_time": time_ms, "item_id": item}
    if event_type == "forget":
        del fields["item_id"]
    if event_type in oracle.PLAYED:
        fields |= {"watched_s": 3000, "duration_s": 3000}
    return orjson.dumps(fields | more)


def sent(topic, who, value, **more):
    return Sent(topic, user(who).encode(), value, **more)


def some_traffic(seed, n_events, n_users=40, bad_share=0.0):
    """Return events of all types but `forget`: late ones, duplicates, some without a key."""
    random = Random(seed)
    types = [event_type for event_type in oracle.TYPES if event_type != "forget"]
    records = []
    for _ in range(n_events):
        who = random.randrange(n_users)
        topic = random.choice(["play", "browse"])
        time_ms = BASE_MS + random.randrange(3_600_000)
        if random.random() < bad_share:
            value = random.choice(FAULTS).make(user(who), time_ms)
        elif records and random.random() < 0.05:
            records.append(random.choice(records))
            continue
        else:
            more = {"watched_s": random.choice([0, 20, 600, 3000])}
            item = f"title-{random.randrange(60)}"
            value = event(random.choice(types), who, item, time_ms, **more)
        key = None if random.random() < 0.1 else user(who).encode()
        records.append(Sent(topic, key, value))
    return records


def environment_of(settings):
    """Return this process's environment, with these settings and no others."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("STREAMER__")
    }
    for name, value in settings.items():
        environment["STREAMER__" + name.replace(".", "__").upper()] = str(value)
    return environment


class WorkerProcess:
    """One `streamer worker`. Its log goes to a file; 0 as the metrics port takes a free one."""

    def __init__(self, folder, settings, *arguments):
        self.log_path = folder / "worker.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                tethered([*PROGRAM, "worker", *arguments]),
                cwd=folder,
                env=environment_of(settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._port = int(settings["metrics.port"])
        self.seconds = None
        """How long it lived; None while it does."""
        self.n_tracebacks = 0
        """How many it should print."""
        threading.Thread(target=self._watch, args=(time.monotonic(),), daemon=True).start()

    def _watch(self, started):
        self.process.wait()
        self.seconds = time.monotonic() - started

    # what it says

    @property
    def output(self):
        return self.log_path.read_text()

    def said(self, name):
        """Return the log entries of one event."""
        lines = [line for line in self.output.splitlines() if line.startswith("{")]
        return [entry for line in lines if (entry := json.loads(line))["event"] == name]

    @property
    def port(self):
        if not self._port:
            self._port = eventually(self._said_port, 120)
        return self._port

    def _said_port(self):
        assert self.process.poll() is None, self.output
        started = self.said("worker_started")
        return started and started[0]["metrics_port"]

    def get(self, path):
        """Return status and body; None while nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except OSError:
            return None
        finally:
            connection.close()

    def status(self, path):
        answer = self.get(path)
        return answer and answer[0]

    def scrape(self):
        """Return every sample as {(name, ((label, value), ...)): number}."""
        _, body = eventually(self._metrics, 20)
        samples = {}
        for line in body.splitlines():
            if line.startswith("#"):
                continue
            name, labels, number = SAMPLE.fullmatch(line).groups()
            samples[name, tuple(sorted(LABEL.findall(labels or "")))] = float(number)
        return samples

    def _metrics(self):
        """Return the answer; on a busy machine it may be late, but it must come."""
        assert self.process.poll() is None, self.output
        return self.get("/metrics")

    def total(self, name, **labels):
        """Return the sum of a metric over all series that have these labels; 0 without any."""
        wanted = set(labels.items())
        return sum(
            number
            for (sample, its_labels), number in self.scrape().items()
            if sample == f"streamer_{name}" and wanted <= set(its_labels)
        )

    def counts(self):
        """Return consumed, applied, dead-lettered and abandoned, from one scrape."""
        totals = dict.fromkeys(
            ("records_consumed", "events_applied", "records_dead_lettered", "records_abandoned"), 0
        )
        for (name, _), number in self.scrape().items():
            short = name.removeprefix("streamer_").removesuffix("_total")
            if short in totals:
                totals[short] += int(number)
        return tuple(totals.values())

    def owns(self, n_partitions):
        return self.total("partitions_assigned") == n_partitions

    def reads(self, n_partitions):
        """Whether it has admitted so many partitions, beyond owning them."""
        gauge = "streamer_partition_next_offset"
        return sum(name == gauge for name, _ in self.scrape()) == n_partitions

    def next_offsets(self):
        """Return what it will apply next, by (topic, partition)."""
        return {
            (labels["topic"], int(labels["partition"])): int(number)
            for (name, pairs), number in self.scrape().items()
            if name == "streamer_partition_next_offset"
            for labels in [dict(pairs)]
        }

    # what is done to it

    def wait(self, timeout_seconds):
        """Return its exit code."""
        return self.process.wait(timeout_seconds)

    def terminate(self, timeout_seconds=20):
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout_seconds)

    def kill(self):
        self.process.kill()
        self.process.wait(10)


class Deployment:
    """Two event topics, a group, a Redis, and what was produced."""

    def __init__(self, bootstrap_servers, redis_url, name, folder):
        self.bootstrap_servers, self.redis_url, self.name = bootstrap_servers, redis_url, name
        self.folder = folder
        self.models = folder / "models"
        self.learner = DEFAULT_LEARNER
        self.topics = {"play": f"{name}-play", "browse": f"{name}-browse"}
        self.redis = (
            connect(redis_url, timeout_seconds=10)
            if "+cluster" in redis_url
            else redis.Redis.from_url(redis_url, socket_timeout=10)
        )
        self.admin = open_admin({"bootstrap.servers": bootstrap_servers})
        self.workers = []
        self.produced = []
        self._producer = None

    def close(self):
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()
        self.redis.close()
        for worker in self.workers:
            assert SECRET not in worker.output, "a worker has named a user"
            assert worker.output.count("Traceback") == worker.n_tracebacks, worker.output

    # Kafka

    def create_topics(self, partitions=2, replication=1, timestamp_type="LogAppendTime"):
        specs = topic_specs(
            list(self.topics.values()),
            ".dlq",
            partitions=partitions,
            replication=replication,
            retention_days=7,
        )
        for spec in specs[:2]:
            spec.settings["message.timestamp.type"] = timestamp_type
        eventually(lambda: self._created(specs), 60)  # a broker may just have been frozen

    def _created(self, specs):
        try:
            return create_topics(self.admin, specs)
        except BrokerUnavailable:
            return None

    def topic_ids(self):
        """Return the ids of the event topics, which a topic that is made anew does not keep."""
        names = TopicCollection(list(self.topics.values()))
        answers = self.admin.describe_topics(names).values()
        return [str(answer.result(10).topic_id) for answer in answers]

    def produce(self, records):
        """Write records with a plain producer, and return when the broker has them."""
        if self._producer is None:
            self._producer = Producer(
                {"bootstrap.servers": self.bootstrap_servers, "linger.ms": 5, "acks": "all"}
            )
        for record in records:
            self._producer.produce(
                self.topics[record.topic],
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                on_delivery=self._on_delivery,
            )
        assert self._producer.flush(30) == 0

    def _on_delivery(self, error, message):
        assert error is None, error
        kind, time_ms = message.timestamp()
        assert kind == TIMESTAMP_LOG_APPEND_TIME
        place = message.topic(), message.partition()
        self.produced.append(Produced(place, message.offset(), time_ms, message.value()))

    @property
    def n_sent(self):
        return len(self.produced)

    def log(self):
        """Return every record of both topics, as Kafka has them now."""
        return list(read_log({}, self.bootstrap_servers, list(self.topics.values())))

    def dead_letters(self):
        letters = [f"{topic}.dlq" for topic in self.topics.values()]
        return list(read_log({}, self.bootstrap_servers, letters))

    def ends(self):
        """Return the offset after the last produced record, of every partition that has one."""
        ends = {}
        for record in self.produced:
            ends[record.place] = max(ends.get(record.place, 0), record.offset + 1)
        return ends

    def end_offsets(self, topic):
        """Return the offset after the last record of each partition, as the broker tells it."""
        description = self.admin.describe_topics(TopicCollection([topic]))[topic].result(10)
        latest = {
            TopicPartition(topic, partition.id): OffsetSpec.latest()
            for partition in description.partitions
        }
        answers = self.admin.list_offsets(latest)
        return {tp.partition: future.result(10).offset for tp, future in answers.items()}

    def log_bounds(self):
        """Return the offset after the last record of every partition that has one."""
        bounds = KafkaLog({}, self.bootstrap_servers, list(self.topics.values())).bounds()
        return {tuple(place): bound.high for place, bound in bounds.items() if bound.high}

    def committed(self):
        """Return the group's committed offsets by (topic, partition), where it has some."""
        request = ConsumerGroupTopicPartitions(self.name)
        try:
            answer = self.admin.list_consumer_group_offsets([request])[self.name].result(10)
        except KafkaException:
            return None  # a broker that was just restarted or frozen; ask again
        return {
            (tp.topic, tp.partition): tp.offset for tp in answer.topic_partitions if tp.offset >= 0
        }

    # workers

    def settings(self):
        return {
            "kafka.bootstrap_servers": self.bootstrap_servers,
            "kafka.group_id": self.name,
            "kafka.play_topic": self.topics["play"],
            "kafka.browse_topic": self.topics["browse"],
            "redis.url": self.redis_url,
            "models.directory": self.models,
            "models.learner": self.learner,
            "metrics.port": 0,
            "log.format": "json",
            # Five times as often as by default, so that tests wait less for them.
            "worker.checkpoint_interval_seconds": 0.2,
            "kafka.client.auto_commit_interval_ms": 200,
        }

    def environment(self):
        """Return the environment in which every verb works on this deployment."""
        return environment_of(self.settings())

    def start_worker(self, *arguments, **settings):
        """Start a worker; a setting is named `section__name`."""
        folder = self.folder / f"worker{len(self.workers)}"
        folder.mkdir()
        more = {name.replace("__", "."): value for name, value in settings.items()}
        self.workers.append(WorkerProcess(folder, self.settings() | more, *arguments))
        return self.workers[-1]

    # what should be, and what is

    def expected_histories(self):
        """Return what the oracle makes of everything that was produced, by key."""
        verdicts = (oracle.verdict(record.value, record.time_ms) for record in self.produced)
        states = oracle.replay(verdict for verdict in verdicts if verdict)
        return {
            oracle.history_key(who): state.to_bytes()
            for who, state in states.items()
            if state != oracle.State()
        }

    def histories(self):
        return self.values("st:h:*")

    def values(self, pattern):
        keys = [key.decode() for key in scan(self.redis_url, pattern)]
        return dict(zip(keys, read_many(self.redis, keys), strict=True))

    def wait_until_learned(self, timeout_seconds=20):
        """Return when Redis holds exactly what the oracle makes of what was produced."""
        expected = self.expected_histories()
        eventually(lambda: self.histories() == expected, timeout_seconds, 0.1)
        return expected

    def wait_until_caught_up(self, worker, timeout_seconds=20):
        """Return when one worker has applied both topics to their ends, and is well.

        Asked of the offsets, so it holds after rewinds and restarts, where counts do not.
        """
        end = sum(self.ends().values())
        eventually(lambda: worker.total("partition_next_offset") == end, timeout_seconds)
        eventually(lambda: worker.total("partition_lag_records") == 0)
        eventually(lambda: worker.status("/readyz") == 200)

    def wait_until_counted(self, worker, timeout_seconds=20):
        """Return when one worker has accounted for everything that was produced."""
        eventually(lambda: sum(worker.counts()[1:]) >= self.n_sent, timeout_seconds, 0.05)


def scan(redis_url, pattern):
    """Return the keys that match, of a standalone Redis or of all primaries of a cluster."""
    is_cluster = "+cluster" in redis_url
    first, *others = redis_url.replace("+cluster", "").split(",")
    if not is_cluster:
        with redis.Redis.from_url(redis_url, socket_timeout=10) as client:
            return set(client.scan_iter(pattern, count=10_000))
    seeds = [redis.cluster.ClusterNode(*other.split(":")) for other in others]
    with redis.RedisCluster.from_url(first, startup_nodes=seeds, socket_timeout=10) as client:
        primaries = redis.RedisCluster.PRIMARIES
        return set(client.scan_iter(pattern, count=10_000, target_nodes=primaries))


@contextmanager
def deployed(bootstrap_servers, redis_url, name, folder):
    deployment = Deployment(bootstrap_servers, redis_url, name, folder)
    try:
        yield deployment
    finally:
        deployment.close()


@contextmanager
def frozen(process_id):
    """Stop a process for the length of the block (SIGSTOP, SIGCONT)."""
    os.kill(process_id, signal.SIGSTOP)
    try:
        yield time.monotonic()
    finally:
        os.kill(process_id, signal.SIGCONT)
