import pytest
from unit.test_runtime_fakes import capture_log

from streamer.errors import BrokerUnavailable, StoreUnavailable
from streamer.metrics import WorkerMetrics
from streamer.runtime.observer import LoopObserver


@pytest.mark.parametrize(
    ("error", "redis", "kafka"),
    [
        (StoreUnavailable("down", kind="timeout"), 3, 0),
        (BrokerUnavailable("down", kind="_TRANSPORT"), 0, 3),
    ],
)
def test_a_retry_is_counted_for_the_side_that_failed(error, redis, kafka):
    metrics = WorkerMetrics(["play-events"], ["default"])
    observer = LoopObserver(metrics, capture_log()[0])
    for attempt in range(1, 4):
        observer.failed(error, attempt)
    sample = metrics.registry.get_sample_value
    assert sample("streamer_redis_retries_total") == redis
    assert sample("streamer_kafka_retries_total") == kafka
    assert (sample("streamer_redis_errors_total", {"kind": "timeout"}) or 0) == redis
