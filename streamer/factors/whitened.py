"""Whitened item factors, computed when they are first needed and kept for the popular items."""

from __future__ import annotations

from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_ROWS: Final = 65_536
"""32 MB at 64 factors; more if one call needs them. To whiten an item takes n_factors² products."""
NO_ROW: Final = -1


class WhitenedItems:
    """A bounded table of rows x = L⁻¹ v. Hold `lock` from `rows_of` until `table` was read."""

    def __init__(
        self,
        item_factors: NDArray[np.float32],
        whitening: NDArray[np.float64],
    ) -> None:
        """Reserve room; the system gives the memory as it is used.

        Args:
            item_factors: float32, shape (n_items, n_factors).
            whitening: float64, shape (n_factors, n_factors), L⁻ᵀ.
        """
        n_items, n_factors = item_factors.shape
        self.lock = Lock()
        self.table = np.empty((min(n_items, MAX_ROWS), n_factors))
        self._item_factors = item_factors
        self._whitening = whitening
        self._row_of_item = np.full(n_items, NO_ROW, np.int32)
        self._n_used = 0

    def rows_of(self, items: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return where `table` has these items, same shape; NO_ROW for a negative one."""
        is_known = items >= 0
        rows = np.where(is_known, self._row_of_item[items], NO_ROW)
        is_missing = is_known & (rows == NO_ROW)
        if is_missing.any():
            self._add(np.unique(items[is_missing]), items[is_known])
            rows = np.where(is_known, self._row_of_item[items], NO_ROW)
        return rows

    def _add(self, missing: NDArray[np.int32], needed: NDArray[np.int32]) -> None:
        """Whiten the missing items; a full table is begun anew with all that is needed now."""
        from streamer.factors import kernels  # noqa: PLC0415  takes half a second; not all need it

        if self._n_used + len(missing) > len(self.table):
            self._row_of_item.fill(NO_ROW)
            self._n_used = 0
            missing = np.unique(needed)
            if len(missing) > len(self.table):
                self.table = np.empty((len(missing), self.table.shape[1]))
        end = self._n_used + len(missing)
        factors = np.asarray(self._item_factors[missing], np.float64)
        # Not as one product: BLAS rounds a row by what is multiplied with it.
        kernels.whiten(factors, self._whitening, self.table[self._n_used : end])
        self._row_of_item[missing] = np.arange(self._n_used, end, dtype=np.int32)
        self._n_used = end
