import numpy as np
import oracle
import pytest

from streamer.errors import ModelError
from streamer.factors import UNKNOWN_ROW, FoldInParams, ItemModel, kernels, model

PARAMS = FoldInParams(alpha=1.0, regularization=1.0)


def item_model(factors, item_ids=None, popularity=None, params=PARAMS):
    factors = np.asarray(factors)
    item_ids = item_ids or [f"title-{row}" for row in range(len(factors))]
    popularity = np.zeros(len(factors), np.float32) if popularity is None else popularity
    return ItemModel.of(5, params, item_ids, factors, popularity)


def test_the_gram_matrix_is_float64_and_whitening_undoes_it():
    factors = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)
    made = item_model(factors)
    exact = np.float64(factors).T @ np.float64(factors)
    np.testing.assert_allclose(made.item_gram, exact, rtol=1e-14)
    white = made.whitening.T @ (exact + np.eye(6)) @ made.whitening
    np.testing.assert_allclose(white, np.eye(6), atol=1e-12)
    assert (made.n_items, made.n_factors) == (50, 6)


def test_a_table_larger_than_a_slice_has_the_same_gram_matrix():
    factors = np.random.default_rng(2).normal(size=(70_000, 2)).astype(np.float32)
    exact = np.float64(factors).T @ np.float64(factors)
    np.testing.assert_allclose(model._gram(factors), exact, rtol=1e-12)


def test_keys_are_found_whatever_their_order_and_others_are_unknown():
    made = item_model(np.eye(20, dtype=np.float32))
    keys = np.array([[made.item_keys[row] for row in (3, 0, 19)], [0, 1, (1 << 64) - 1]], np.uint64)
    assert made.rows_of(keys).tolist() == [[3, 0, 19], [UNKNOWN_ROW] * 3]
    assert made.item_keys.tolist() == [oracle.item_key(item_id) for item_id in made.item_ids]


def test_a_hash_table_finds_what_is_there_also_where_keys_want_one_place():
    """Keys that are equal in their last bits, at the end of the table too, and a key of 0."""
    keys = np.array([0, 7, 15, 23, 31, 1 << 63, (1 << 64) - 1], np.uint64)
    table_keys, table_rows = kernels.hash_table(keys)
    assert len(table_keys) == len(table_rows) == 16
    asked = np.stack([np.append(keys, np.uint64(39)), np.append(keys[::-1], np.uint64(1))])
    found = kernels.find_items(asked, np.array([8, 8]), table_keys, table_rows)
    assert found.tolist() == [[*range(7), -1], [*reversed(range(7)), -1]]
    assert kernels.find_items(asked, np.array([1, 0]), table_keys, table_rows).tolist() == [
        [0, *[-1] * 7],
        [-1] * 8,
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factors": np.eye(2)}, "expected a float32 table"),
        ({"factors": np.zeros(2, np.float32)}, "expected a float32 table"),
        ({"factors": np.zeros((0, 2), np.float32)}, "at least 1 item"),
        ({"factors": np.zeros((2, 0), np.float32)}, "1 to 1024 factors"),
        ({"factors": np.zeros((1, 1025), np.float32)}, "1 to 1024 factors"),
        ({"item_ids": ["a", "b", "c"]}, "3 ids for 2 rows"),
        ({"item_ids": ["a", "a"]}, "rows 0 and 1 have the same id"),
        ({"factors": np.array([[0, 1], [np.nan, 0]], np.float32)}, "row 1 is not finite"),
        ({"factors": np.array([[np.inf, 1], [1, 0]], np.float32)}, "row 0 is not finite"),
        ({"popularity": np.zeros(3, np.float32)}, r"shape \(3,\), expected \(2,\)"),
        ({"popularity": np.array([0, -1], np.float32)}, "popularity.npy: row 1 is -1"),
        ({"popularity": np.array([np.nan, 1], np.float32)}, "popularity.npy: row 0 is nan"),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_name_and_row(changes, message):
    with pytest.raises(ModelError, match=message):
        item_model(**({"factors": np.eye(2, dtype=np.float32)} | changes))


def test_two_ids_with_one_key_are_refused(monkeypatch):
    monkeypatch.setattr(model, "keys_of", lambda ids: np.array([*map(len, ids)], np.uint64))
    with pytest.raises(ModelError, match="rows 0 and 2 have colliding keys"):
        item_model(np.eye(3, dtype=np.float32), item_ids=["ab", "abc", "cd"])


def test_a_matrix_that_is_not_positive_definite_is_refused():
    huge = np.full((3, 2), 1e15, np.float32)
    with pytest.raises(ModelError, match="not positive definite; raise the regularization"):
        item_model(huge, params=FoldInParams(alpha=1.0, regularization=1e-3))


def test_fewer_items_than_factors_are_fine():
    assert item_model(np.ones((1, 30), np.float32)).n_factors == 30


@pytest.mark.parametrize(
    "name", ["alpha", "regularization", "recency_half_life", "blend_half_life_s"]
)
@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_is_finite_and_above_0(name, bad):
    with pytest.raises(ValueError, match=f"^{name} is "):
        FoldInParams(**({"alpha": 1.0, "regularization": 1.0} | {name: bad}))


@pytest.mark.parametrize("bad", [-0.01, 1.01, float("nan")])
def test_a_recency_floor_is_a_share(bad):
    with pytest.raises(ValueError, match=r"^recency_floor is .*; it must be in 0 to 1"):
        FoldInParams(1.0, 1.0, recency_floor=bad)
    assert FoldInParams(1.0, 1.0, recency_floor=0.0).recency_floor == 0
    assert FoldInParams(1.0, 1.0, recency_floor=1.0).recency_floor == 1
