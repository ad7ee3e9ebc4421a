"""The fold-in without recency: what `recency_fold_in` publishes as `lasting`, alone.

The formula is that of `recency_fold_in` with c = 1, so ``w_i = s_i``. Without recency there is no
second point of view, so each user has one vector, which readers take for both.
"""

from __future__ import annotations

from streamer.factors.learner import UserFactors
from streamer.factors.model import ItemModel
from streamer.factors.recency_fold_in import RecencyFoldIn
from streamer.history import HistoryBatch


class FlatFoldIn:
    """One vector, in which every entry weighs as much as its strength."""

    name = "flat_fold_in"

    def __call__(self, histories: HistoryBatch, model: ItemModel) -> UserFactors:
        """Return the vector of every history; as exact and as checked as `RecencyFoldIn`.

        It costs as much: the loops make both vectors of a user at once.
        """
        both = RecencyFoldIn()(histories, model)
        return UserFactors(both.vectors[:, 1:].copy(), both.n_solved, both.is_rejected)
