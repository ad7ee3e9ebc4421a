"""Item factors by alternating least squares: Hu, Koren, Volinsky 2008, solved by `implicit`.

The loss is the one that `streamer.factors.recency_fold_in` minimises for a user, taken over all
users and both sides. With the strength w and the target t of a (user, item) pair::

    Σ_all (u·v)² + α Σ_pairs w (t - u·v)² + λ (Σ ‖u‖² + Σ ‖v‖²)

so that the half-step of one user is ``A = VᵀV + λI + α Σ w v vᵀ``, ``b = α Σ w t v``. implicit
reads a matrix entry c as ``A += (|c| - 1) v vᵀ``, and ``b += c v`` where c > 0 (`cpu/als.py` of
0.7.3, function `user_linear_equation`): its confidence *replaces* the 1 of an unseen pair, ours
adds to it. A pair may have more than one entry, so ours is said exactly::

    t = 1   two entries,  αw and -2:     A += (αw - 1) + (2 - 1) = αw,  b += αw
    t = 0   one entry,    -(1 + αw):     A += αw

α is in the entries, because implicit's own `alpha` would also scale the -2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.errors import ConfigError
from streamer.models.observations import Observations


@dataclass(frozen=True, slots=True)
class AlsPlan:
    """How to fit.

    Attributes:
        n_factors: Dimension of the factors.
        n_iterations: Rounds of both half-steps.
        seed: Of the initial factors.
    """

    n_factors: int
    n_iterations: int
    seed: int


def fit_item_factors(
    observed: Observations,
    weights: tuple[float, float],
    shape: tuple[int, int],
    plan: AlsPlan,
    on_iteration: Callable[[], None],
) -> NDArray[np.float32]:
    """Return V; the same observations and seed give the same bits on the same machine.

    Args:
        observed: Evidence; every number is below `shape`.
        weights: α and λ.
        shape: n_users, n_items.
        plan: Dimensions, rounds, seed.
        on_iteration: Called after every round.

    Returns:
        float32, shape (n_items, n_factors).

    Raises:
        ConfigError: `implicit` is not installed.
    """
    try:
        # Inside the function: only training needs them, and they are an optional extra.
        from implicit.cpu.als import AlternatingLeastSquares  # noqa: PLC0415
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "training needs the package `implicit`: pip install 'streamer[train]'"
        ) from error
    alpha, regularization = weights
    # implicit warns when BLAS has threads of its own: they slow its small products down, and the
    # order of their sums is not the same twice.
    with threadpool_limits(1, "blas"):
        solver = AlternatingLeastSquares(
            factors=plan.n_factors,
            regularization=regularization,
            alpha=1.0,
            dtype=np.float32,
            iterations=plan.n_iterations,
            num_threads=1,
            random_state=plan.seed,
        )
        solver.fit(
            _confidences(observed, alpha, shape),
            show_progress=False,
            callback=lambda *_: on_iteration(),
        )
    factors: NDArray[np.float32] = solver.item_factors
    return factors


def _confidences(observed: Observations, alpha: float, shape: tuple[int, int]) -> Any:  # noqa: ANN401  scipy is not typed
    """Return implicit's matrix of entries, users by items, CSR with two entries of a liked pair."""
    from scipy.sparse import csr_matrix  # noqa: PLC0415  comes with implicit

    weighted = alpha * observed.strengths
    liked = np.flatnonzero(~observed.is_down)
    rows = np.concatenate([observed.users, observed.users[liked]])
    columns = np.concatenate([observed.items, observed.items[liked]])
    entries = np.concatenate(
        [np.where(observed.is_down, -(1 + weighted), weighted), np.full(len(liked), -2.0)]
    )
    order = np.lexsort((columns, rows))
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))])
    return csr_matrix((entries[order].astype(np.float32), columns[order], starts), shape)
