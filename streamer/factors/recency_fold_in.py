"""The default learner: exact weighted ridge regression of a user, items held fixed.

A variant of the user half-step of Hu, Koren, Volinsky 2008 ("Collaborative Filtering for Implicit
Feedback Datasets"). For one user with entries i, newest first::

    rank_i = Σ over newer entries j of min(1, s_j)
    w_i    = s_i · (c + (1 - c) · 2^(-rank_i / h))
    A      = G + λI + α · Σ w_i v_i v_iᵀ,   b = α · Σ w_i t_i v_i,   u = A⁻¹ b

with t_i = 0 for a thumbs-down and 1 otherwise; sums run over entries whose item the model knows and
that no thumbs-down hides. `kernels` solves it as compiled loops, `reference` in NumPy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamer.factors import reference
from streamer.factors.learner import UserFactors
from streamer.factors.model import MAX_SPREAD, ItemModel
from streamer.factors.whitened import Real
from streamer.history import HistoryBatch


class RecencyFoldIn:
    """`recent` with recency weights, `lasting` with none (c = 1)."""

    name = "recency_fold_in"

    def __call__(self, histories: HistoryBatch, model: ItemModel) -> UserFactors:
        """Return both vectors of every history.

        Returns:
            float32 vectors within 1e-5 (‖Δ‖/‖u‖) of a dense float64 solve, whatever the batch.
            A row is rejected if it is not finite or breaks ``uᵀ(G + λI)u ≤ α Σ w``, which holds
            for the exact solution because J(u) ≤ J(0).
        """
        from streamer.factors import kernels  # noqa: PLC0415  takes half a second; not all need it

        items = kernels.find_items(histories.item_keys, histories.counts, *model.hash_table)
        with model.whitened.lock:
            rows = model.whitened.rows_of(items)
            singles = model.whitened.singles, model.whitening_in_singles
            factors, hard = _iterate(histories, rows, model, singles, model.max_spread_of_singles)
            if len(hard):
                doubles = model.whitened.doubles, model.whitening
                again, still = _iterate(
                    histories.take(hard), rows[hard], model, doubles, MAX_SPREAD
                )
                _put(factors, hard, again)
                hard = hard[still]
        if len(hard):
            _put(factors, hard, reference.fold_in(histories.take(hard), model))
        return factors


def _iterate(
    histories: HistoryBatch,
    rows: NDArray[np.int32],
    model: ItemModel,
    whitened_and_whitening: tuple[NDArray[Real], NDArray[Real]],
    max_spread: float,
) -> tuple[UserFactors, NDArray[np.intp]]:
    """Solve in the precision of the tables; return also the users for whom that is not enough."""
    from streamer.factors import kernels  # noqa: PLC0415  as above

    vectors, n_solved, states = kernels.fold_in(
        histories.item_keys,
        histories.words,
        histories.counts,
        rows,
        *whitened_and_whitening,
        model.strength_table,
        model.fade_table,
        float(model.params.recency_floor),
        float(model.params.alpha),
        max_spread,
        model.tolerance,
        reference.BOUND_SLACK,
    )
    is_rejected = states == kernels.REJECTED
    hard = np.flatnonzero(states == kernels.NOT_SOLVED)
    return UserFactors(vectors, n_solved, is_rejected), hard


def _put(factors: UserFactors, users: NDArray[np.intp], other: UserFactors) -> None:
    """Overwrite what was found for some users."""
    factors.vectors[users], factors.is_rejected[users] = other.vectors, other.is_rejected
