import oracle
import pytest
from integration.worker_process import deployed, event, frozen, sent, some_traffic
from waiting import eventually

from streamer.kafka.topics import missing_topics

# A killed member of a classic group is missed after this; the `consumer` protocol takes the
# broker's time instead, which is 6 s.
QUICKLY_MISSED = {
    "kafka__group_protocol": "classic",
    "kafka__client__session_timeout_ms": 1500,
    "kafka__client__heartbeat_interval_ms": 300,
}


@pytest.fixture
def deployment(bootstrap_servers, redis_url, unique_name, tmp_path):
    with deployed(bootstrap_servers, redis_url, unique_name, tmp_path) as deployment:
        deployment.create_topics()
        yield deployment


def kill_in_mid_stream(deployment, worker):
    n_before = worker.counts()[0]
    eventually(lambda: worker.counts()[0] >= n_before + 200, 20, 0.01)
    worker.kill()
    assert deployment.histories() != deployment.expected_histories()


def test_workers_that_are_killed_in_mid_stream_leave_the_same_bytes(deployment):
    settings = QUICKLY_MISSED | {"worker__batch_records": 20}
    deployment.produce(some_traffic(11, 2500, bad_share=0.03))
    kill_in_mid_stream(deployment, deployment.start_worker(**settings))
    doomed, survivor = deployment.start_worker(**settings), deployment.start_worker(**settings)
    eventually(lambda: doomed.reads(2) and survivor.reads(2))
    deployment.produce(some_traffic(12, 2500, bad_share=0.03))
    kill_in_mid_stream(deployment, doomed)
    deployment.wait_until_caught_up(survivor)
    deployment.wait_until_learned()
    assert survivor.terminate() == 0
    assert deployment.committed() == deployment.ends()
    letters = {tuple(letter.headers[-3:]) for letter in deployment.dead_letters()}
    rejected = [r for r in deployment.produced if oracle.verdict(r.value, r.time_ms) is None]
    assert len(letters) == len(rejected) > 50  # some of them perhaps twice, none missing


def test_two_workers_share_the_partitions_and_one_takes_over_when_the_other_drains(deployment):
    first, second = deployment.start_worker(), deployment.start_worker()
    eventually(lambda: first.owns(2) and second.owns(2))
    deployment.produce(some_traffic(12, 1500, bad_share=0.03))
    eventually(lambda: sum(first.counts()[1:]) + sum(second.counts()[1:]) == 1500)
    assert min(first.counts()[0], second.counts()[0]) > 300
    assert deployment.histories() == deployment.expected_histories()

    deployment.produce(some_traffic(13, 1500, bad_share=0.03))
    assert first.terminate() == 0  # in mid-stream
    eventually(lambda: second.owns(4))
    deployment.wait_until_caught_up(second)
    deployment.wait_until_learned()
    assert second.terminate() == 0
    assert deployment.committed() == deployment.ends()
    for worker in (first, second):
        assert worker.said("worker_stopped")
        assert not worker.said("batch_abandoned")

    third = deployment.start_worker()
    deployment.produce([sent("play", 1, event("play_stop", 1, "title-new"))])
    eventually(lambda: sum(third.counts()[1:]) >= 1)
    assert third.counts() == (1, 1, 0, 0)  # nothing is read again


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_topics_that_were_made_anew_are_read_from_their_beginning(deployment, protocol):
    """Old offsets mean nothing in them, however far they reach."""
    worker = deployment.start_worker(kafka__group_protocol=protocol)
    deployment.produce(some_traffic(15, 200))
    deployment.wait_until_counted(worker)
    with frozen(worker.process.pid):  # it must not see the time between
        topics = list(deployment.topics.values())
        for answer in deployment.admin.delete_topics(topics).values():
            answer.result(10)
        eventually(lambda: missing_topics(deployment.admin, topics) == topics)
        deployment.create_topics()
        deployment.produce(some_traffic(16, 800))
    deployment.wait_until_learned()
    eventually(lambda: worker.total("rewinds_total", cause="topic_recreated") == 4)
    ends = {(topic, n): e for topic in topics for n, e in deployment.end_offsets(topic).items()}
    eventually(lambda: deployment.committed() == ends)
    assert worker.terminate() == 0

    restarted = deployment.start_worker(kafka__group_protocol=protocol)
    deployment.produce([sent("play", 1, event("play_stop", 1, "title-new"))])
    eventually(lambda: sum(restarted.counts()[1:]) >= 1)
    assert restarted.counts() == (1, 1, 0, 0)  # what is committed counts in the new topic
    assert not restarted.total("rewinds_total")
