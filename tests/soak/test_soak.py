"""The soak's judgement on made-up observations, and its machinery on a short run."""

import json

import numpy as np
import pytest
from soak.judgement import Delays, Observed, Sample, judge, line_growth
from soak.run import Plan, as_json, soak

VERIFIED = {"users": 10, "equal": 10, "behind": 0, "different": 0}


def observed(rss=lambda _: 100e6, files=lambda _: 20, delay=lambda _: 0.02, **more):
    seconds = np.arange(0.0, 601.0)
    facts = {"verified": VERIFIED, "n_produced": 60_000, "produce_seconds": 600.0} | more
    return Observed(
        600.0,
        100.0,
        samples={"worker 1": [Sample(s, int(rss(s)), files(s), 9) for s in seconds]},
        delays=[Delays(s, np.full(100, delay(s))) for s in seconds],
        disturbances=[(60.0 * n, 60.0 * n + 10) for n in range(1, 10)],
        **facts,
    )


def broken(one):
    return [check.name for check in judge(one) if not check.holds]


def test_a_quiet_run_holds_everything():
    assert broken(observed()) == []


def test_memory_that_grows_in_the_first_half_only_is_warm_up():
    assert broken(observed(rss=lambda s: 100e6 + 50e6 * min(s, 300) / 300)) == []


@pytest.mark.parametrize("bytes_a_second", [10_000, -10_000])
def test_memory_that_moves_by_3_percent_over_the_second_half_does_not_hold(bytes_a_second):
    found = broken(observed(rss=lambda s: 100e6 + bytes_a_second * s))
    assert found == ["worker 1: resident memory, second half"]


def test_one_file_more_every_two_minutes_does_not_hold():
    assert broken(observed(files=lambda s: 20 + int(s // 120))) == ["worker 1: open files"]


def test_files_that_a_rebalance_opens_for_a_moment_do_not_count():
    assert broken(observed(files=lambda s: 25 if s % 60 < 9 else 20)) == []


def test_two_percent_of_slow_events_do_not_hold_unless_a_rebalance_is_near():
    slow = "freshness p99 outside the rebalances"
    assert broken(observed(delay=lambda s: 3.0 if s % 60 == 30 else 0.02)) == [slow]
    assert broken(observed(delay=lambda s: 3.0 if s % 60 < 10 and s >= 60 else 0.02)) == []


def test_a_producer_that_is_too_slow_and_viewers_that_are_not_equal_do_not_hold():
    assert broken(observed(n_produced=50_000)) == ["produced"]
    assert broken(observed(verified=VERIFIED | {"equal": 9, "behind": 1})) == ["verify"]


def test_noise_has_no_growth():
    noise = np.random.default_rng(1).normal(scale=0.01, size=1000)
    assert abs(line_growth(np.arange(1000.0), 1.0 + noise)) < 0.005


@pytest.mark.timeout(240)
def test_a_short_soak_watches_two_workers_through_rebalances_and_verifies_everybody(
    bootstrap_servers, redis_url, tmp_path
):
    plan = Plan(
        seconds=20.0,
        rate=300.0,
        capacity_events=2000,
        rebalance_seconds=6.0,
        n_users=300,
        n_past_events=8000,
    )
    observed = soak(plan, bootstrap_servers, redis_url, tmp_path)
    checks = {check.name: check for check in judge(observed)}
    assert observed.n_produced == 6000
    assert observed.notes["failed_deliveries"] == 0
    assert observed.notes["capacity_per_second"] > 0
    assert len(observed.disturbances) >= 1
    assert observed.rebalances > 2  # beyond the first assignment of each
    for name in ("worker 1", "worker 2"):
        samples = observed.samples[name]
        assert len(samples) > 5
        assert min(s.rss_bytes for s in samples) > 20e6
        assert min(s.n_files for s in samples) > 5
        assert min(s.n_threads for s in samples) > 2
    assert sum(len(each.delays) for each in observed.delays) > 5000
    assert checks["verify"].holds, checks["verify"]
    assert json.loads(json.dumps(as_json(observed, list(checks.values()))))["verify"]["users"] > 0
