"""Incremental SGD over the bounded history: ISGD of Vinagre, Jorge, Gama 2014, replayed.

"Fast Incremental Matrix Factorization for Recommendation with Positive-Only Feedback" takes one
step an event. A running vector would count a duplicate twice and depend on the order of arrival, so
the steps are taken anew over the history, oldest first, from zero, with the items held fixed::

    γ    = tr(VᵀV) / n_items            mean ‖v‖², so that the scale of a model does not matter
    e_i  = 1 - u·v_i
    u   <- u + η_i (e_i v_i - λ γ u)    η_i = min(η s_i / γ, 1 / (‖v_i‖² + λ γ))

over entries whose item the model knows, that no thumbs-down hides and that are none themselves:
feedback is positive only. The minimum ends a step where its error is zero, so that u stays bounded
whatever the items are.

η λ is how fast older entries are forgotten: with η = 0.5 and λ = 0.3 half is left after 4.3 full
plays, about as with the default half-life of `recency_fold_in`.
"""

from __future__ import annotations

import numpy as np

from streamer.factors.learner import UserFactors
from streamer.factors.model import ItemModel
from streamer.history import HistoryBatch


class SgdReplay:
    """One vector: later steps undo part of earlier ones, which is its recency.

    A subclass may set other rates, under another `name`.

    Attributes:
        learning_rate: η > 0.
        regularization: λ >= 0.
    """

    name = "sgd_replay"
    learning_rate: float = 0.5
    regularization: float = 0.3

    def __call__(self, histories: HistoryBatch, model: ItemModel) -> UserFactors:
        """Return the vector of every history; a row never depends on its batch.

        Returns:
            float32 vectors. A row is rejected if float32 cannot hold it.
        """
        from streamer.factors import entry_kernels, kernels  # noqa: PLC0415  takes half a second

        mean_square = float(np.trace(model.item_gram)) / model.n_items
        keys, counts = histories.item_keys, histories.counts
        rows = kernels.find_items(keys, counts, *model.hash_table)
        vectors, n_learned = entry_kernels.replay(
            keys,
            histories.words,
            counts,
            rows,
            entry_kernels.read_only(model.item_factors),
            model.strength_table,
            self.learning_rate / mean_square if mean_square > 0 else 0.0,
            self.regularization * mean_square,
        )
        return UserFactors(vectors, n_learned, ~np.isfinite(vectors).all(axis=(1, 2)))
