"""Workers that share the sweep of one store, turn by turn, on a clock of their own."""

from contextlib import suppress
from dataclasses import replace
from random import Random

import pytest
from unit.test_runtime_fakes import FakeClock, event, live_model
from worlds import records

from streamer.errors import StoreForgot, StoreUnavailable
from streamer.factors import FeatureDtype, decode_features
from streamer.pipeline.records import Decoder
from streamer.pipeline.sweep import decode_sweep
from streamer.runtime import sweeper as sweeper_module
from streamer.runtime.cache import HistoryCache
from streamer.runtime.sweeper import LOOK_SECONDS, RETRY_SECONDS, Sweeper
from streamer.runtime.updater import Updater
from streamer.stores import MemoryScan, MemoryStore
from streamer.stores.keys import features_key
from streamer.stores.memory import MemoryState

N_USERS = 400
N_CACHED = 10
PATROL_SECONDS = 1000.0


@pytest.fixture
def clock(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr("streamer.runtime.sweeper.time", clock)
    return clock


class SlowScan(MemoryScan):
    """Takes time, and remembers which pages were claimed."""

    def __init__(self, state, clock, seconds=0.002):
        super().__init__(state)
        self.clock, self.seconds = clock, seconds
        self.claims = []
        self.before_claim = lambda: None

    def scan(self, *arguments):
        self.clock.now += self.seconds
        return super().scan(*arguments)

    def claim(self, variant, server, expected, wanted):
        self.before_claim()
        is_ours = super().claim(variant, server, expected, wanted)
        if is_ours:
            before, after = decode_sweep(expected), decode_sweep(wanted)
            start = before.cursor if before and not before.is_done else "0"
            self.claims.append((after.generation, start, after.cursor))
        return is_ours


class Worker:
    """One that knows hardly anybody, and sweeps."""

    def __init__(self, state, clock, share=0.1, scan=None):
        self.clock = clock
        self.scan = scan or SlowScan(state, clock)
        store = MemoryStore(state)
        self.updater = Updater(
            store, HistoryCache(N_CACHED), FeatureDtype.F32, clock.time, clock.sleep, Random(7)
        )
        self.folded = []
        self.is_killed = False
        self.sweeper = Sweeper(self.scan, self.fold_in, share, Random(7), PATROL_SECONDS)

    def fold_in(self, user_ids, stored, live):
        if self.is_killed:
            raise KeyboardInterrupt  # between its claim and its write
        self.folded += user_ids
        return self.updater.fold_in(user_ids, stored, live)

    def learn(self, user_ids, live):
        decoded = Decoder().decode(records(*(event(user=user_id) for user_id in user_ids)))
        self.updater.apply(decoded.user_ids, decoded.arrived, [live])

    def turn(self, live):
        return self.sweeper.turn([live])


def everybody():
    return [f"viewer-{number}" for number in range(N_USERS)]


@pytest.fixture
def state(clock):
    """Everybody has features of generation 1."""
    state = MemoryState()
    Worker(state, clock).learn(everybody(), live_model(generation=1))
    return state


def generations(state):
    values = [state.values.get(features_key("default", user_id)) for user_id in everybody()]
    return {None if value is None else decode_features(value).generation for value in values}


def sweep_until_done(clock, live, *workers, max_turns=2000):
    """Let workers take turns, as often as they may; return what was swept."""
    swept = []
    for _ in range(max_turns):
        for worker in workers:
            swept.append(worker.turn(live))  # noqa: PERF401  the clock is between them
        clock.now += 0.001
        if all(worker.sweeper.is_done(live) for worker in workers):
            return [each for each in swept if each is not None]
        clock.now += min(worker.sweeper.due_in_seconds([live]) for worker in workers)
    pytest.fail("never done")


def test_everybody_gets_the_new_model_without_any_event(state, clock):
    worker, live = Worker(state, clock), live_model(generation=2, seed=2)
    swept = sweep_until_done(clock, live, worker)
    assert generations(state) == {2}
    assert sorted(worker.folded) == sorted(everybody())
    assert swept[0].begins
    assert sum(each.begins for each in swept) == 1
    assert swept[-1].after.is_done
    assert (swept[-1].after.number, swept[-1].after.n_found) == (2, N_USERS)
    assert swept[-1].progress == 1.0


def test_nobody_in_the_cache_makes_room_for_the_sweep(state, clock):
    worker, live = Worker(state, clock), live_model(generation=2)
    worker.learn(everybody()[:N_CACHED], live)
    cached = worker.updater._cache.user_ids
    swept = sweep_until_done(clock, live, worker)
    assert worker.updater._cache.user_ids == cached
    assert sum(each.report.hits + each.report.misses for each in swept) == 0
    assert len(worker.folded) == N_USERS - N_CACHED


def test_two_workers_share_it_and_claim_each_page_once(state, clock):
    one, other = Worker(state, clock), Worker(state, clock)
    sweep_until_done(clock, live_model(generation=2), one, other)
    claims = one.scan.claims + other.scan.claims
    assert one.scan.claims
    assert other.scan.claims
    first_pass = [start for _, start, _ in claims if start != "0"]
    assert all(first_pass.count(start) <= 2 for start in first_pass)  # once in each of two passes
    assert sorted(one.folded + other.folded) == sorted(everybody())
    assert generations(state) == {2}


def test_whoever_loses_a_claim_drops_the_page(state, clock):
    live, fast, slow = live_model(generation=2), Worker(state, clock), Worker(state, clock)
    slow.scan.before_claim = lambda: fast.turn(live)
    assert slow.turn(live) is None
    assert slow.folded == []
    assert len(fast.folded) > 0
    assert not set(slow.folded) & set(fast.folded)


def test_the_page_of_a_worker_that_died_after_its_claim_is_found_by_the_next_pass(state, clock):
    live, dying, heir = live_model(generation=2), Worker(state, clock), Worker(state, clock)
    dying.is_killed = True
    with pytest.raises(KeyboardInterrupt):
        dying.turn(live)
    assert dying.scan.claims
    swept = sweep_until_done(clock, live, heir)
    assert generations(state) == {2}
    assert swept[0].begins is False  # it goes on where the dead one stopped
    assert swept[-1].after.number == 3


def test_a_publish_in_the_middle_begins_anew_and_the_old_model_changes_nothing(state, clock):
    worker, slow = Worker(state, clock), Worker(state, clock)
    for _ in range(3):
        worker.turn(live_model(generation=2))
        clock.now += 1
    newer = live_model(generation=3, seed=3)
    assert worker.turn(newer).begins
    clock.now += 1
    before = dict(state.values)
    assert slow.turn(live_model(generation=2)) is None
    assert state.values == before
    assert slow.sweeper.due_in_seconds([live_model(generation=2)]) == pytest.approx(LOOK_SECONDS)
    sweep_until_done(clock, newer, worker)
    assert generations(state) == {3}
    assert slow.turn(newer) is None  # as soon as it has the model, it looks at once
    assert slow.sweeper.is_done(newer)


def test_a_roll_back_is_a_sweep_like_any_other(state, clock):
    worker = Worker(state, clock)
    wanted = dict(state.values)
    sweep_until_done(clock, live_model(generation=2, seed=2), worker)
    assert state.values != wanted
    sweep_until_done(clock, live_model(generation=3), worker)
    for key, value in wanted.items():
        stored = state.values[key]
        if key.startswith("st:f:"):  # all but generation and written_ms
            stored = stored[:24] + value[24:28] + stored[28:40] + value[40:48] + stored[48:]
        assert stored == value


def test_a_server_that_forgot_is_swept_again(state, clock):
    worker, live = Worker(state, clock), live_model(generation=2)
    then = state.copy()
    sweep_until_done(clock, live, worker)
    state.forget(then)
    assert generations(state) == {1}
    assert worker.turn(live) is None  # not yet
    clock.now += LOOK_SECONDS
    with pytest.raises(StoreForgot):  # as with any other write; the loop rewinds
        sweep_until_done(clock, live, worker)
    sweep_until_done(clock, live, worker)
    assert generations(state) == {2}


def test_what_is_done_is_looked_at_again_after_a_day(state, clock):
    worker, live = Worker(state, clock), live_model(generation=2)
    sweep_until_done(clock, live, worker)
    late = Worker(state, clock)
    late.learn(["newcomer"], live_model(generation=1))  # it had not heard of generation 2
    clock.now += LOOK_SECONDS
    assert worker.turn(live) is None
    clock.now += PATROL_SECONDS
    assert worker.turn(live).begins
    clock.now += 1
    sweep_until_done(clock, live, worker)
    value = state.values[features_key("default", "newcomer")]
    assert decode_features(value).generation == 2


def test_pages_take_their_share_of_the_time_and_no_more(state, clock):
    worker, live = Worker(state, clock, share=0.2), live_model(generation=2)
    started, n_pages = clock.now, 0
    while clock.now < started + 10:
        n_pages += worker.turn(live) is not None or not worker.sweeper.is_done(live)
        clock.now += max(0.001, min(worker.sweeper.due_in_seconds([live]), 10))
        if worker.sweeper.is_done(live):
            break
    assert len(worker.scan.claims) * worker.scan.seconds <= 0.2 * (clock.now - started) + 0.002
    assert generations(state) == {2}


def test_a_page_becomes_as_small_as_its_time_demands(state, clock):
    scan = SlowScan(state, clock, seconds=0.1)
    worker, live = Worker(state, clock, scan=scan), live_model(generation=2)
    sizes = []
    for _ in range(6):
        sizes.append(worker.turn(live).n_seen)
        clock.now += 2
    assert sizes[0] > 2 * sizes[-1]
    assert 0 < sizes[-1] <= sweeper_module.MIN_KEYS


def test_a_share_of_nothing_sweeps_nobody(state, clock):
    worker, live = Worker(state, clock, share=0.0), live_model(generation=2)
    assert worker.sweeper.due_in_seconds([live]) == float("inf")
    assert worker.turn(live) is None
    assert generations(state) == {1}


def test_without_a_live_model_nothing_is_swept(state, clock):
    worker = Worker(state, clock)
    assert worker.sweeper.turn([]) is None
    assert worker.scan.claims == []


def test_a_store_that_does_not_answer_is_asked_again_after_a_while(state, clock):
    worker, live = Worker(state, clock), live_model(generation=2)

    def down():
        raise StoreUnavailable("it is down")

    worker.scan.before_claim = down
    with pytest.raises(StoreUnavailable):
        worker.turn(live)
    assert worker.sweeper.due_in_seconds([live]) == pytest.approx(2 * RETRY_SECONDS, abs=0.01)
    assert worker.turn(live) is None
    worker.scan.before_claim = lambda: None
    clock.now += 2 * RETRY_SECONDS
    sweep_until_done(clock, live, worker)
    assert generations(state) == {2}


def test_each_variant_has_a_sweep_of_its_own(state, clock):
    worker, live = Worker(state, clock), live_model(generation=1)
    other = replace(live_model(generation=1), variant="other")
    for _ in range(200):
        worker.sweeper.turn([live, other])
        clock.now += 1
        if worker.sweeper.is_done(live) and worker.sweeper.is_done(other):
            break
    assert all(features_key("other", user_id) in state.values for user_id in everybody())
    assert sorted(worker.folded) == sorted(everybody())  # nobody was behind in the first variant


def test_a_variant_whose_state_cannot_be_used_does_not_keep_the_others_waiting(state, clock):
    class Choosy(SlowScan):
        def look(self, part, variant):
            if variant == "default":
                raise StoreUnavailable("WRONGTYPE")
            return super().look(part, variant)

    worker = Worker(state, clock, scan=Choosy(state, clock))
    lives = [live_model(generation=1), replace(live_model(generation=1), variant="other")]
    for _ in range(200):
        with suppress(StoreUnavailable):
            worker.sweeper.turn(lives)
        clock.now += 1
    assert worker.sweeper.is_done(lives[1])
    assert not worker.sweeper.is_done(lives[0])
    assert all(features_key("other", user_id) in state.values for user_id in everybody())
