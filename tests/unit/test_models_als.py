import json
import sys

import numpy as np
import pytest

from streamer.errors import ConfigError
from streamer.factors import Signals
from streamer.models.als import AlsPlan, _confidences, fit_item_factors
from streamer.models.observations import Observations, observe, prepare
from streamer.models.training_log import collect_log

T0 = 1_700_000_000_000
SIGNALS = Signals()
PLAN = AlsPlan(n_factors=4, n_iterations=3, seed=1)


def log_of(*events):
    lines = []
    for minute, (kind, user, item, *watched_s) in enumerate(events):
        payload = {"type": kind, "user_id": user, "item_id": item, "event_time": T0 + minute}
        if watched_s:
            payload |= {"watched_s": watched_s[0], "duration_s": 1000}
        lines.append((json.dumps(payload).encode(), None))
    return collect_log(lines)


def observed_of(log):
    seen = observe(log, SIGNALS)
    return {
        (log.user_ids[user], log.item_ids[item]): (pytest.approx(strength), bool(is_down))
        for user, item, strength, is_down in zip(
            seen.users, seen.items, seen.strengths, seen.is_down, strict=True
        )
    }


def test_strengths_of_the_kinds_add_up():
    log = log_of(("detail_view", "u", "x"), ("play_stop", "u", "x", 1000), ("thumb_up", "u", "x"))
    assert observed_of(log) == {("u", "x"): (0.15 + 1.0 + 1.5, False)}


def test_a_repeated_play_counts_once_and_the_last_one_counts():
    log = log_of(("play_stop", "u", "x", 1000), ("play_stop", "u", "x", 500))
    assert observed_of(log) == {("u", "x"): (0.25, False)}


def test_a_thumbs_down_hides_the_other_evidence_of_its_item_alone():
    log = log_of(
        ("play_stop", "u", "x", 1000),
        ("thumb_down", "u", "x"),
        ("play_stop", "u", "y", 1000),
        ("play_stop", "v", "x", 1000),
    )
    assert observed_of(log) == {
        ("u", "x"): (0.3, True),
        ("u", "y"): (1.0, False),
        ("v", "x"): (1.0, False),
    }


def test_a_thumbs_down_that_was_withdrawn_hides_nothing():
    log = log_of(("play_stop", "u", "x", 1000), ("thumb_down", "u", "x"), ("thumb_clear", "u", "x"))
    assert observed_of(log) == {("u", "x"): (1.0, False)}


def test_evidence_without_strength_is_no_observation():
    log = log_of(("my_list_remove", "u", "x"), ("play_stop", "u", "y", 1000))
    assert observed_of(log) == {("u", "y"): (1.0, False)}


def test_items_that_too_few_users_like_are_left_out():
    log = log_of(
        ("play_stop", "a", "x", 1000),
        ("play_stop", "b", "x", 1000),
        ("play_stop", "a", "y", 1000),
        ("thumb_down", "b", "y"),
        ("detail_view", "a", "z"),
        ("detail_view", "b", "z"),
        ("play_stop", "c", "w", 1000),
    )
    prepared = prepare(log, 2, SIGNALS)
    assert [log.item_ids[item] for item in prepared.known_items] == ["x", "z"]
    assert prepared.popularity.tolist() == [2.0, 0.0]
    assert prepared.n_users == 2
    assert prepared.observed.items.max() == 1


def random_observations():
    rng = np.random.default_rng(3)
    pairs = np.flatnonzero(rng.random(12 * 9) < 0.4)
    return Observations(
        users=pairs // 9,
        items=pairs % 9,
        strengths=rng.uniform(0.05, 2.5, len(pairs)),
        is_down=rng.random(len(pairs)) < 0.2,
    )


def test_the_solver_minimises_the_loss_of_the_fold_in():
    als = pytest.importorskip("implicit.cpu.als")
    threads = pytest.importorskip("threadpoolctl")
    alpha, regularization = 3.0, 0.7
    observed = random_observations()
    with threads.threadpool_limits(1, "blas"):
        solver = als.AlternatingLeastSquares(4, regularization, 1.0, num_threads=1)
    factors = np.random.default_rng(5).normal(size=(9, 4)).astype(np.float32)
    solver.item_factors = factors
    solved = solver.recalculate_user(np.arange(12), _confidences(observed, alpha, (12, 9)))

    v = factors.astype(np.float64)
    for user in range(12):
        mine = observed.users == user
        v_mine = v[observed.items[mine]]
        w = alpha * observed.strengths[mine]
        t = np.where(observed.is_down[mine], 0.0, 1.0)
        a = v.T @ v + regularization * np.eye(4) + (v_mine.T * w) @ v_mine
        assert solved[user] == pytest.approx(np.linalg.solve(a, v_mine.T @ (w * t)), abs=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not():
    pytest.importorskip("implicit")
    observed = random_observations()
    first, again, other = (
        fit_item_factors(observed, (3.0, 0.7), (12, 9), AlsPlan(4, 3, seed), lambda: None).tobytes()
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_every_round_is_reported():
    pytest.importorskip("implicit")
    rounds = []
    fit_item_factors(random_observations(), (3.0, 0.7), (12, 9), PLAN, lambda: rounds.append(1))
    assert len(rounds) == PLAN.n_iterations


def test_without_implicit_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    with pytest.raises(ConfigError, match=r"pip install 'streamer\[train\]'"):
        fit_item_factors(random_observations(), (3.0, 0.7), (12, 9), PLAN, lambda: None)
