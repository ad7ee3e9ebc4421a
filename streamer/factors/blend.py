"""The served vector: recent taste fades into lasting taste while a viewer is away.

``g·unit(recent) + (1 - g)·unit(lasting)`` with ``g = 2^(-max(0, idle) / τ)``: within a sitting the
recent vector is far better, after days away it is worse than a long history.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors of length 1 along the last axis; a zero vector stays zero."""
    norms = np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True))
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def blend(
    vectors: NDArray[np.float32], idle_s: NDArray[np.float64], half_life_s: float
) -> NDArray[np.float32]:
    """Return the served vector of each user.

    Args:
        vectors: `recent` and `lasting`, shape (n_users, 2, n_factors).
        idle_s: Seconds since each user's newest event, shape (n_users,); negative counts as 0.
        half_life_s: τ of the model's manifest.

    Returns:
        float32, shape (n_users, n_factors); zero where both vectors are.
    """
    units = unit(vectors)
    share = np.exp2(-np.maximum(idle_s, 0.0) / half_life_s).astype(np.float32)[:, None]
    served: NDArray[np.float32] = share * units[:, 0] + (1 - share) * units[:, 1]
    return served
