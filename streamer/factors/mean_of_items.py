"""The plainest learner: a user is the mean of the items, weighted by strength.

::

    u = Σ s_i v_i / Σ s_i

over entries whose item the model knows, that no thumbs-down hides and that are none themselves. It
has no parameter of its own, and any learner that is worth its cost foretells better.
"""

from __future__ import annotations

import numpy as np

from streamer.factors.learner import UserFactors
from streamer.factors.model import ItemModel
from streamer.history import HistoryBatch


class MeanOfItems:
    """One vector: the mean of what was watched."""

    name = "mean_of_items"

    def __call__(self, histories: HistoryBatch, model: ItemModel) -> UserFactors:
        """Return the vector of every history; a row never depends on its batch."""
        from streamer.factors import entry_kernels, kernels  # noqa: PLC0415  takes half a second

        keys, counts = histories.item_keys, histories.counts
        rows = kernels.find_items(keys, counts, *model.hash_table)
        vectors, n_learned = entry_kernels.mean(
            keys,
            histories.words,
            counts,
            rows,
            entry_kernels.read_only(model.item_factors),
            model.strength_table,
        )
        return UserFactors(vectors, n_learned, np.zeros(len(histories), bool))
