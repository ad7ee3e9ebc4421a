"""Whitened item factors, computed when they are first needed and kept for the popular items."""

from __future__ import annotations

from threading import Lock
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

Real = TypeVar("Real", np.float32, np.float64)

MAX_ROWS: Final = 65_536
"""48 MB at 64 factors; more if one call needs them. To whiten an item takes n_factors² products."""
NO_ROW: Final = -1


class WhitenedItems:
    """A bounded table of rows x = L⁻¹ v, in two precisions.

    Hold `lock` from `rows_of` until the tables were read.

    Attributes:
        lock: See above.
        doubles: float64, shape (n_rows, n_factors).
        singles: float32, the same rounded.
    """

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
        self._make_tables(min(n_items, MAX_ROWS), n_factors)
        self._item_factors = item_factors
        self._whitening = whitening
        self._row_of_item = np.full(n_items, NO_ROW, np.int32)
        self._n_used = 0

    def rows_of(self, items: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return where the tables have these items, same shape; NO_ROW for a negative one."""
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

        if self._n_used + len(missing) > len(self.doubles):
            self._row_of_item.fill(NO_ROW)
            self._n_used = 0
            missing = np.unique(needed)
            if len(missing) > len(self.doubles):
                self._make_tables(len(missing), self.doubles.shape[1])
        added = slice(self._n_used, self._n_used + len(missing))
        factors = np.asarray(self._item_factors[missing], np.float64)
        # Not as one product: BLAS rounds a row by what is multiplied with it.
        kernels.whiten(factors, self._whitening, self.doubles[added])
        self.singles[added] = self.doubles[added]
        self._row_of_item[missing] = np.arange(added.start, added.stop, dtype=np.int32)
        self._n_used = added.stop

    def _make_tables(self, n_rows: int, n_factors: int) -> None:
        self.doubles = np.empty((n_rows, n_factors))
        self.singles = np.empty((n_rows, n_factors), np.float32)
