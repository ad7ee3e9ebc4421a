import oracle
import pytest
from integration.worker_process import deployed, event, sent, some_traffic
from waiting import eventually

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


def test_a_worker_that_is_killed_in_mid_stream_leaves_the_same_bytes(deployment):
    deployment.produce(some_traffic(11, 4000, bad_share=0.03))
    settings = QUICKLY_MISSED | {"worker__batch_records": 20}
    for _ in range(2):
        worker = deployment.start_worker(**settings)
        eventually(lambda worker=worker: worker.counts()[0] >= 300, 20, 0.01)
        worker.kill()
        assert deployment.histories() != deployment.expected_histories()
    worker = deployment.start_worker(**QUICKLY_MISSED)
    deployment.wait_until_caught_up(worker)
    deployment.wait_until_learned()
    assert worker.terminate() == 0
    assert deployment.committed() == deployment.ends()
    letters = {tuple(letter.headers[-3:]) for letter in deployment.dead_letters()}
    log = deployment.log()
    n_rejected = sum(oracle.verdict(r.value, r.timestamp_ms) is None for r in log)
    assert len(letters) == n_rejected > 50  # some of them perhaps twice, none missing


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


def test_what_a_killed_worker_owned_is_taken_over(deployment):
    doomed = deployment.start_worker(**QUICKLY_MISSED, worker__batch_records=20)
    eventually(lambda: doomed.owns(4))
    survivor = deployment.start_worker(**QUICKLY_MISSED, worker__batch_records=20)
    eventually(lambda: doomed.owns(2) and survivor.owns(2))
    deployment.produce(some_traffic(14, 2000))
    eventually(lambda: doomed.counts()[0] >= 100, interval_seconds=0.01)
    doomed.kill()
    deployment.wait_until_caught_up(survivor)
    deployment.wait_until_learned()
    assert survivor.terminate() == 0
    assert deployment.committed() == deployment.ends()
