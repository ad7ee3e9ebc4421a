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


def digests(histories: HistoryBatch) -> NDArray[np.uint64]:
    """Return the digest of each history, uint64, shape (n_users,)."""
    from streamer.history import kernels  # noqa: PLC0415  takes half a second; not all need it

    return kernels.digest(
        histories.item_keys, histories.words, histories.counts, histories.forgotten_before_ms
    )
