"""The other built-in learners, against their formulas as they are written."""

import random
from functools import partial

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties.test_fold_in import batch_of, distance, item_model, roll_histories
from strategies import examples, models, seeds

from streamer.factors import BUILT_INS, load_learner
from streamer.history import HistoryBatch

ETA, LAMBDA = 0.5, 0.3
every_built_in = pytest.mark.parametrize("name", BUILT_INS)


def liked(state, model):
    """(strength, v) of what is learned from, newest first."""
    entries = state.newest_first()
    hidden = {entry.item_key for entry in entries if oracle.is_thumbs_down(entry)}
    return [
        (oracle.strength(entry, model.signals), np.float64(model.factors[entry.item_key]))
        for entry in entries
        if entry.item_key in model.factors
        and entry.item_key not in hidden
        and oracle.strength(entry, model.signals) > 0
    ]


def mean_of_items(state, model):
    pairs = liked(state, model)
    total = sum(s for s, _ in pairs)
    return sum(s * v for s, v in pairs) / total, len(pairs)


def sgd_replay(state, model):
    pairs = liked(state, model)
    gamma = np.trace(model.gram) / len(model.factors)
    u = np.zeros(len(model.gram))
    for s, v in reversed(pairs if gamma else []):
        step = min(ETA * s / gamma, 1 / (v @ v + LAMBDA * gamma))
        u = u + step * ((1 - u @ v) * v - LAMBDA * gamma * u)
    return u, len(pairs)


def flat_fold_in(state, model):
    solution = oracle.fold_in(state, model, floor=1.0)
    return solution.vector, solution.n_solved


def recency_fold_in(state, model):
    solution = oracle.fold_in(state, model)
    return solution.vector, solution.n_solved


FORMULAS = {
    "recency_fold_in": recency_fold_in,
    "flat_fold_in": flat_fold_in,
    "sgd_replay": sgd_replay,
    "mean_of_items": mean_of_items,
}


def rolled(case, seed, n_users=10):
    item_ids, model = case
    rolls = random.Random(seed)
    lengths = [0, oracle.MAX_ENTRIES, *(rolls.randrange(1, 56) for _ in range(n_users))]
    return roll_histories(rolls, model, lengths), model, item_model(item_ids, model)


@every_built_in
def test_every_vector_is_that_of_the_formula(name):
    @given(models(), seeds)
    @examples(30)
    def check(case, seed):
        states, model, live = rolled(case, seed)
        factors = load_learner(name)(batch_of(states), live)
        assert not factors.is_rejected.any()
        for row, state in enumerate(states):
            if factors.n_solved[row] == 0:
                assert not factors.vectors[row].any()
                continue
            vector, n_solved = FORMULAS[name](state, model)
            assert factors.n_solved[row] == n_solved
            assert distance(factors.vectors[row, 0], vector) <= 1e-5

    check()


@every_built_in
def test_users_are_cold_who_like_nothing_that_the_model_knows(name):
    @given(models(max_items=3), seeds)
    @examples(30)
    def check(case, seed):
        states, model, live = rolled(case, seed)
        factors = load_learner(name)(batch_of(states), live)
        for row, state in enumerate(states):
            assert (factors.n_solved[row] == 0) == (not liked(state, model))

    check()


@pytest.mark.parametrize("name", ["sgd_replay", "mean_of_items"])
def test_unknown_items_and_hidden_ones_change_nothing(name):
    """To the fold-ins a thumbs-down is an entry with target 0; test_fold_in has that."""

    @given(models(), seeds)
    @examples(25)
    def check(case, seed):
        states, model, live = rolled(case, seed)
        learner = load_learner(name)
        kept = [only_liked(state, model) for state in states]
        all_of_it, rest = learner(batch_of(states), live), learner(batch_of(kept), live)
        assert all_of_it.n_solved.tolist() == rest.n_solved.tolist()
        np.testing.assert_array_equal(all_of_it.vectors, rest.vectors)

    check()


def only_liked(state, model):
    hidden = {e.item_key for e in state.entries.values() if oracle.is_thumbs_down(e)}
    return oracle.State(
        {
            key: entry
            for key, entry in state.entries.items()
            if entry.item_key in model.factors and entry.item_key not in hidden
        }
    )


@every_built_in
def test_a_row_is_the_same_to_the_last_bit_in_any_company_and_order(name):
    @given(models(), seeds)
    @examples(25)
    def check(case, seed):
        states, _, live = rolled(case, seed)
        learner = partial(load_learner(name), model=live)
        together = learner(batch_of(states))
        order = random.Random(seed).sample(range(len(states)), len(states))
        permuted = learner(batch_of([states[row] for row in order]))
        np.testing.assert_array_equal(permuted.vectors, together.vectors[order])
        np.testing.assert_array_equal(permuted.n_solved, together.n_solved[order])
        for row, state in enumerate(states):
            np.testing.assert_array_equal(
                learner(batch_of([state])).vectors[0], together.vectors[row]
            )

    check()


@given(models(), seeds)
@examples(30)
def test_the_flat_fold_in_is_the_lasting_vector_of_the_default(case, seed):
    states, _, live = rolled(case, seed)
    flat = load_learner("flat_fold_in")(batch_of(states), live)
    both = load_learner("recency_fold_in")(batch_of(states), live)
    np.testing.assert_array_equal(flat.vectors[:, 0], both.vectors[:, 1])


@given(st.sampled_from([1e-30, 1e-20, 1e-3, 1.0, 1e3, 1e15, 1e30]), seeds)
@examples(30)
def test_replaying_does_not_depend_on_the_scale_of_a_model_and_never_runs_away(scale, seed):
    """One item is a thousand times as long as the others, which would throw a plain step out."""
    rolls = np.random.default_rng(seed)
    table = rolls.normal(size=(30, 4))
    table[0] *= 1000
    table *= scale / np.abs(table).max()
    keys = list(map(oracle.item_key, map(str, range(30))))
    factors = dict(zip(keys, table.astype(np.float32), strict=True))
    model = oracle.Model(factors, alpha=1.0, regularization=float(scale) ** 2)
    states = roll_histories(random.Random(seed), model, [55, 30, 1])
    live = item_model([str(number) for number in range(30)], model)
    made = load_learner("sgd_replay")(batch_of(states), live)
    assert not made.is_rejected.any()
    for row, state in enumerate(states):
        if made.n_solved[row]:
            assert distance(made.vectors[row, 0], sgd_replay(state, model)[0]) <= 1e-5


@every_built_in
def test_no_users_are_no_rows(name):
    item_ids = ["a", "b"]
    factors = {oracle.item_key(each): np.float32([1, 0, 2]) for each in item_ids}
    live = item_model(item_ids, oracle.Model(factors, alpha=1.0, regularization=1.0))
    made = load_learner(name)(HistoryBatch.empty(0), live)
    assert made.vectors.shape == (0, BUILT_INS[name].n_vectors, 3)
    assert (made.n_solved.shape, made.is_rejected.shape) == ((0,), (0,))
