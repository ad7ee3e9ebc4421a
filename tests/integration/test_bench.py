"""The benchmark on real servers, tiny: that it measures, never how fast anything is."""

import pytest

from benchmarks.contestants import CONTENDERS
from benchmarks.figures import Reading
from benchmarks.measure import Log, Pace, catch_up, keep_pace
from benchmarks.stack import Stack
from benchmarks.workload import World

WORLD = World(n_users=500, n_items=300, n_past_events=5_000)
N_EVENTS = 60_000
LIMIT_SECONDS = 2.0


@pytest.fixture
def stack(kafka_server, redis_server, bootstrap_servers, redis_url, tmp_path):
    stack = Stack(kafka_server, redis_server, tmp_path)
    stack.prepare(WORLD)
    return stack


def test_floor_and_streamer_are_measured_on_real_servers(stack, unique_name):
    topics = stack.create_topics(unique_name)
    stack.record(topics, N_EVENTS)
    log = Log(topics, N_EVENTS, LIMIT_SECONDS)
    for name in ("floor", "streamer"):
        reading = Reading()
        about = catch_up(stack, log, name, CONTENDERS[name], reading)
        keep_pace(stack, name, CONTENDERS[name], reading, Pace(200, 1.0, warm_up_seconds=0.5))
        assert about["version"]
        assert 0 < reading.cpu_us_per_event < 1e6
        assert 0 < reading.events_per_second < 1e9
        delays = reading.latency_ms["200"]
        assert 0 < delays["p50"] <= delays["p99"] < 60_000
        assert set(reading.load) == {"catch_up", "latency_200"}
