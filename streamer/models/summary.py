"""What a person wants to know of a model before it goes live."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamer.factors import ItemModel


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """Numbers that tell a sound model from a broken one.

    Attributes:
        least_norm: Smallest length of an item's factors that is not 0; 0 if all are.
        median_norm: Median length.
        greatest_norm: Greatest length.
        n_zero_rows: Items without factors, which are never recommended by score.
        condition_number: Of ``VᵀV + λI``, at least 1; from about 1e10 on, vectors lose digits.
        most_popular: The most popular items with their popularity, in descending order.
    """

    least_norm: float
    median_norm: float
    greatest_norm: float
    n_zero_rows: int
    condition_number: float
    most_popular: tuple[tuple[str, float], ...]


def summarize(model: ItemModel, n_most_popular: int = 10) -> ModelSummary:
    """Return the summary; equal popularity is listed in row order. Reads all factors once."""
    norms = np.linalg.norm(model.item_factors, axis=1)
    is_zero = norms == 0
    spectrum = np.linalg.eigvalsh(model.item_gram) + model.params.regularization
    head = np.argsort(-model.popularity, kind="stable")[:n_most_popular].tolist()
    return ModelSummary(
        least_norm=float(norms[~is_zero].min()) if not is_zero.all() else 0.0,
        median_norm=float(np.median(norms)),
        greatest_norm=float(norms.max()),
        n_zero_rows=int(np.count_nonzero(is_zero)),
        condition_number=float(spectrum[-1] / spectrum[0]),
        most_popular=tuple((model.item_ids[row], float(model.popularity[row])) for row in head),
    )
