"""The default learner against a dense float64 solve of the formula as it is written."""

import random
from dataclasses import fields

import numpy as np
import oracle
from hypothesis import given
from hypothesis import strategies as st
from strategies import BASE_MS, examples, models, roll_state, seeds

from streamer.events import Kind
from streamer.factors import (
    FoldInParams,
    ItemModel,
    RecencyFoldIn,
    Signals,
    reference,
    whitened,
)
from streamer.history import HistoryBatch, decode

RELATIVE_ERROR = 1e-5
UNKNOWN_KEYS = tuple(range(1, 6))
LEARNER = RecencyFoldIn()


def item_model(item_ids, model):
    """The package's model of the oracle's one."""
    factors = np.stack(list(model.factors.values()))
    params = FoldInParams(
        alpha=model.alpha,
        regularization=model.regularization,
        recency_half_life=model.recency_half_life,
        recency_floor=model.recency_floor,
        signals=Signals(**model.signals),
    )
    return ItemModel.of(1, params, item_ids, factors, np.zeros(len(factors), np.float32))


def roll_history(rolls, item_keys, n_entries):
    """A state of `n_entries` entries, or of as many as the items suffice for."""
    full = roll_state(rolls, item_keys, n_events=400, n_times=100_000)
    kept = rolls.sample(list(full.entries), min(n_entries, len(full.entries)))
    return oracle.State({key: full.entries[key] for key in kept})


def roll_histories(rolls, model, lengths):
    item_keys = [*model.factors, *rolls.sample(UNKNOWN_KEYS, rolls.randrange(6))]
    return [roll_history(rolls, item_keys, length) for length in lengths]


def batch_of(states):
    histories, _, is_broken = decode([state.to_bytes() for state in states])
    assert not is_broken.any()
    return histories


def distance(vector, exact):
    """‖Δ‖ / ‖u‖, and 0 / 0 = 0."""
    size = np.linalg.norm(exact)
    off_by = np.linalg.norm(np.float64(vector) - exact)
    return off_by / size if size else off_by


def ensure_exact(states, model, factors):
    """Compare vectors, counts and verdicts of every row."""
    assert factors.vectors.dtype == np.float32
    assert not factors.is_rejected.any()
    for row, state in enumerate(states):
        recent = oracle.fold_in(state, model)
        lasting = oracle.fold_in(state, model, floor=1.0)
        assert factors.n_solved[row] == lasting.n_solved
        assert distance(factors.vectors[row, 0], recent.vector) <= RELATIVE_ERROR
        assert distance(factors.vectors[row, 1], lasting.vector) <= RELATIVE_ERROR


@given(models(), seeds)
@examples(80)
def test_both_vectors_of_every_length_of_history_are_the_dense_solution(case, seed):
    item_ids, model = case
    rolls = random.Random(seed)
    lengths = [0, *rolls.sample(range(1, oracle.MAX_ENTRIES), 10), oracle.MAX_ENTRIES]
    states = roll_histories(rolls, model, lengths)
    live = item_model(item_ids, model)
    ensure_exact(states, model, LEARNER(batch_of(states), live))
    ensure_exact(states, model, reference.fold_in(batch_of(states), live))


def test_every_length_of_history_from_none_to_full_is_solved_exactly():
    rolls = random.Random(20)
    item_ids = [f"title-{number}" for number in range(300)]
    factors = np.random.default_rng(20).normal(scale=0.3, size=(300, 32)).astype(np.float32)
    keys = list(map(oracle.item_key, item_ids))
    model = oracle.Model(dict(zip(keys, factors, strict=True)), alpha=10.0, regularization=1.0)
    lengths = range(oracle.MAX_ENTRIES + 1)
    states = roll_histories(rolls, model, lengths)
    assert [len(state.entries) for state in states] == list(lengths)
    ensure_exact(states, model, LEARNER(batch_of(states), item_model(item_ids, model)))


@given(models(max_items=6), st.lists(st.lists(st.integers(0, 2**30), max_size=9), min_size=1))
@examples(60)
def test_several_kinds_of_one_item_and_hidden_items_are_solved_exactly(case, users):
    """Few items: a thumbs-down hides plays, lists and views of its item, also newer ones."""
    item_ids, model = case
    keys = [*model.factors, 1]
    choices = [
        (kind, value)
        for kind in Kind
        for value in {Kind.PLAY: (0, 90, 180, 200), Kind.THUMB: (0, 1, 1, 2)}.get(kind, (0, 1))
    ]
    states = []
    for numbers in users:
        interactions = [
            oracle.Interaction(
                keys[number % len(keys)],
                int(choices[number // 100 % len(choices)][0]),
                BASE_MS + number // 10_000 % 50,
                choices[number // 100 % len(choices)][1],
            )
            for number in numbers
        ]
        states.append(oracle.State().learn(interactions))
    ensure_exact(states, model, LEARNER(batch_of(states), item_model(item_ids, model)))


@given(models(), seeds)
@examples(60)
def test_a_row_does_not_depend_on_its_batch(case, seed):
    item_ids, model = case
    rolls = random.Random(seed)
    states = roll_histories(rolls, model, [rolls.randrange(56) for _ in range(12)])
    live = item_model(item_ids, model)
    together = LEARNER(batch_of(states), live)
    order = rolls.sample(range(len(states)), len(states))
    permuted = LEARNER(batch_of([states[row] for row in order]), live)
    for row in range(len(states)):
        alone = LEARNER(batch_of(states[row : row + 1]), live)
        there = order.index(row)
        assert alone.n_solved[0] == together.n_solved[row] == permuted.n_solved[there]
        for vector in range(2):
            own = alone.vectors[0, vector]
            assert distance(together.vectors[row, vector], own) <= RELATIVE_ERROR
            assert distance(permuted.vectors[there, vector], own) <= RELATIVE_ERROR


def catalog(n_items=300, n_factors=32, alpha=10.0):
    """A model of more items than a history holds, as the oracle and the package have it."""
    factors = np.random.default_rng(20).normal(scale=0.3, size=(n_items, n_factors))
    item_ids = [f"title-{number}" for number in range(n_items)]
    keys = map(oracle.item_key, item_ids)
    rows = factors.astype(np.float32)
    model = oracle.Model(dict(zip(keys, rows, strict=True)), alpha=alpha, regularization=1.0)
    return model, item_model(item_ids, model)


def test_what_gradients_cannot_solve_is_solved_directly(monkeypatch):
    """An α that makes the eigenvalues spread, and a limit of steps that is too low."""
    rolls = random.Random(21)
    monkeypatch.setattr(reference, "fold_in", counted := Counted(reference.fold_in))
    for alpha, is_direct in [(10.0, False), (1e6, True)]:
        model, live = catalog(alpha=alpha)
        states = roll_histories(rolls, model, [0, 1, 20, 55])
        ensure_exact(states, model, LEARNER(batch_of(states), live))
        assert (counted.n_users > 0) is is_direct


def test_what_gradients_solve_is_the_same_to_the_last_bit_in_any_company():
    """Also where the items are met in another order, by a model that was loaded anew."""
    rolls = random.Random(23)
    model, live = catalog()
    states = roll_histories(rolls, model, [rolls.randrange(56) for _ in range(40)])
    together = LEARNER(batch_of(states), live).vectors
    _, anew = catalog()
    for row in rolls.sample(range(len(states)), len(states)):
        alone = LEARNER(batch_of(states[row : row + 1]), anew).vectors[0]
        np.testing.assert_array_equal(alone, together[row])


class Counted:
    """Counts the users that a function is called with."""

    def __init__(self, function):
        self._function, self.n_users = function, 0

    def __call__(self, histories, model):
        self.n_users += len(histories)
        return self._function(histories, model)


def test_a_table_of_items_that_is_too_small_is_begun_anew(monkeypatch):
    """With room for 40 items of 300, whatever order they come in."""
    rolls = random.Random(22)
    monkeypatch.setattr(whitened, "MAX_ROWS", 40)
    model, live = catalog()
    for n_users in (1, 1, 1, 6, 1, 1):
        states = roll_histories(rolls, model, [30] * n_users)
        ensure_exact(states, model, LEARNER(batch_of(states), live))
    assert len(live.whitened.doubles) < 300


@given(models(), seeds)
@examples(60)
def test_the_bound_that_is_checked_holds_for_every_solution(case, seed):
    item_ids, model = case
    rolls = random.Random(seed)
    states = roll_histories(rolls, model, [rolls.randrange(56) for _ in range(6)])
    factors = LEARNER(batch_of(states), item_model(item_ids, model))
    ridge = model.gram + model.regularization * np.eye(len(model.gram))
    for row, state in enumerate(states):
        for vector, floor in ((0, None), (1, 1.0)):
            u = np.float64(factors.vectors[row, vector])
            limit = oracle.fold_in(state, model, floor).energy_limit
            assert u @ ridge @ u <= limit * (1 + 1e-5)
    assert not factors.is_rejected.any()


@given(models(), seeds)
@examples(20)
def test_items_the_model_does_not_know_change_nothing_but_the_recency_of_others(case, seed):
    item_ids, model = case
    rolls = random.Random(seed)
    state = roll_histories(rolls, model, [40])[0]
    known = oracle.State(
        {key: entry for key, entry in state.entries.items() if entry.item_key in model.factors}
    )
    factors = LEARNER(batch_of([state, known]), item_model(item_ids, model))
    assert factors.n_solved[0] == factors.n_solved[1]
    assert distance(factors.vectors[0, 1], np.float64(factors.vectors[1, 1])) <= RELATIVE_ERROR


def test_a_batch_of_nobody_is_empty():
    model = oracle.Model({oracle.item_key("a"): np.ones(3, np.float32)}, 1.0, 1.0)
    factors = LEARNER(HistoryBatch.empty(0), item_model(["a"], model))
    assert factors.vectors.shape == (0, 2, 3)
    assert factors.n_solved.shape == factors.is_rejected.shape == (0,)


def test_the_oracle_and_the_package_have_the_same_default_strengths():
    assert {field.name: field.default for field in fields(Signals)} == oracle.SIGNALS
    params, model = FoldInParams(1.0, 1.0), oracle.Model({}, 1.0, 1.0)
    assert params.recency_floor == model.recency_floor == 0.05
    assert params.recency_half_life == model.recency_half_life == 5
    assert params.blend_half_life_s == 30 * 60
