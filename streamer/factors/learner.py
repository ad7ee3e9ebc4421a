"""What a learner is: a pure, vectorised function from histories and items to user factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.factors.model import ItemModel
from streamer.history import HistoryBatch


@dataclass(frozen=True, slots=True, eq=False)
class UserFactors:
    """What a learner made of a batch of histories.

    Attributes:
        vectors: float32, shape (n_users, n_vectors, n_factors); `recent`, then `lasting`.
        n_solved: int64, shape (n_users,); known entries with target 1 and weight > 0. Users with 0
            are cold and have zero vectors.
        is_rejected: bool, shape (n_users,); the solve failed its check, do not publish the row.
    """

    vectors: NDArray[np.float32]
    n_solved: NDArray[np.int64]
    is_rejected: NDArray[np.bool_]

    @property
    def pairs(self) -> NDArray[np.float32]:
        """`recent` and `lasting`, (n_users, 2, n_factors); an only vector stands for both."""
        return self.vectors[:, [0, min(1, self.vectors.shape[1] - 1)]]


class Learner(Protocol):
    """Histories and an item model in, user factors out; no clock, no I/O, no hidden state.

    A row's result must not depend on the other rows of its batch. Two threads may call at once.
    """

    name: str
    """Identifies the learner in features (`learner_id` is the CRC-32 of it)."""

    def __call__(self, histories: HistoryBatch, model: ItemModel) -> UserFactors:
        """Return the user factors of every history, in row order."""
        ...
