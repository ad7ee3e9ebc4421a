"""The fold-in in NumPy: what `kernels` must equal, and the direct solve where that gives up.

With ``G + λI = L Lᵀ``, whitened items ``x_i = L⁻¹ v_i`` and ``y = √(α w)``, the user's vector is
``L⁻ᵀ Xᵀ D z`` where ``(I + D X Xᵀ D) z = y·t`` and ``D = diag(y)``: a system of the size of the
history instead of the number of factors, and one matrix ``X Xᵀ`` for both vectors. Its matrix is
positive definite whatever the weights.
"""

from __future__ import annotations

import contextlib
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.events import Kind, Thumb
from streamer.factors.learner import UserFactors
from streamer.factors.model import UNKNOWN_ROW, ItemModel
from streamer.factors.signals import strengths
from streamer.history import kinds, values

N_VECTORS: Final = 2
BOUND_SLACK: Final = 1e-6
"""Relative room for rounding in the bound uᵀ(G + λI)u ≤ α Σ w."""

_WIDTH_STEP: Final = 8
"""Users are solved together with others of the same number of entries, rounded up to this."""


class Entries(Protocol):
    """Histories as padded columns, newest entry first: a `HistoryBatch`, or longer ones.

    Attributes:
        item_keys: uint64, shape (n_users, n_slots).
        words: uint64, shape (n_users, n_slots); 0 in an empty slot.
    """

    @property
    def item_keys(self) -> NDArray[np.uint64]: ...  # noqa: D102  above

    @property
    def words(self) -> NDArray[np.uint64]: ...  # noqa: D102  above

    def __len__(self) -> int: ...


def fold_in(histories: Entries, model: ItemModel) -> UserFactors:
    """Return both vectors of every history, as `RecencyFoldIn` does."""
    n_users = len(histories)
    is_used = histories.words != 0
    item_rows = np.where(is_used, model.rows_of(histories.item_keys), UNKNOWN_ROW)
    strength = strengths(histories.words, model.strength_table)
    is_down = _thumbs_down(histories.words)
    is_solved = (item_rows != UNKNOWN_ROW) & (is_down | ~_hidden(histories.item_keys, is_down))
    is_solved &= strength > 0
    n_solved = np.count_nonzero(is_solved & ~is_down, axis=1)

    weights = _weights(strength, model)
    vectors = np.zeros((n_users, N_VECTORS, model.n_factors), np.float32)
    is_rejected = np.zeros(n_users, bool)
    widths = -(-np.count_nonzero(is_solved, axis=1) // _WIDTH_STEP) * _WIDTH_STEP
    widths[n_solved == 0] = 0
    for width in np.unique(widths[widths > 0]).tolist():
        users = np.flatnonzero(widths == width)
        # Solved entries first, so that `width` columns hold them all; the rest weigh nothing.
        slots = np.argsort(~is_solved[users], axis=1, kind="stable")[:, :width]
        take = (users[:, None], slots)
        weight = np.where(is_solved[take], weights[:, *take], 0.0)
        vectors[users], is_rejected[users] = _solve(
            item_rows[take], weight, (~is_down[take]).astype(np.float64), model
        )
    return UserFactors(
        vectors=vectors,
        n_solved=n_solved.astype(np.int64),
        is_rejected=is_rejected,
    )


def _thumbs_down(words: NDArray[np.uint64]) -> NDArray[np.bool_]:
    is_down: NDArray[np.bool_] = (kinds(words) == Kind.THUMB) & (values(words) == Thumb.DOWN)
    return is_down


def _hidden(item_keys: NDArray[np.uint64], is_down: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say which entries belong to an item that the same user gave a thumbs-down; same shape."""
    hidden = np.zeros(item_keys.shape, bool)
    users = np.flatnonzero(is_down.any(axis=1))
    if len(users) == 0:
        return hidden
    most = int(is_down[users].sum(axis=1).max())
    slots = np.argsort(~is_down[users], axis=1, kind="stable")[:, :most]
    down_keys = item_keys[users[:, None], slots]
    is_real = is_down[users[:, None], slots]
    for column in range(int(is_real.sum(axis=1).max())):
        same = item_keys[users] == down_keys[:, column, None]
        hidden[users] |= same & is_real[:, column, None]
    return hidden


def _weights(strength: NDArray[np.float64], model: ItemModel) -> NDArray[np.float64]:
    """Return w of every entry for both vectors, float64, shape (N_VECTORS, n_users, n_slots)."""
    floor, half_life = model.params.recency_floor, model.params.recency_half_life
    shares = np.minimum(strength, 1.0)
    rank = np.cumsum(shares, axis=1) - shares
    fade = floor + (1 - floor) * np.exp2(-rank / half_life)
    return np.stack([strength * fade, strength])


def _solve(
    item_rows: NDArray[np.intp],
    weights: NDArray[np.float64],
    targets: NDArray[np.float64],
    model: ItemModel,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Solve both systems of users with equally many entries.

    Args:
        item_rows: (n_users, width); any row where the weight is 0.
        weights: (N_VECTORS, n_users, width), >= 0.
        targets: (n_users, width), 1 or 0.
        model: The items.

    Returns:
        float32 (n_users, N_VECTORS, n_factors), and which users failed the check.
    """
    n_users, width = item_rows.shape
    distinct, where = np.unique(item_rows, return_inverse=True)
    whitened = model.item_factors[distinct].astype(np.float64) @ model.whitening
    x = whitened[where.reshape(item_rows.shape)]
    gram = x @ x.transpose(0, 2, 1)
    y = np.sqrt(model.params.alpha * weights)
    system = y[..., :, None] * gram * y[..., None, :]
    system[..., np.arange(width), np.arange(width)] += 1.0
    z = _solve_each(system, (y * targets)[..., None])
    solution = ((y * z[..., 0])[..., None, :] @ x)[..., 0, :]
    # In whitened coordinates ‖·‖² is uᵀ(G + λI)u.
    bound = (model.params.alpha * weights).sum(axis=2)
    holds = (solution**2).sum(axis=2) <= bound * (1 + BOUND_SLACK)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is rejected
        vectors = (solution @ model.whitening.T).astype(np.float32)
    is_sound = holds & np.isfinite(vectors).all(axis=2)
    assert vectors.shape == (N_VECTORS, n_users, model.n_factors)
    return vectors.transpose(1, 0, 2), ~is_sound.all(axis=0)


def _solve_each(system: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve many systems; one that float64 cannot tell from a singular one gives NaN."""
    try:
        solved = np.asarray(np.linalg.solve(system, right), np.float64)
    except np.linalg.LinAlgError:  # absurd parameters; it must not harm the other users
        solved = np.full(right.shape, np.nan)
        for index in np.ndindex(right.shape[:-2]):
            with contextlib.suppress(np.linalg.LinAlgError):
                solved[index] = np.linalg.solve(system[index], right[index])
    return solved
