"""The work of everybody but streamer: one plain SGD step, on vectors kept in memory.

For a user's vector u and the vector v of an item that was watched: u += η (1 - u·v) v. No history,
no exactness, no compare-and-set. One vectorised step and one MSET a batch, the cheapest form there
is; the vectors are kept in the process, so nothing is ever read back from Redis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

N_FACTORS = 64
N_ITEMS = 20_000
LEARNING_RATE = np.float32(0.05)


def item_vectors() -> NDArray[np.float32]:
    """Return the item vectors, shape (N_ITEMS, N_FACTORS)."""
    rng = np.random.default_rng(3)
    return rng.normal(0, 0.1, (N_ITEMS, N_FACTORS)).astype(np.float32)


def item_row(item_id: str) -> int:
    """Return the row of an item such as ``title-00501``."""
    return int(item_id[6:])


def step(user: NDArray[np.float32], item: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one user's vector after one event."""
    return user + LEARNING_RATE * (1 - user @ item) * item


class UserVectors:
    """Every user's vector, in one growing table."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._items = item_vectors()
        self._row_of: dict[str, int] = {}
        self._table = np.zeros((1024, N_FACTORS), np.float32)

    def learn(self, user_ids: Sequence[str], item_ids: Sequence[str]) -> dict[str, bytes]:
        """Take one step with a batch of events; return what to write, one value a user."""
        row_of = self._row_of
        rows = [row_of.setdefault(user_id, len(row_of)) for user_id in user_ids]
        while len(row_of) > len(self._table):
            self._table = np.concatenate([self._table, np.zeros_like(self._table)])
        items = self._items[[item_row(item_id) for item_id in item_ids]]
        errors = 1 - np.einsum("ij,ij->i", self._table[rows], items)
        np.add.at(self._table, rows, LEARNING_RATE * errors[:, None] * items)
        return {
            f"{self._prefix}:{user_id}": self._table[row].tobytes()
            for user_id, row in dict(zip(user_ids, rows, strict=True)).items()
        }
