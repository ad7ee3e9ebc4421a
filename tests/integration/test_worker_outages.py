import json
import time

import pytest
from integration.worker_process import deployed, event, frozen, sent, some_traffic
from waiting import eventually

from streamer.dev.redis_server import RedisServer

REWOUND = "rewinds_total"


@pytest.fixture
def own_redis(redis_executable, tmp_path):
    """A Redis that the test may freeze and stop."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def deployment(bootstrap_servers, own_redis, unique_name, tmp_path):
    with deployed(bootstrap_servers, own_redis.url, unique_name, tmp_path) as deployment:
        deployment.create_topics()
        yield deployment


def ensure_all_is_well(deployment, worker):
    """Nothing was lost, nothing is counted wrongly, and the worker ends as it should."""
    deployment.wait_until_caught_up(worker)
    deployment.wait_until_learned()
    consumed, *accounted = worker.counts()
    assert consumed == sum(accounted)
    assert worker.terminate() == 0
    assert deployment.committed() == deployment.ends()


def test_a_worker_waits_for_a_frozen_redis_and_loses_nothing(deployment, own_redis):
    worker = deployment.start_worker(redis__timeout_seconds=0.3, worker__batch_records=50)
    deployment.produce(some_traffic(21, 1500, bad_share=0.03))
    eventually(lambda: worker.counts()[0] >= 100, interval_seconds=0.01)
    assert worker.status("/readyz") == 200
    with frozen(own_redis.pid) as since:
        deployment.produce(some_traffic(22, 500))
        eventually(lambda: worker.status("/readyz") == 503, 3)
        while time.monotonic() < since + 3.0:
            assert worker.status("/livez") == 200
            assert worker.status("/readyz") == 503
            time.sleep(0.1)
        assert json.loads(worker.get("/readyz")[1])["state"] == "held"
        assert worker.process.poll() is None
    eventually(lambda: worker.status("/readyz") == 200, 5)
    ensure_all_is_well(deployment, worker)
    assert worker.said("resumed")
    assert len(worker.said("retrying")) <= 2


def test_an_idle_worker_is_fresh_and_ready_unless_redis_is_frozen(deployment, own_redis):
    worker = deployment.start_worker(redis__timeout_seconds=0.3)
    deployment.produce([sent("play", 1, event())])  # three partitions never hold a record
    deployment.wait_until_counted(worker)

    def ages():
        """Seconds since what each partition vouches for, by its field."""
        fields = deployment.redis.hgetall("st:fresh")
        return {field: time.time() - int(value) / 1000 for field, value in fields.items()}

    eventually(lambda: len(ages()) == 4 and max(ages().values()) < 3)
    assert ages().keys() == {
        f"{deployment.name}/{topic}/{number}".encode()
        for topic in deployment.topics.values()
        for number in (0, 1)
    }
    assert worker.total("partition_lag_seconds") == 0
    assert worker.status("/readyz") == 200
    with frozen(own_redis.pid):
        eventually(lambda: worker.status("/readyz") == 503, 10)
        assert worker.status("/livez") == 200
    eventually(lambda: worker.status("/readyz") == 200, 5)
    eventually(lambda: max(ages().values()) < 3)


def test_a_worker_waits_for_a_frozen_broker_and_loses_nothing(deployment, kafka_server):
    worker = deployment.start_worker(worker__batch_records=50)
    deployment.produce(some_traffic(23, 1500, bad_share=0.03))
    eventually(lambda: worker.counts()[0] >= 100, interval_seconds=0.01)
    with frozen(kafka_server.pid) as since:
        while time.monotonic() < since + 3.0:
            assert worker.status("/livez") == 200
            time.sleep(0.1)
        assert worker.process.poll() is None
    deployment.produce(some_traffic(24, 300))
    ensure_all_is_well(deployment, worker)


def test_a_stop_while_redis_is_frozen_ends_in_time_and_loses_nothing(deployment, own_redis):
    worker = deployment.start_worker(
        redis__timeout_seconds=0.3, worker__drain_timeout_seconds=0.8, worker__batch_records=50
    )
    eventually(lambda: worker.reads(4))
    with frozen(own_redis.pid):
        deployment.produce(some_traffic(25, 500))
        eventually(lambda: worker.counts()[0] > 0)
        started = time.monotonic()
        assert worker.terminate() == 0
        assert time.monotonic() - started < 0.8 + 2
    assert worker.said("batch_abandoned")
    ensure_all_is_well(deployment, deployment.start_worker())


def test_a_redis_that_forgets_under_a_running_worker_is_filled_again(deployment, own_redis):
    worker = deployment.start_worker()
    deployment.produce(some_traffic(27, 1500, bad_share=0.03))
    deployment.wait_until_counted(worker)
    eventually(lambda: deployment.committed() == deployment.ends())

    deployment.redis.flushall()
    eventually(lambda: worker.total(REWOUND, cause="mark_missing") == 4)
    deployment.wait_until_caught_up(worker)
    expected = deployment.wait_until_learned()

    copy = {key: deployment.redis.dump(key) for key in deployment.redis.scan_iter(count=10_000)}
    deployment.produce(some_traffic(28, 500))
    deployment.wait_until_caught_up(worker)
    eventually(lambda: deployment.committed() == deployment.ends())
    with deployment.redis.pipeline() as pipeline:
        pipeline.flushall()
        for key, value in copy.items():
            pipeline.restore(key, 0, value)
        pipeline.execute()
    assert deployment.histories() == expected
    eventually(lambda: worker.total(REWOUND, cause="mark_behind") == 4)
    deployment.wait_until_caught_up(worker)
    deployment.wait_until_learned()

    own_redis.kill()
    deployment.produce(some_traffic(29, 100))
    eventually(lambda: worker.status("/readyz") == 503)
    own_redis.start()
    ensure_all_is_well(deployment, worker)
    assert not worker.said("rewind_incomplete")


def test_a_redis_that_was_flushed_between_two_runs_is_filled_again(deployment):
    worker = deployment.start_worker()
    deployment.produce(some_traffic(30, 1500, bad_share=0.03))
    deployment.wait_until_counted(worker)
    assert worker.terminate() == 0
    deployment.redis.flushall()
    deployment.produce([sent("play", 1, event("play_stop", 1, "title-new"))])
    worker = deployment.start_worker()
    eventually(lambda: worker.total(REWOUND, cause="mark_missing") == 4)
    assert worker.total(REWOUND) == 4
    ensure_all_is_well(deployment, worker)
