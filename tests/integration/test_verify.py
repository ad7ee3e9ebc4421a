"""`streamer verify` on a real Kafka and Redis, at rest and while workers run."""

import json
import os
import subprocess
import time
from random import Random

import numpy as np
import pytest
from confluent_kafka import TopicPartition
from integration.worker_process import (
    BASE_MS,
    STREAMER,
    Sent,
    deployed,
    event,
    sent,
    some_traffic,
    user,
)
from waiting import eventually

from streamer.app import redis_client
from streamer.cli.verify import sources_of
from streamer.config import load_settings
from streamer.evaluation.golden import GoldenHistories
from streamer.evaluation.lattice import same
from streamer.evaluation.verification import VerifyOptions
from streamer.evaluation.verify import verify
from streamer.events import RejectReason
from streamer.factors import FeatureDtype, FoldInParams
from streamer.kafka.dead_letters import KafkaDeadLetters
from streamer.kafka.log_reader import KafkaLog
from streamer.models import publish, write_model
from streamer.pipeline.ports import Mark, MarkMove
from streamer.pipeline.records import Decoder, Partition, Rejected
from streamer.runtime.cache import HistoryCache
from streamer.runtime.updater import Updater
from streamer.stores import RedisStore


@pytest.fixture
def deployment(bootstrap_servers, redis_url, unique_name, tmp_path):
    with deployed(bootstrap_servers, redis_url, unique_name, tmp_path) as deployment:
        deployment.create_topics()
        yield deployment


def environment(deployment):
    return {
        "STREAMER__" + name.replace(".", "__").upper(): str(value)
        for name, value in deployment.settings().items()
    }


class Verifying:
    """A `streamer verify` process."""

    def __init__(self, deployment, *options):
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("STREAMER__")}
        self.process = subprocess.Popen(
            [str(STREAMER), "verify", "--json", *options],
            env=inherited | environment(deployment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    @property
    def is_running(self):
        return self.process.poll() is None

    def result(self, exit_code=0):
        output, complaints = self.process.communicate(timeout=100)
        assert self.process.returncode == exit_code, complaints.decode()
        return json.loads(output)


def look(deployment, **options):
    """Do what `streamer verify` does, without the time that a process takes to start."""
    settings = load_settings(None, environment(deployment))
    with redis_client(settings.redis) as client, sources_of(settings, client) as sources:
        return verify(sources, VerifyOptions(n_listed=1000, **options))


def publish_model(deployment):
    random = np.random.default_rng(5)
    folder = deployment.folder / "model"
    write_model(
        folder,
        params=FoldInParams(alpha=10.0, regularization=1.0),
        item_ids=[f"title-{number}" for number in range(60)],
        item_factors=(0.3 * random.standard_normal((60, 8))).astype(np.float32),
        popularity=np.ones(60, np.float32),
    )
    publish(deployment.redis, deployment.models, folder, "default")


def store_of(deployment):
    return RedisStore(deployment.redis, deployment.name, tombstone_days=30)


def apply(store, records):
    """Do what a worker does with these records, and nothing with others."""
    updater = Updater(store, HistoryCache(1000), FeatureDtype.F16, time.time, time.sleep, Random(7))
    decoded = Decoder().decode(records)
    updater.apply(decoded.user_ids, decoded.arrived, [])


def vouch(deployment, store):
    """Move every mark to the end of its partition."""
    ends = {Partition(*place): end for place, end in deployment.ends().items()}
    marks = store.read_marks(list(ends))
    moves = {p: MarkMove(marks[p], Mark(end)) for p, end in ends.items()}
    assert all(store.move_marks(moves).values())


@pytest.mark.timeout(300)
def test_while_workers_run_and_events_arrive_nobody_is_different(deployment):
    publish_model(deployment)
    workers = [deployment.start_worker() for _ in range(2)]
    eventually(lambda: all(worker.said("worker_started") for worker in workers), 90)
    eventually(lambda: all(worker.reads(2) for worker in workers), 60)
    deployment.produce(some_traffic(40, 1000, bad_share=0.03))
    everybody = Verifying(deployment, "--max-users", "25", "--log-rate", "4000")
    some = Verifying(deployment, "--sample", "30%", "--rate", "20")
    n_produced = 0
    while everybody.is_running or some.is_running:
        if n_produced < 100:  # a log that outgrows its reading would never be read to its end
            deployment.produce(some_traffic(100 + n_produced, 30, bad_share=0.03))
            n_produced += 1
        time.sleep(0.1)
    assert n_produced > 10  # it was no quiet system
    for result in (everybody.result(), some.result()):
        assert result["different"] == 0, result
        assert result["users"] == result["equal"] + result["behind"] > 0

    deployment.wait_until_learned(60)
    eventually(lambda: deployment.committed() == deployment.ends(), 30)
    result = look(deployment)
    assert result.n_equal == result.n_users == len(deployment.expected_histories())
    assert result.n_records == deployment.n_sent
    assert result.n_rejected == result.n_letters > 0
    assert 0 < result.worst_error < 1e-3
    for worker in workers:
        worker.kill()


@pytest.mark.timeout(240)
def test_a_dropped_hundredth_of_the_events_is_found(deployment):
    deployment.produce(some_traffic(41, 4000, n_users=300))
    records = deployment.log()
    dropped = records[5::100]
    kept = [record for record in records if record not in dropped]
    store = store_of(deployment)
    apply(store, kept)
    assert look(deployment, rounds=1).n_different == 0  # without marks it may be under way
    vouch(deployment, store)

    whole, without = GoldenHistories(), GoldenHistories()
    whole.apply(records)
    without.apply(kept)
    users = np.array(whole.user_ids)
    losers = users[~same(whole.read(users.tolist()), without.read(users.tolist()))]
    assert len(losers) > 15
    result = Verifying(deployment, "--list", "1000", "--max-users", "200").result(exit_code=1)
    assert result["listed"].keys() == set(losers)
    assert result["different"] == len(losers)
    assert result["equal"] == result["users"] - len(losers) == len(users) - len(losers)

    apply(store, dropped)
    assert look(deployment).n_equal == len(users)


def test_a_record_with_a_letter_is_not_expected_and_redriven_it_is(deployment):
    deployment.produce(some_traffic(42, 300))
    store = store_of(deployment)
    apply(store, deployment.log())
    value = event("play_stop", 3, "title-new", BASE_MS + 10_000_000)
    deployment.produce([sent("play", 3, value)])
    rejected = next(record for record in deployment.log() if record.value == value)
    letters = KafkaDeadLetters({}, deployment.bootstrap_servers, ".dlq")
    letters.send([Rejected(rejected, RejectReason.UNKNOWN_TYPE)])
    eventually(lambda: letters.is_delivered(1.0))
    vouch(deployment, store)
    result = look(deployment)
    assert (result.n_different, result.n_behind) == (0, 0)
    assert (result.n_letters, result.n_rejected) == (1, 1)

    deployment.produce([Sent("play", user(3).encode(), value, (("redrive_attempt", b"1"),))])
    vouch(deployment, store)
    assert look(deployment, rounds=1).listed.keys() == {user(3)}


def test_a_log_that_was_cut_is_said_and_accuses_nobody(deployment):
    deployment.produce(some_traffic(43, 400))
    store = store_of(deployment)
    apply(store, deployment.log())
    vouch(deployment, store)
    cut = [TopicPartition(*place, end - 20) for place, end in deployment.ends().items()]
    for answer in deployment.admin.delete_records(cut).values():
        answer.result(10)
    result = look(deployment)
    assert result.is_log_cut
    assert result.n_records == 20 * len(cut)
    assert result.n_beyond_log > 0
    assert (result.n_behind, result.n_different) == (0, 0)


def test_marks_of_a_topic_that_was_made_anew_vouch_for_nothing(deployment):
    deployment.produce(some_traffic(44, 100))
    store = store_of(deployment)
    place = next(iter(deployment.ends()))
    foreign = Mark(deployment.ends()[place], "another-topic-of-that-name")
    store.move_marks({Partition(*place): MarkMove(None, foreign)})
    result = look(deployment, rounds=1)
    assert (result.n_different, result.n_equal) == (0, 0)
    assert result.n_behind == result.n_users > 0


def test_a_log_is_read_in_any_range_and_from_outside_any_group(deployment):
    deployment.produce(some_traffic(45, 300))
    log = KafkaLog({}, deployment.bootstrap_servers, list(deployment.topics.values()))
    bounds = log.bounds()
    assert {p: bound.high for p, bound in bounds.items() if bound.high} == deployment.ends()
    start = {p: bound.high // 3 for p, bound in bounds.items()}
    until = {p: bound.high // 2 for p, bound in bounds.items()}
    found = {p: [] for p in bounds}
    for record in log.read(start, until):
        found[record.partition].append(record.offset)
    assert found == {p: list(range(start[p], until[p])) for p in bounds}
    assert list(log.read(until, until)) == []
    again = list(log.read({p: bound.low for p, bound in bounds.items()}, until))
    assert len(again) == sum(until.values())  # what was paused at its end is read again
    assert log.gone_until_ms() == 0
    assert deployment.committed() == {}
    log.close()
