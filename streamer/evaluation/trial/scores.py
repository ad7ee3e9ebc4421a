"""What a place in the ranking is worth, play by play.

With r candidates before the played title: it is a hit if r < k, gains ``1 / log2(r + 2)`` (there is
one relevant title, so that is NDCG) and has the reciprocal rank ``1 / (r + 1)``, both 0 beyond k.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ranks = NDArray[np.int32]
Values = NDArray[np.float64]


def recall(ranks: Ranks, k: int) -> Values:
    """Return 1 where the title is among the k best, else 0; float64, same shape."""
    return (ranks < k).astype(np.float64)


def ndcg(ranks: Ranks, k: int) -> Values:
    """Return the discounted gain of each, 0 to 1; float64, same shape."""
    return np.where(ranks < k, 1.0 / np.log2(ranks + 2.0), 0.0)


def mrr(ranks: Ranks, k: int) -> Values:
    """Return the reciprocal rank of each, 0 to 1; float64, same shape."""
    return np.where(ranks < k, 1.0 / (ranks + 1.0), 0.0)


METRICS: Final[Mapping[str, Callable[[Ranks, int], Values]]] = {
    "recall": recall,
    "ndcg": ndcg,
    "mrr": mrr,
}
