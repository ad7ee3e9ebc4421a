"""The item model: item factors with everything the learner needs, as one value.

Notation as in Hu, Koren, Volinsky 2008: V is ``item_factors``, shape (n_items, n_factors),
``G = VᵀV`` is the item Gram matrix, λ the regularization, α the confidence of one unit of
strength. ``G + λI = L Lᵀ`` is factored once; rows of ``V L⁻ᵀ`` are *whitened* item factors, in
which the regularised problem becomes the plain ridge regression of `recency_fold_in`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.errors import ModelError
from streamer.factors.signals import Signals
from streamer.factors.whitened import WhitenedItems
from streamer.history import item_keys as keys_of

UNKNOWN_ROW = -1
MAX_WEIGHT: Final = 1e9
"""Of one entry, α times its strength. The error of a solve grows with it: measured against exact
fractions it is 5e-8 here, 4e-7 at 1e10, and 3e-5, more than is promised, at 1e12."""
MAX_CONDITION: Final = 1e11
"""Of G + λI. The error grows with it too: 2e-6 at 3e10, 2e-3 at 3e13."""
SOLVE_ERROR: Final = 1e-6
"""‖Δ‖ / ‖u‖ by ending a solve; with what rounding adds, 1e-5 is promised."""
MAX_SPREAD: Final = 1e4
"""Of the eigenvalues of a user's whitened system that is iterated in float64; see `kernels`."""
MAX_SPREAD_OF_SINGLES: Final = 48.0
"""The same in float32, times the condition of the whitening: of 640,000 users of random models, the
worst was off by 5e-6."""
SINGLES: Final = (1e-12, 1e12)
"""The whitening's diagonal must be within, or float32 rounds it to nothing."""
MIN_HALF_LIFE: Final = 1e-6
"""Shorter ones divide by almost nothing."""
MAX_FACTOR: Final = 1e30
"""Of an item, so that no score overflows float32."""


@dataclass(frozen=True, slots=True)
class FoldInParams:
    """What travels in a model's manifest beside its factors.

    Attributes:
        alpha: α, weight of one unit of strength against an unseen item; > 0, and at most
            MAX_WEIGHT for the greatest strength.
        regularization: λ > 0.
        recency_half_life: h, in units of newer strength, after which an entry counts half;
            at least MIN_HALF_LIFE.
        recency_floor: c, the share of an entry's strength that never fades; 0 to 1.
        blend_half_life_s: τ, seconds of idling after which `recent` counts half; at least
            MIN_HALF_LIFE.
        signals: Strengths of the kinds of interactions.
    """

    alpha: float
    regularization: float
    recency_half_life: float = 5.0
    recency_floor: float = 0.05
    blend_half_life_s: float = 1800.0
    signals: Signals = field(default_factory=Signals)

    def __post_init__(self) -> None:
        for name in ("alpha", "regularization", "recency_half_life", "blend_half_life_s"):
            number = getattr(self, name)
            if not (np.isfinite(number) and number > 0):
                raise ValueError(f"{name} is {number}; it must be finite and > 0")
        for name in ("recency_half_life", "blend_half_life_s"):
            if getattr(self, name) < MIN_HALF_LIFE:
                raise ValueError(f"{name} is {getattr(self, name)}; at least {MIN_HALF_LIFE:g}")
        strongest = float(self.signals.table().max())
        if self.alpha * strongest > MAX_WEIGHT:
            raise ValueError(
                f"alpha is {self.alpha} and the greatest strength is {strongest}; their product "
                f"may be {MAX_WEIGHT:g} at most, or vectors are not exact"
            )
        if not 0 <= self.recency_floor <= 1:
            raise ValueError(f"recency_floor is {self.recency_floor}; it must be in 0 to 1")


@dataclass(frozen=True, eq=False)
class ItemModel:
    """A trained item model, ready to fold in with. Build it with `ItemModel.of`.

    Attributes:
        model_id: 64-bit id; vectors of different model ids must never be multiplied.
        params: The manifest's parameters.
        item_ids: Ids in row order.
        item_keys: uint64, shape (n_items,), the ids' keys in row order.
        item_factors: float32, shape (n_items, n_factors).
        popularity: float32, shape (n_items,), >= 0; what a viewer without history gets.
        item_gram: float64, shape (n_factors, n_factors), G.
        whitening: float64, shape (n_factors, n_factors), L⁻ᵀ.
    """

    model_id: int
    params: FoldInParams
    item_ids: Sequence[str]
    item_keys: NDArray[np.uint64]
    item_factors: NDArray[np.float32]
    popularity: NDArray[np.float32]
    item_gram: NDArray[np.float64]
    whitening: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        model_id: int,
        params: FoldInParams,
        item_ids: Sequence[str],
        item_factors: NDArray[np.float32],
        popularity: NDArray[np.float32],
    ) -> ItemModel:
        """Check the parts against each other and derive the rest.

        Raises:
            ModelError: Wrong shapes or dtypes, NaN or infinity, duplicate ids, colliding keys, or
                a Gram matrix that is not positive definite with the regularization.
        """
        _ensure_table(item_ids, item_factors, popularity)
        keys = keys_of(item_ids)
        _ensure_distinct(item_ids, keys)
        gram = _gram(item_factors)
        return cls(
            model_id=model_id,
            params=params,
            item_ids=item_ids,
            item_keys=keys,
            item_factors=item_factors,
            popularity=popularity,
            item_gram=gram,
            whitening=_whitening(gram, params.regularization),
        )

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.item_keys)

    @property
    def n_factors(self) -> int:
        """Dimension of the vectors."""
        return int(self.item_factors.shape[1])

    @cached_property
    def _key_order(self) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
        order = np.argsort(self.item_keys)
        return self.item_keys[order], order

    @cached_property
    def hash_table(self) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
        """The items by key, for `kernels.find_items`."""
        from streamer.factors import kernels  # noqa: PLC0415  takes half a second; not all need it

        return kernels.hash_table(self.item_keys)

    @cached_property
    def strength_table(self) -> NDArray[np.float64]:
        """Strength of every (kind, value), float64, shape (256, 256)."""
        return self.params.signals.table()

    @cached_property
    def fade_table(self) -> NDArray[np.float64]:
        """How much an entry of every (kind, value) fades older ones: 2^(-min(1, s) / h)."""
        return np.exp2(-np.minimum(self.strength_table, 1.0) / self.params.recency_half_life)

    @cached_property
    def whitened(self) -> WhitenedItems:
        """Rows of V L⁻ᵀ, as they were needed."""
        return WhitenedItems(self.item_factors, self.whitening)

    @cached_property
    def tolerance(self) -> float:
        """Of a solution in whitened coordinates, for SOLVE_ERROR in those of the items."""
        return SOLVE_ERROR / self._condition

    @cached_property
    def max_spread_of_singles(self) -> float:
        """Of the eigenvalues of a user's system that may be solved in float32; 0 for none."""
        diagonal = np.diagonal(self.whitening)
        is_in_range = (diagonal >= SINGLES[0]).all() and (diagonal <= SINGLES[1]).all()
        return MAX_SPREAD_OF_SINGLES / self._condition if is_in_range else 0.0

    @cached_property
    def whitening_in_singles(self) -> NDArray[np.float32]:
        """The whitening, float32."""
        with np.errstate(over="ignore"):  # it is not used then
            return self.whitening.astype(np.float32)

    @cached_property
    def _condition(self) -> float:
        return float(np.linalg.cond(self.whitening))

    def rows_of(self, item_keys: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return each key's row in the factor table, same shape; UNKNOWN_ROW if it has none."""
        keys, rows = self._key_order
        position = np.minimum(np.searchsorted(keys, item_keys), len(keys) - 1)
        found: NDArray[np.intp] = np.where(keys[position] == item_keys, rows[position], UNKNOWN_ROW)
        return found


def _ensure_table(
    item_ids: Sequence[str], item_factors: NDArray[np.float32], popularity: NDArray[np.float32]
) -> None:
    if item_factors.dtype != np.float32 or item_factors.ndim != 2:
        raise ModelError(
            f"item_factors.npy: expected a float32 table of n_items x n_factors, "
            f"found {item_factors.dtype} of shape {item_factors.shape}"
        )
    n_items, n_factors = item_factors.shape
    if n_items == 0 or not 1 <= n_factors <= 1024:
        raise ModelError(
            f"item_factors.npy: shape {item_factors.shape}; at least 1 item and 1 to 1024 factors"
        )
    if len(item_ids) != n_items:
        raise ModelError(f"item_ids.json: {len(item_ids)} ids for {n_items} rows of factors")
    if popularity.shape != (n_items,):
        raise ModelError(f"popularity.npy: shape {popularity.shape}, expected ({n_items},)")
    # All at once, and row by row only where that fails.
    if not max(item_factors.max(), -item_factors.min()) <= MAX_FACTOR:  # NaN is not
        greatest = np.maximum(item_factors.max(axis=1), -item_factors.min(axis=1))
        row = int(np.argmin(greatest <= MAX_FACTOR))
        what = "has a factor beyond 1e30" if np.isfinite(greatest[row]) else "is not finite"
        raise ModelError(f"item_factors.npy: row {row} {what}")
    fit = np.isfinite(popularity) & (popularity >= 0)
    if not fit.all():
        row = int(np.argmin(fit))
        raise ModelError(
            f"popularity.npy: row {row} is {popularity[row]}; expected finite and >= 0"
        )


def _ensure_distinct(item_ids: Sequence[str], keys: NDArray[np.uint64]) -> None:
    order = np.argsort(keys, kind="stable")
    collisions = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    if len(collisions):
        first, second = (int(order[collisions[0]]), int(order[collisions[0] + 1]))
        what = "the same id" if item_ids[first] == item_ids[second] else "colliding keys"
        raise ModelError(f"item_ids.json: rows {first} and {second} have {what}")


def _whitening(gram: NDArray[np.float64], regularization: float) -> NDArray[np.float64]:
    """Return L⁻ᵀ of G + λI = L Lᵀ."""
    regularized = gram + regularization * np.eye(len(gram))
    try:
        lower = np.linalg.cholesky(regularized)
        eigenvalues = np.linalg.eigvalsh(regularized)
    except np.linalg.LinAlgError as error:
        raise ModelError(
            "item_factors.npy: VᵀV + λI is not positive definite; raise the regularization"
        ) from error
    if not eigenvalues[-1] <= MAX_CONDITION * eigenvalues[0]:
        raise ModelError(
            f"item_factors.npy: VᵀV + λI is not positive definite by enough: its eigenvalues are "
            f"{eigenvalues[0]:.1e} to {eigenvalues[-1]:.1e}, the greatest may be "
            f"{MAX_CONDITION:g} times the least; raise the regularization"
        )
    whitening: NDArray[np.float64] = np.linalg.inv(lower).T.copy()
    return whitening


def _gram(item_factors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return VᵀV in float64, a slice of V at a time: a mapped file stays shared, not copied."""
    n_factors = item_factors.shape[1]
    gram = np.zeros((n_factors, n_factors))
    for start in range(0, len(item_factors), 65_536):
        block = item_factors[start : start + 65_536].astype(np.float64)
        gram += block.T @ block
    return gram
