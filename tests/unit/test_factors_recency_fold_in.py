"""The learner by example, in numbers that can be checked by hand."""

import numpy as np
import oracle
import pytest

from streamer.factors import FoldInParams, ItemModel, RecencyFoldIn, Signals, reference
from streamer.history import decode

T = 1_764_000_000_000
LEARNER = RecencyFoldIn()
ITEMS = ("a", "b", "c")


def item_model(factors=None, alpha=2.0, regularization=1.0, **changes):
    factors = np.eye(3) if factors is None else np.asarray(factors)
    params = FoldInParams(alpha=alpha, regularization=regularization, **changes)
    ids = ITEMS[: len(factors)]
    return ItemModel.of(1, params, ids, factors.astype(np.float32), np.zeros(len(ids), np.float32))


def entry(item_id, kind, age_s=0, value=0):
    return oracle.Interaction(oracle.item_key(item_id), kind, T - 1000 * age_s, value)


def play(item_id, age_s=0, value=200):
    return entry(item_id, oracle.PLAY, age_s, value)


def thumb(item_id, value, age_s=0):
    return entry(item_id, oracle.THUMB, age_s, value)


def fold_in(*users, model=None):
    blobs = [oracle.State().learn(entries).to_bytes() for entries in users]
    return LEARNER(decode(blobs)[0], model or item_model())


def test_one_play_is_solved_by_hand():
    """G = I, λ = 1, α = 2, w = 1: A = (1 + 1 + 2), b = 2, u = ½ on its axis."""
    factors = fold_in([play("b")])
    assert factors.vectors[0] == pytest.approx(np.array([[0, 0.5, 0], [0, 0.5, 0]]), rel=1e-6)
    assert factors.n_solved.tolist() == [1]


def test_recency_fades_by_rank_in_strength_with_a_floor():
    """The older of two full plays has rank 1: w = .05 + .95 · 2^(-1/5); `lasting` has w = 1."""
    factors = fold_in([play("a"), play("b", age_s=9)])
    weight = 0.05 + 0.95 * 2 ** (-1 / 5)
    recent, lasting = factors.vectors[0]
    assert recent[1] == pytest.approx(2 * weight / (2 + 2 * weight), rel=1e-6)
    assert [recent[0], lasting[0], lasting[1]] == pytest.approx([0.5] * 3, rel=1e-6)


def test_a_strength_above_1_counts_as_1_in_the_rank():
    factors = fold_in([thumb("a", 2), play("b", age_s=9)], [play("a"), play("b", age_s=9)])
    assert factors.vectors[0, 0, 1] == factors.vectors[1, 0, 1]


def test_entries_that_are_left_out_still_make_others_older():
    """Unknown items, hidden entries and cleared thumbs: the first two have strength, so rank."""
    alone = fold_in([play("b", age_s=9)]).vectors[0, 0, 1]
    behind = fold_in([play("unknown"), play("b", age_s=9)]).vectors[0, 0, 1]
    aside = fold_in([thumb("unknown", 0), play("b", age_s=9)]).vectors[0, 0, 1]
    assert behind < alone == aside


@pytest.mark.parametrize("age_s", [5, 0, -5])
def test_a_thumbs_down_hides_every_other_entry_of_its_item(age_s):
    down = [thumb("a", 1, age_s), play("a"), entry("a", oracle.MY_LIST, 1, 1), play("b")]
    factors = fold_in(down)
    assert factors.n_solved.tolist() == [1]
    assert factors.vectors[0, :, 0].tolist() == [0, 0]
    assert (factors.vectors[0, :, 1] > 0).all()


def test_a_thumbs_down_has_weight_and_target_0():
    """v_a = v_b: the play of b is pulled down by the item beside it."""
    model = item_model([[1.0], [1.0]])
    down, up = fold_in([play("b", 1), thumb("a", 1)], [play("b", 1)], model=model).vectors[:, 1, 0]
    assert up == pytest.approx(2 / (2 + 1 + 2))
    assert down == pytest.approx(2 / (2 + 1 + 2 + 2 * 0.3))


def test_a_thumb_that_was_taken_back_hides_nothing():
    factors = fold_in([thumb("a", 0), play("a", 1)])
    assert factors.n_solved.tolist() == [1]
    assert factors.vectors[0, 1, 0] == pytest.approx(0.5)


def test_several_kinds_of_one_item_add_up():
    factors = fold_in([play("a"), thumb("a", 2, 1), entry("a", oracle.MY_LIST, 2, 1)])
    assert factors.n_solved.tolist() == [3]
    weight = 2 * (1 + 1.5 + 0.6)
    assert factors.vectors[0, 1, 0] == pytest.approx(weight / (2 + weight))


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [play("unknown")],
        [thumb("a", 1)],
        [thumb("a", 1), play("a", 1)],
        [thumb("a", 0), entry("b", oracle.MY_LIST, 1, 0)],
    ],
)
def test_a_history_with_nothing_to_solve_is_cold_and_zero(entries):
    factors = fold_in(entries, [play("b")])
    assert factors.n_solved.tolist() == [0, 1]
    assert not factors.vectors[0].any()
    assert not factors.is_rejected.any()
    assert factors.vectors[1].any()


def test_a_signal_of_strength_0_takes_its_kind_out_but_a_thumbs_down_still_hides():
    muted = item_model(signals=Signals(thumb_down=0.0, detail_view=0.0))
    entries = [thumb("a", 1), play("a", 1), entry("b", oracle.DETAIL_VIEW, 2), play("c", 3)]
    factors = fold_in(entries, model=muted)
    assert factors.n_solved.tolist() == [1]
    assert factors.vectors[0, 1] == pytest.approx([0, 0, 0.5], rel=1e-6)


def test_order_in_time_is_all_that_time_does():
    near, far = [play("a"), play("b", 1)], [play("a"), play("b", 10_000_000)]
    one, two = fold_in(near, far).vectors
    assert one.tolist() == two.tolist()


def test_a_full_history_and_an_empty_one_share_a_batch():
    many = [
        oracle.Interaction(oracle.item_key(f"x{number}"), oracle.PLAY, T - 1 - number, 200)
        for number in range(29)
    ]
    factors = fold_in([play("a"), *many], [], [play("a")])
    assert factors.n_solved.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(factors.vectors[0], factors.vectors[2])


def test_a_solve_that_breaks_the_bound_is_rejected(monkeypatch):
    monkeypatch.setattr(reference, "BOUND_SLACK", -1.0)  # as if it came out too long
    factors = fold_in([play("a")], [])
    assert factors.is_rejected.tolist() == [True, False]


def test_one_unsound_vector_rejects_both(monkeypatch):
    """Of two plays `lasting` comes to .25 of its bound, and `recent` to .2495."""
    monkeypatch.setattr(reference, "BOUND_SLACK", 0.2498 - 1)
    factors = fold_in([play("a"), play("b", age_s=9)])
    assert factors.is_rejected.tolist() == [True]
    monkeypatch.setattr(reference, "BOUND_SLACK", 0.2501 - 1)
    assert fold_in([play("a"), play("b", age_s=9)]).is_rejected.tolist() == [False]


def test_a_solve_that_is_not_finite_in_float32_is_rejected():
    """1 / v is where α pulls u; for v = 1e-40 that is beyond float32."""
    tiny = item_model([[1e-40]], alpha=1e8, regularization=1e-80)
    factors = fold_in([play("a")], model=tiny)
    assert factors.is_rejected.tolist() == [True]


@pytest.mark.parametrize("alpha", [1e16, 1e17, 1e20])
def test_a_system_that_float64_cannot_tell_from_a_singular_one_harms_no_neighbor(alpha):
    """Two kinds of one item under an absurd α, which no manifest may have."""
    absurd = item_model()
    object.__setattr__(absurd.params, "alpha", alpha)
    factors = fold_in([play("a"), thumb("a", 2, 1)], [play("b")], model=absurd)
    assert not factors.is_rejected[1]
    assert factors.vectors[1, 1, 1] == pytest.approx(1.0)
    assert factors.is_rejected[0] or factors.vectors[0, :, 0] == pytest.approx(1.0)


def test_the_learner_has_the_name_that_features_carry():
    assert LEARNER.name == "recency_fold_in"
