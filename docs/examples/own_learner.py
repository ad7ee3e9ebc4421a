"""A learner of one's own: what the viewer watched last counts, and nothing else."""

import numpy as np

from streamer.factors import UNKNOWN_ROW, ItemModel, UserFactors, strengths
from streamer.history import HistoryBatch


class LastThree:
    """The sum of the three newest entries that the model knows, by strength."""

    name = "last_three"  # in the features of every viewer; another rule needs another name

    def __call__(self, histories: HistoryBatch, model: ItemModel) -> UserFactors:
        """Return one vector a viewer; each row of the batch on its own."""
        rows = model.rows_of(histories.item_keys)  # (n_users, n_slots), newest entry first
        weights = strengths(histories.words, model.strength_table)
        weights = np.where(rows == UNKNOWN_ROW, 0.0, weights)
        newest = np.cumsum(weights > 0, axis=1) <= 3
        weights = np.where(newest, weights, 0.0)
        items = model.item_factors[np.where(weights > 0, rows, 0)]  # (n_users, n_slots, n_factors)
        vectors = np.einsum("us,usf->uf", weights, items).astype(np.float32)
        return UserFactors(
            vectors=vectors[:, None, :],  # one vector: it stands for `recent` and `lasting`
            n_solved=np.count_nonzero(weights, axis=1).astype(np.int64),
            is_rejected=np.zeros(len(histories), bool),
        )
