"""How long a held loop waits between two attempts, on a fake clock."""

from itertools import pairwise
from random import Random

import pytest
from unit.test_runtime_fakes import FakeClock, FakeSource, capture_log

from streamer.errors import StoreUnavailable
from streamer.metrics import WorkerMetrics
from streamer.runtime.observer import LoopObserver
from streamer.runtime.retrying import FIRST_BACK_OFF_SECONDS, Retrying

LONGEST_PAUSE_SECONDS = 2.0  # so that work resumes within 5 s of the other side's return


@pytest.fixture
def clock(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr("streamer.runtime.retrying.time", clock)
    monkeypatch.setattr("streamer.runtime.observer.time", clock)
    return clock


@pytest.mark.parametrize("seed", range(5))
def test_the_pauses_grow_and_stay_short_enough_to_resume_in_time(clock, seed):
    log, _ = capture_log()
    observer = LoopObserver(WorkerMetrics(["play-events"], ["default"]), log)
    retrying = Retrying(FakeSource(clock), list, observer, 10.0, Random(seed), log)
    attempts = []

    def call():
        attempts.append(clock.now)
        if len(attempts) < 60:
            raise StoreUnavailable("down")

    retrying.until_done(call, lambda: None)
    pauses = [later - earlier for earlier, later in pairwise(attempts)]
    assert pauses[0] <= FIRST_BACK_OFF_SECONDS + 0.1
    assert max(pauses) <= LONGEST_PAUSE_SECONDS
    assert min(pauses[10:]) > 5 * FIRST_BACK_OFF_SECONDS


def test_the_heartbeat_goes_on_in_every_pause(clock):
    log, _ = capture_log()
    observer = LoopObserver(WorkerMetrics(["play-events"], ["default"]), log)
    retrying = Retrying(FakeSource(clock), list, observer, 10.0, Random(1), log)
    ages = []

    def call():
        ages.append(clock.now - observer.turned_at)
        if len(ages) < 30:
            raise StoreUnavailable("down")

    retrying.until_done(call, lambda: None)
    assert max(ages) < 0.2
