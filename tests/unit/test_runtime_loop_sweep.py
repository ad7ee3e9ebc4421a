"""The loop gives its spare time to those whom a publish has left behind, and no other time."""

import pytest
from unit.test_runtime_fakes import PLAYS, event, live_model
from unit.test_runtime_loop import DOWN, Bench, good

from streamer.factors import decode_features
from streamer.stores.keys import features_key

USERS = ["v0", "v1", "v2"]


@pytest.fixture
def bench(monkeypatch):
    """A loop that has learned three users with generation 1, and remembers none of them."""
    bench = good(Bench(monkeypatch))
    bench.live = live_model(generation=1)
    bench.finish()
    bench.turn_until(lambda: gauge(bench, "sweep_done") == 1)
    bench.updater.forget_cache()
    return bench


def generations(bench):
    values = [bench.store.values[features_key("default", user)] for user in USERS]
    return [decode_features(value).generation for value in values]


def gauge(bench, name):
    return bench.metrics.registry.get_sample_value(f"streamer_{name}", {"variant": "default"})


def publish(bench, generation=2):
    bench.live = live_model(generation=generation, seed=2)


def swept(bench, generation=2):
    bench.turn()
    bench.turn_until(lambda: gauge(bench, "sweep_done") == 1)
    return generations(bench) == [generation] * 3


def test_users_without_any_event_get_the_new_model(bench):
    publish(bench)
    bench.turn()
    assert gauge(bench, "sweep_done") == 0
    assert swept(bench)
    assert gauge(bench, "sweep_progress_ratio") == 1
    assert gauge(bench, "sweep_behind_total") == 3
    assert gauge(bench, "sweep_users_total") >= 6
    assert bench.updater.n_cached_users == 0
    sweeps = [entry for entry in bench.said if entry["event"].startswith("sweep_")]
    started, finished = sweeps[-2:]
    assert (started["event"], started["generation"]) == ("sweep_started", 2)
    assert finished["event"] == "sweep_finished"
    assert (finished["n_users"], finished["n_found_behind"], finished["n_left_behind"]) == (3, 3, 0)


def test_touched_users_come_first(bench):
    bench.source.append(PLAYS, event(user="v1", item="title-3"))
    bench.finish()
    bench.turn()
    publish(bench)
    bench.turn()
    assert generations(bench) == [1, 2, 1]
    assert swept(bench)


def test_a_backlog_comes_before_the_sweep(bench):
    bench.source.append(PLAYS, *(event(user="w", time_ms=1_763_900_000_000 + n) for n in range(40)))
    publish(bench)
    for _ in range(3):
        bench.turn()
        assert generations(bench) == [1, 1, 1]
    bench.finish()
    assert swept(bench)


def test_a_page_that_cannot_be_written_holds_nothing_and_is_found_again(bench):
    publish(bench)
    bench.store.faults.plan("write", DOWN)
    bench.turn()
    assert generations(bench) == [1, 1, 1]
    assert bench.source.paused == set()
    assert bench.total("redis_errors") == 1
    bench.source.append(PLAYS, event(user="w"))
    bench.finish()
    assert swept(bench)


def test_a_loss_that_the_sweep_discovers_rewinds(bench):
    restore = bench.store.snapshot()
    bench.source.append(PLAYS, event(user="w"))
    bench.finish()
    bench.updater.forget_cache()
    bench.source.commit()
    restore()
    publish(bench)
    bench.turn()  # no time passes, so this was no checkpoint
    assert bench.loop._checkpoints.is_admitting
    bench.turn_until(lambda: bench.total("rewinds") == 1)
    bench.finish()
    bench.ensure_learned()
    assert swept(bench)


def test_with_the_store_down_nobody_is_swept_and_the_loop_does_not_spin(bench):
    bench.store.go_down()
    bench.clock.now += 1
    bench.turn()
    publish(bench)
    before = bench.clock.now
    bench.turn(5)
    assert bench.clock.now >= before + 5 * 0.2
    assert generations(bench) == [1, 1, 1]
    bench.store.come_back()
    assert swept(bench)


def test_a_record_is_waited_for_no_longer_than_a_page_is_due(bench):
    waits = []
    poll = bench.source.poll
    bench.source.poll = lambda n, timeout: waits.append(timeout) or poll(n, timeout)
    bench.turn()
    publish(bench)
    bench.turn()
    assert waits == [0.2, 0.0]


def test_a_learner_that_fails_in_the_sweep_goes_out_of_service(bench):
    def fails(*_):
        raise ZeroDivisionError

    fails.name = "fails"
    bench.live = live_model(generation=2, learner=fails)
    bench.turn()
    assert bench.live is None
    assert generations(bench) == [1, 1, 1]
    bench.turn(2)
