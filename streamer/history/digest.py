"""The digest of a history: a sum over its entries, so it does not depend on their order.

``digest = Σ mix(item_key + mix(word)) + mix(forgotten_before_ms + 1)  mod 2⁶⁴`` where `mix` is the
finaliser of splitmix64 (Steele, Lea, Flood 2014). Writers compare digests before they set; an
absent history has digest 0.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.history.batch import HistoryBatch

ABSENT_DIGEST: Final = 0


def mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit numbers one to one, same shape; arithmetic is modulo 2**64."""
    mixed = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def digests(histories: HistoryBatch) -> NDArray[np.uint64]:
    """Return the digest of each history, uint64, shape (n_users,)."""
    terms = mix(histories.item_keys + mix(histories.words))
    terms[histories.words == 0] = 0
    total: NDArray[np.uint64] = terms.sum(axis=1, dtype=np.uint64)
    return total + mix(histories.forgotten_before_ms + np.uint64(1))
