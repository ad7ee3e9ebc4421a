"""Brokers that die, and topics that grow or are made anew."""

import shutil
from itertools import product

import pytest
from confluent_kafka.admin import NewPartitions

from streamer.dev.kafka_cluster import KafkaCluster
from streamer.kafka.topics import missing_topics


def test_the_broker_is_killed_and_restarted(run, broker):
    n_kills = run.size.pick(short=1, full=5)
    run.open()
    run.start_workers()
    for _ in range(n_kills):
        before = run.consumed()
        run.feed(0.9 / n_kills, seconds=2.0)
        run.wait_for_progress(before)
        killed = broker.server.pid
        broker.server.kill()
        assert not run.is_fed()
        broker.server.start()
        assert broker.server.pid != killed
        run.injected["broker killed"] += 1
    run.finish()


@pytest.fixture
def cluster(kafka_program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chaos-cluster")
    cluster = KafkaCluster(kafka_program, folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_cluster_loses_the_leader_of_a_partition(run_on, cluster, own_redis):
    run = run_on(cluster.bootstrap_servers, own_redis.url)
    n_losses = run.size.pick(short=1, full=4)
    run.open(replication=3)
    run.start_workers()
    topic = run.deployment.topics["play"]
    for number in range(n_losses):
        before = run.consumed()
        run.feed(0.9 / n_losses, seconds=4.0)
        run.wait_for_progress(before)
        known = cluster.brokers.keys()
        run.wait_until(lambda n=number, known=known: cluster.leader_of(topic, n % 4) in known)
        leader = cluster.leader_of(topic, number % 4)
        cluster.brokers[leader].kill()
        others = cluster.brokers.keys() - {leader}
        run.wait_until(lambda n=number, others=others: cluster.leader_of(topic, n % 4) in others)
        run.injected["leader lost"] += 1
        before = run.consumed()
        run.feed(0.02)
        run.wait_for_progress(before)  # with two brokers
        cluster.start()
    run.finish()


def test_partitions_grow_from_4_to_8_in_flight(run):
    run.open()
    run.start_workers()
    before = run.consumed()
    run.feed(0.3)
    run.wait_for_progress(before)
    topics = list(run.deployment.topics.values())
    grown = run.deployment.admin.create_partitions([NewPartitions(topic, 8) for topic in topics])
    for answer in grown.values():
        answer.result(30)
    run.feed(0.4)
    run.wait_until_shared(n_partitions=16)
    run.feed(0.2)
    run.finish()
    new = [record for record in run.deployment.log() if record.partition.number >= 4]
    assert {tuple(record.partition) for record in new} == set(product(topics, range(4, 8)))
    run.injected["events in new partitions"] = len(new)


def test_topics_are_deleted_and_made_anew_under_the_same_names(run):
    """What was in the old ones was applied, so everything that any of them ever held is in Redis.

    Each is larger than the one before: its offsets reach beyond those that mean nothing any more.
    """
    n_rounds = run.size.pick(short=1, full=3)
    topics = list(run.deployment.topics.values())
    admin = run.deployment.admin
    run.open()
    run.start_workers()
    for number in range(n_rounds):
        run.feed(0.1 * (number + 1))
        run.wait_until_applied()
        run.retire_topics()
        ids = run.deployment.topic_ids()
        for answer in admin.delete_topics(topics).values():
            answer.result(30)
        run.wait_until(lambda: missing_topics(admin, topics) == topics)
        run.deployment.create_topics(partitions=4)
        assert not set(ids) & set(run.deployment.topic_ids())
        run.injected["topics made anew"] += len(topics)
    run.finish()
    causes = {event["cause"] for w in run.members for event in w.said("partition_rewound")}
    assert "topic_recreated" in causes
