from random import Random

import numpy as np
import oracle
import pytest
from own_learners import Constant
from unit.test_runtime_fakes import (
    NOON_MS,
    FaultyStore,
    evidence,
    history_values,
    live_model,
    play,
)

from streamer.errors import StoreUnavailable
from streamer.factors import FeatureDtype
from streamer.history import Outcome
from streamer.pipeline.ports import WriteOutcome
from streamer.runtime.cache import HistoryCache
from streamer.runtime.updater import MAX_CONFLICT_ROUNDS, Updater
from streamer.stores.keys import quarantine_key

DAY_MS = 86_400_000
ANN = oracle.history_key("ann")
ANNS_FEATURES = oracle.features_key("ann", "default")


class Sleeper:
    def __init__(self):
        self.slept = []

    def __call__(self, seconds):
        self.slept.append(seconds)


def updater_on(store, cache_users=100, sleep=None):
    return Updater(
        store,
        HistoryCache(cache_users),
        FeatureDtype.F32,
        lambda: NOON_MS / 1000,
        sleep or Sleeper(),
        Random(7),
    )


def learn(updater, entries_of_user, live=None, forgotten=None):
    lives = [] if live is None else [live]
    return updater.apply(*evidence(entries_of_user, forgotten or {}), lives)


def state_of(*entries, forgotten_before_ms=0):
    return oracle.State().learn(entries, forgotten_before_ms)


def outcomes_of(report):
    return {outcome.name: int(report.outcomes[outcome]) for outcome in Outcome}


class Racing(FaultyStore):
    """Lets somebody else write between our read and our write."""

    def __init__(self):
        super().__init__()
        self.rivals = []

    def write(self, writes):
        if self.rivals:
            rival = self.rivals.pop(0)
            rival()
        return super().write(writes)


def test_nothing_to_learn_asks_the_store_nothing():
    store = FaultyStore()
    store.go_down()
    report = learn(updater_on(store), {})
    assert report.outcomes.sum() == report.hits == report.misses == 0


def test_what_was_learned_is_in_the_store_byte_for_byte():
    store = FaultyStore()
    report = learn(updater_on(store), {"ann": [play("a"), play("b", 1)], "ben": [play("a")]})
    wanted = {"ann": state_of(play("a"), play("b", 1)), "ben": state_of(play("a"))}
    assert store.values == history_values(wanted)
    assert (report.hits, report.misses, report.n_conflicts) == (0, 2, 0)
    assert outcomes_of(report)["NEW"] == 3
    assert report.n_bytes == sum(map(len, store.values.values()))


def test_a_cached_user_is_not_read_again():
    store = FaultyStore()
    updater = updater_on(store)
    learn(updater, {"ann": [play("a")]})
    store.faults.always("read_histories", StoreUnavailable("must not be read"))
    report = learn(updater, {"ann": [play("b", 1)]})
    assert (report.hits, report.misses) == (1, 0)
    assert store.values == history_values({"ann": state_of(play("a"), play("b", 1))})


def test_a_stale_cache_entry_costs_a_conflict_and_nothing_else():
    store, sleeper = FaultyStore(), Sleeper()
    ours, theirs = updater_on(store, sleep=sleeper), updater_on(store)
    learn(ours, {"ann": [play("a")], "ben": [play("a")]})
    learn(theirs, {"ann": [play("b", 1)]})
    report = learn(ours, {"ann": [play("c", 2)], "ben": [play("c", 2)]})
    assert report.n_conflicts == 1
    assert outcomes_of(report) == {
        "NEW": 2,
        "NEWER": 0,
        "KNOWN": 0,
        "OUT_OF_WINDOW": 0,
        "FORGOTTEN": 0,
    }
    assert sleeper.slept == []
    wanted = {
        "ann": state_of(play("a"), play("b", 1), play("c", 2)),
        "ben": state_of(play("a"), play("c", 2)),
    }
    assert store.values == history_values(wanted)


def test_after_a_conflict_the_cache_is_right_again():
    store = FaultyStore()
    ours, theirs = updater_on(store), updater_on(store)
    learn(ours, {"ann": [play("a")]})
    learn(theirs, {"ann": [play("b", 1)]})
    learn(ours, {"ann": [play("c", 2)]})
    report = learn(ours, {"ann": [play("d", 3)]})
    assert (report.hits, report.n_conflicts) == (1, 0)


def test_evidence_that_changes_nothing_is_compared_nevertheless():
    store = FaultyStore()
    updater = updater_on(store)
    learn(updater, {"ann": [play("a")]})
    store.values.clear()  # somebody has deleted it; the cache does not know
    report = learn(updater, {"ann": [play("a")]})
    assert report.n_conflicts == 1
    assert store.values == history_values({"ann": state_of(play("a"))})


@pytest.mark.parametrize("is_live", [False, True])
def test_a_lost_answer_changes_neither_bytes_nor_counts(is_live):
    live = live_model() if is_live else None
    entries = {"ann": [play("title-1"), play("title-2", 1)], "ben": [play("title-1")]}
    calm = FaultyStore()
    learn(updater_on(calm), entries, live)
    store = FaultyStore()
    updater = updater_on(store)
    store.faults.plan("answer", StoreUnavailable("the answer was lost", kind="timeout"))
    with pytest.raises(StoreUnavailable):
        learn(updater, entries, live)
    report = learn(updater, entries, live)
    assert store.values == calm.values
    assert report.outcomes.sum() == 3
    again = learn(updater, entries, live)
    assert outcomes_of(again)["KNOWN"] == 3
    assert store.values == calm.values


def test_a_lost_answer_to_a_forgetting_leaves_the_tombstone_and_no_features():
    store = FaultyStore()
    updater = updater_on(store)
    live = live_model()
    learn(updater, {"ann": [play("title-1")]}, live)
    store.faults.plan("answer", StoreUnavailable("the answer was lost", kind="timeout"))
    until_ms = NOON_MS + DAY_MS
    with pytest.raises(StoreUnavailable):
        learn(updater, {"ann": []}, live, {"ann": until_ms})
    learn(updater, {"ann": []}, live, {"ann": until_ms})
    assert store.values == history_values({"ann": state_of(forgotten_before_ms=until_ms)})


def test_two_writers_who_race_end_in_the_union_of_both():
    store = Racing()
    ours, theirs = updater_on(store), updater_on(store)
    learn(ours, {"ann": [play("a")]})
    store.rivals = [lambda: learn(theirs, {"ann": [play("b", 1)]})]
    report = learn(ours, {"ann": [play("c", 2)], "ben": [play("c", 2)]})
    assert report.n_conflicts == 1
    wanted = {
        "ann": state_of(play("a"), play("b", 1), play("c", 2)),
        "ben": state_of(play("c", 2)),
    }
    assert store.values == history_values(wanted)


def test_a_writer_who_loses_several_races_waits_a_little_longer_each_time_and_wins():
    store, sleeper = Racing(), Sleeper()
    ours = updater_on(store, sleep=sleeper)
    n_races = MAX_CONFLICT_ROUNDS - 1

    def win(second):
        def write():
            theirs = updater_on(store)
            store.rivals, waiting = [], store.rivals
            learn(theirs, {"ann": [play(f"theirs-{second}", second)]})
            store.rivals = waiting

        return write

    store.rivals = [win(second) for second in range(n_races)]
    report = learn(ours, {"ann": [play("ours", 99)]})
    assert report.n_conflicts == n_races
    assert outcomes_of(report)["NEW"] == 1
    assert len(sleeper.slept) == n_races - 1
    assert max(sleeper.slept) <= 0.25
    entries = [play(f"theirs-{second}", second) for second in range(n_races)]
    assert store.values == history_values({"ann": state_of(*entries, play("ours", 99))})


def test_a_writer_who_loses_every_race_gives_up_and_may_try_again():
    store, sleeper = Racing(), Sleeper()
    second = 0

    class Endless(list):
        def __bool__(self):
            return True

        def pop(self, _):
            def write():
                nonlocal second
                second += 1
                entry = play(f"theirs-{second}", second)
                store.values[ANN] = state_of(entry).to_bytes()

            return write

    updater = updater_on(store, sleep=sleeper)
    store.rivals = Endless()
    with pytest.raises(StoreUnavailable) as caught:
        learn(updater, {"ann": [play("ours")]})
    assert caught.value.kind == "conflicts"
    assert "ann" not in str(caught.value)
    assert sum(sleeper.slept) < 3
    store.rivals = []
    learn(updater, {"ann": [play("ours")]})
    last = play(f"theirs-{second}", second)
    assert store.values == history_values({"ann": state_of(last, play("ours"))})


def test_a_forgotten_user_is_not_revived_by_a_cached_history():
    store = FaultyStore()
    ours, theirs = updater_on(store), updater_on(store)
    live = live_model()
    learn(ours, {"ann": [play("title-1"), play("title-2", 1)]}, live)
    until_ms = NOON_MS + 5000
    learn(theirs, {"ann": []}, live, {"ann": until_ms})
    tombstone = state_of(forgotten_before_ms=until_ms)
    assert store.values == history_values({"ann": tombstone})
    report = learn(ours, {"ann": [play("title-3", 4)]}, live)  # older than the forgetting
    assert report.n_conflicts == 1
    assert outcomes_of(report)["FORGOTTEN"] == 1
    assert store.values == history_values({"ann": tombstone})
    later = play("title-3", 6)
    learn(ours, {"ann": [later]}, live)
    wanted = state_of(later, forgotten_before_ms=until_ms)
    assert store.values[ANN] == wanted.to_bytes()
    features = oracle.read_features(store.values[ANNS_FEATURES])
    assert features.history_digest == wanted.digest
    assert features.n_interactions == 1


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize(
    "broken", [b"SH\2 a form of next year", b"x", state_of(play("z")).to_bytes()[:-1]]
)
def test_a_broken_value_is_moved_aside_and_rebuilt_from_the_batch(broken, is_cached):
    store = FaultyStore()
    updater = updater_on(store)
    if is_cached:
        learn(updater, {"ann": [play("old")], "ben": [play("a")]})
    store.values[ANN] = broken
    report = learn(updater, {"ann": [play("a", 1)], "ben": [play("a")]})
    assert report.n_quarantined == 1
    assert report.outcomes.sum() == 2
    assert store.values[quarantine_key(ANN)] == broken
    assert store.values[ANN] == state_of(play("a", 1)).to_bytes()
    assert store.values[oracle.history_key("ben")] == state_of(play("a")).to_bytes()


@pytest.mark.parametrize("when", ["write", "answer"])
def test_what_was_moved_aside_before_a_failure_is_in_the_report_of_the_retry(when):
    store = FaultyStore()
    updater = updater_on(store)
    store.values[ANN] = b"x"
    store.faults.plan(when, StoreUnavailable("it is down", kind="connection"))
    with pytest.raises(StoreUnavailable):
        learn(updater, {"ann": [play("a")]})
    assert learn(updater, {"ann": [play("a")]}).n_quarantined == 1
    assert learn(updater, {"ann": [play("b")]}).n_quarantined == 0, "counted once"


def test_a_key_that_holds_no_string_is_moved_aside_and_rebuilt():
    class Foreign(FaultyStore):
        moved = None

        def read_histories(self, user_ids):
            return [None] * len(user_ids)

        def write(self, writes):
            if self.moved is None:
                return WriteOutcome({0: None}, frozenset({0}), 0, 0, 0)
            return super().write(writes)

        def quarantine(self, user_id, value):
            self.moved = user_id, value

    store = Foreign()
    report = learn(updater_on(store), {"ann": [play("a")]})
    assert store.moved == ("ann", None)
    assert report.n_quarantined == 1
    assert store.values == history_values({"ann": state_of(play("a"))})


@pytest.mark.parametrize("admits_it", [False, True])
def test_a_solve_that_fails_leaves_the_features_and_the_history_goes_on(admits_it):
    store = FaultyStore()
    updater = updater_on(store)
    learn(updater, {"ann": [play("title-1")]}, live_model())
    before = store.values[ANNS_FEATURES]
    failing = live_model(learner=Constant(np.nan, is_rejected=admits_it))
    report = learn(updater, {"ann": [play("title-2", 1)]}, failing)
    assert report.fold_rejected == ({"default": 1} if admits_it else {})
    assert [failure.live for failure in report.failures] == ([] if admits_it else [failing])
    assert store.values[ANNS_FEATURES] == before
    wanted = state_of(play("title-1"), play("title-2", 1))
    assert store.values[ANN] == wanted.to_bytes()
    # Folded in again with the next touch, even if that changes nothing.
    report = learn(updater, {"ann": [play("title-1")]}, live_model())
    assert report.fold_rejected["default"] == 0
    assert oracle.read_features(store.values[ANNS_FEATURES]).history_digest == wanted.digest


def test_without_a_live_model_histories_are_kept_and_folded_in_once_there_is_one():
    store = FaultyStore()
    updater = updater_on(store)
    report = learn(updater, {"ann": [play("title-1")], "ben": [play("title-2")]})
    assert report.folded == {}
    assert ANNS_FEATURES not in store.values
    report = learn(updater, {"ann": [play("title-1")]}, live_model())
    assert report.folded == {"default": 1}
    assert outcomes_of(report)["KNOWN"] == 1
    features = oracle.read_features(store.values[ANNS_FEATURES])
    assert features.history_digest == state_of(play("title-1")).digest
    assert oracle.features_key("ben", "default") not in store.values


def test_features_say_which_model_and_which_history_they_are_of():
    store = FaultyStore()
    entries = [play("title-1"), play("title-2", 1), play("unknown to the model", 2)]
    live = live_model(generation=7, seed=3)
    report = learn(updater_on(store), {"ann": entries}, live)
    assert report.n_unknown_items == 1
    features = oracle.read_features(store.values[ANNS_FEATURES])
    assert features.model_id == 3
    assert features.generation == 7
    assert features.history_digest == state_of(*entries).digest
    assert features.as_of_ms == NOON_MS + 2000
    assert features.written_ms == NOON_MS
    assert (features.n_interactions, features.n_solved) == (3, 2)
    model = oracle.Model(
        dict(zip(live.model.item_keys.tolist(), live.model.item_factors, strict=True)), 2.0, 0.5
    )
    for row, floor in enumerate([None, 1.0]):
        exact = oracle.fold_in(state_of(*entries), model, floor).vector
        error = np.linalg.norm(features.vectors[row] - exact) / np.linalg.norm(exact)
        assert error < 1e-5


def test_a_user_whose_features_are_of_the_live_generation_is_not_folded_in_again():
    store = FaultyStore()
    updater = updater_on(store)
    learn(updater, {"ann": [play("title-1")]}, live_model(generation=1))
    report = learn(updater, {"ann": [play("title-1")]}, live_model(generation=1))
    assert report.folded["default"] == 0
    report = learn(updater, {"ann": [play("title-1")]}, live_model(generation=2, seed=2))
    assert report.folded["default"] == 1
    assert oracle.read_features(store.values[ANNS_FEATURES]).generation == 2


def test_a_slow_worker_does_not_put_an_old_model_back():
    store = FaultyStore()
    slow, quick = updater_on(store), updater_on(store)
    learn(quick, {"ann": [play("title-1")]}, live_model(generation=2, seed=2))
    report = learn(slow, {"ann": [play("title-2", 1)]}, live_model(generation=1))
    assert report.n_superseded == 1
    assert oracle.read_features(store.values[ANNS_FEATURES]).generation == 2
    wanted = state_of(play("title-1"), play("title-2", 1))
    assert store.values[ANN] == wanted.to_bytes()


def random_entries(random, n_entries):
    return [
        oracle.Interaction(
            oracle.item_key(f"title-{random.randrange(60)}"),
            random.randrange(1, 7),
            NOON_MS + 1000 * random.randrange(90),
            random.randrange(3),
        )
        for _ in range(n_entries)
    ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cache_users", [1, 3, 50])
def test_any_batches_by_any_writers_end_in_the_same_bytes_and_every_interaction_is_counted_once(
    seed, cache_users
):
    random, store = Random(seed), FaultyStore()
    live = live_model()
    writers = [updater_on(store, cache_users) for _ in range(3)]
    users = [f"viewer-{number}" for number in range(10)]
    wanted = {user: oracle.State() for user in users}
    for step in range(60):
        writer = random.choice(writers)
        touched = random.sample(users, random.randrange(1, 10))
        entries = {user: random_entries(random, random.randrange(1, 9)) for user in touched}
        forgotten = {}
        if random.random() < 0.1:
            forgotten[touched[0]] = NOON_MS + 1000 * step
        if random.random() < 0.2:
            store.faults.plan("answer", StoreUnavailable("lost"))
        for user in touched:
            wanted[user].learn(entries[user], forgotten.get(user, 0))
        try:
            report = learn(writer, entries, live, forgotten)
        except StoreUnavailable:
            report = learn(writer, entries, live, forgotten)
        assert report.outcomes.sum() == sum(map(len, entries.values()))
        assert report.hits + report.misses == len(touched)
        assert writer.n_cached_users <= cache_users
    stored = {user: state for user, state in wanted.items() if state != oracle.State()}
    assert store.histories() == history_values(stored)
    for user, state in stored.items():
        value = store.values.get(oracle.features_key(user, "default"))
        if state.entries:
            assert oracle.read_features(value).history_digest == state.digest
        else:
            assert value is None


def test_a_forgotten_cache_is_read_again():
    store = FaultyStore()
    updater = updater_on(store)
    learn(updater, {"ann": [play("a")]})
    assert updater.n_cached_users == 1
    updater.forget_cache()
    assert updater.n_cached_users == 0
    report = learn(updater, {"ann": [play("b", 1)]})
    assert (report.hits, report.misses, report.n_conflicts) == (0, 1, 0)
