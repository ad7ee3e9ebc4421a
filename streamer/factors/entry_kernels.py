"""Learners without a system to solve, as compiled loops: one user after the other.

An entry is learned from if the model knows its item, its strength is positive, and no thumbs-down
hides its item. A thumbs-down itself says nothing that could be added up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamer.factors.kernels import has_thumbs_down, is_thumbs_down
from streamer.history.compiled import compiled


def read_only(item_factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the same items in the one form that the loops are compiled for."""
    view = item_factors.view(np.ndarray)
    view.flags.writeable = False
    return view


@compiled
def replay(  # noqa: PLR0913, PLR0917  a kernel takes arrays, not objects
    item_keys: NDArray[np.uint64],
    words: NDArray[np.uint64],
    counts: NDArray[np.int64],
    rows: NDArray[np.int32],
    item_factors: NDArray[np.float32],
    strength: NDArray[np.float64],
    learning_rate: float,
    regularization: float,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Take one step for each entry, the oldest first: u ← u + η_i (e_i v_i - λ u), e_i = 1 - u·v_i.

    Args:
        item_keys: (n_users, n_slots).
        words: (n_users, n_slots), newest first.
        counts: (n_users,); entries in use.
        rows: (n_users, n_slots); of each entry's item in the model, -1 if unknown.
        item_factors: (n_items, n_factors), v.
        strength: (256, 256), s of every (kind, value).
        learning_rate: η; ``η_i = min(η s_i, 1 / (‖v_i‖² + λ))``.
        regularization: λ.

    Returns:
        Vectors (n_users, 1, n_factors), and entries learned from (n_users,).
    """
    n_users, n_slots = words.shape
    n_factors = item_factors.shape[1]
    vectors = np.zeros((n_users, 1, n_factors), np.float32)
    n_learned = np.zeros(n_users, np.int64)
    kept = np.empty(n_slots, np.int64)
    strengths = np.empty(n_slots)
    user_factors = np.empty(n_factors)
    for user in range(n_users):
        n_learned[user] = _select(
            item_keys[user, : counts[user]], words[user], rows[user], strength, kept, strengths
        )
        user_factors[:] = 0.0
        for entry in range(n_learned[user] - 1, -1, -1):
            item = item_factors[kept[entry]]
            product = 0.0
            square = 0.0
            for factor in range(n_factors):
                value = np.float64(item[factor])
                product += user_factors[factor] * value
                square += value * value
            step = learning_rate * strengths[entry]
            # No further than to where the error is zero: an item may be long, steps must not grow.
            if step * (square + regularization) > 1.0:
                step = 1.0 / (square + regularization)
            shrink = 1.0 - step * regularization
            step *= 1.0 - product
            for factor in range(n_factors):
                user_factors[factor] = shrink * user_factors[factor] + step * item[factor]
        for factor in range(n_factors):
            vectors[user, 0, factor] = np.float32(user_factors[factor])
    return vectors, n_learned


@compiled
def mean(
    item_keys: NDArray[np.uint64],
    words: NDArray[np.uint64],
    counts: NDArray[np.int64],
    rows: NDArray[np.int32],
    item_factors: NDArray[np.float32],
    strength: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Average the entries' items: u = Σ s_i v_i / Σ s_i. Arguments and result as of `replay`."""
    n_users, n_slots = words.shape
    n_factors = item_factors.shape[1]
    vectors = np.zeros((n_users, 1, n_factors), np.float32)
    n_learned = np.zeros(n_users, np.int64)
    kept = np.empty(n_slots, np.int64)
    strengths = np.empty(n_slots)
    user_factors = np.empty(n_factors)
    for user in range(n_users):
        n_learned[user] = _select(
            item_keys[user, : counts[user]], words[user], rows[user], strength, kept, strengths
        )
        if n_learned[user] == 0:
            continue
        # Of the sum, so that a share may be tiny and their sum still 1.
        total = strengths[: n_learned[user]].sum()
        user_factors[:] = 0.0
        for entry in range(n_learned[user]):
            item = item_factors[kept[entry]]
            share = strengths[entry] / total
            for factor in range(n_factors):
                user_factors[factor] += share * item[factor]
        for factor in range(n_factors):
            vectors[user, 0, factor] = np.float32(user_factors[factor])
    return vectors, n_learned


@compiled
def _select(
    item_keys: NDArray[np.uint64],
    words: NDArray[np.uint64],
    rows: NDArray[np.int32],
    strength: NDArray[np.float64],
    kept: NDArray[np.int64],
    strengths: NDArray[np.float64],
) -> int:
    """Write rows and strengths of the entries that are learned from; return how many."""
    any_down = False
    for slot in range(len(item_keys)):
        any_down |= is_thumbs_down(words[slot])
    n_entries = 0
    for slot in range(len(item_keys)):
        kind = np.int64(words[slot] & np.uint64(0xFF))
        value = np.int64(words[slot] >> np.uint64(8) & np.uint64(0xFF))
        if rows[slot] < 0 or strength[kind, value] <= 0.0:
            continue
        if any_down and has_thumbs_down(item_keys, words, item_keys[slot]):
            continue
        kept[n_entries] = rows[slot]
        strengths[n_entries] = strength[kind, value]
        n_entries += 1
    return n_entries
