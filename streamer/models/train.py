"""Training an item model from a log of events: small, deterministic, and judged by its own users.

α and λ are chosen on the log itself: a model of the first nine tenths (by time) for each point of
a small grid, measured by `streamer.models.recall` on the last tenth. Then everything is fitted once
more with the winner. The same events, plan and machine give the same model id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count, product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamer import __version__
from streamer.errors import ModelError
from streamer.factors import FoldInParams, ItemModel, Signals
from streamer.models.als import AlsPlan, fit_item_factors
from streamer.models.observations import TrainingSet, prepare
from streamer.models.recall import K, Recall, ask, measure, split_in_time
from streamer.models.training_log import TrainingLog

Weights = tuple[float, float]
"""α and λ."""
OnProgress = Callable[[str, int, int], None]
"""Told about a stage, the rounds done and the rounds of the stage."""

GRIDS: Final[dict[str, tuple[Weights, ...]]] = {
    "small": ((10.0, 10.0), (4.0, 1.0), (4.0, 10.0), (10.0, 30.0), (40.0, 10.0), (40.0, 50.0)),
    "full": tuple(product((10.0, 2.0, 4.0, 20.0, 40.0, 100.0), (10.0, 0.1, 1.0, 30.0, 100.0))),
}
"""The first pair of each is what is taken where nothing can be measured."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What to train.

    Attributes:
        als: Dimension, rounds and seed.
        min_uses: Items that fewer users have shown a liking for are left out.
        grid: Pairs of α and λ to choose from; the first one where nothing can be measured.
    """

    als: AlsPlan
    min_uses: int
    grid: Sequence[Weights]


@dataclass(frozen=True, slots=True)
class GridPoint:
    """How one pair of α and λ did."""

    alpha: float
    regularization: float
    recall: Recall


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """Everything that `write_model` needs, and how it was chosen.

    Attributes:
        params: With the chosen α and λ.
        item_ids: In ascending order.
        item_factors: float32, shape (n_items, n_factors).
        popularity: float32, shape (n_items,); users who have played the item.
        chosen: The winner on the last tenth.
        provenance: What went in, as JSON.
    """

    params: FoldInParams
    item_ids: list[str]
    item_factors: NDArray[np.float32]
    popularity: NDArray[np.float32]
    chosen: GridPoint
    provenance: dict[str, Any]

    def facts(self) -> dict[str, Any]:
        """Return what a summary says, as JSON."""
        return {
            "n_items": len(self.item_ids),
            "n_factors": int(self.item_factors.shape[1]),
            "n_users": self.provenance["n_users"],
            "alpha": self.params.alpha,
            "regularization": self.params.regularization,
            "n_questions": self.chosen.recall.n_questions,
            f"recall_at_{K}": _rounded(self.chosen.recall.fold_in),
            f"popularity_recall_at_{K}": _rounded(self.chosen.recall.popularity),
        }


def train(log: TrainingLog, plan: TrainingPlan, on_progress: OnProgress) -> TrainedModel:
    """Choose α and λ, then fit everything.

    Raises:
        ModelError: No item has enough users.
        ConfigError: `implicit` is not installed.
    """
    everything = prepare(log, plan.min_uses, Signals())
    if len(everything.known_items) == 0:
        raise ModelError(f"no item was liked by {plan.min_uses} users; lower --min-uses")
    grid = _try_grid(log, plan, on_progress)
    # The first of equals: without any question all are NaN, and the first pair is the choice.
    chosen = max(grid, key=lambda point: np.nan_to_num(point.recall.fold_in, nan=-1.0))
    weights = (chosen.alpha, chosen.regularization)
    model = _fit(log, everything, weights, plan.als, _rounds(on_progress, "fitting", plan, 1))
    return TrainedModel(
        params=model.params,
        item_ids=list(model.item_ids),
        item_factors=model.item_factors,
        popularity=model.popularity,
        chosen=chosen,
        provenance=_provenance(log, plan, everything, grid),
    )


def _try_grid(log: TrainingLog, plan: TrainingPlan, on_progress: OnProgress) -> list[GridPoint]:
    first, n_first = split_in_time(log)
    prepared = prepare(first, plan.min_uses, Signals())
    if len(prepared.known_items) == 0:
        return [GridPoint(*plan.grid[0], Recall(0, np.nan, np.nan))]
    questions = ask(log, n_first, prepared.known_items)
    on_round = _rounds(on_progress, "choosing", plan, len(plan.grid))
    return [
        GridPoint(*weights, measure(_fit(log, prepared, weights, plan.als, on_round), questions))
        for weights in plan.grid
    ]


def _fit(
    log: TrainingLog,
    prepared: TrainingSet,
    weights: Weights,
    als: AlsPlan,
    on_round: Callable[[], None],
) -> ItemModel:
    shape = (prepared.n_users, len(prepared.known_items))
    return ItemModel.of(
        model_id=0,
        params=FoldInParams(alpha=weights[0], regularization=weights[1]),
        item_ids=[log.item_ids[item] for item in prepared.known_items.tolist()],
        item_factors=fit_item_factors(prepared.observed, weights, shape, als, on_round),
        popularity=prepared.popularity,
    )


def _rounds(
    on_progress: OnProgress, stage: str, plan: TrainingPlan, n_fits: int
) -> Callable[[], None]:
    """Return what to call after each round of the fits of a stage."""
    done = count(1)
    return lambda: on_progress(stage, next(done), n_fits * plan.als.n_iterations)


def _provenance(
    log: TrainingLog, plan: TrainingPlan, prepared: TrainingSet, grid: Sequence[GridPoint]
) -> dict[str, Any]:
    return {
        "learner": "implicit.als",
        "versions": {"streamer": __version__}
        | {name: version(name) for name in ("implicit", "numpy", "scipy")},
        "seed": plan.als.seed,
        "iterations": plan.als.n_iterations,
        "min_uses": plan.min_uses,
        "n_events": log.n_events,
        "n_rejected": sum(log.rejected.values()),
        "n_users": prepared.n_users,
        "n_pairs": len(prepared.observed.users),
        "n_items_seen": len(log.item_ids),
        f"recall_at_{K}": [
            {
                "alpha": point.alpha,
                "regularization": point.regularization,
                "n_questions": point.recall.n_questions,
                "fold_in": _rounded(point.recall.fold_in),
                "popularity": _rounded(point.recall.popularity),
            }
            for point in grid
        ],
    }


def _rounded(share: float) -> float | None:
    """Return four digits; JSON has no NaN."""
    return None if np.isnan(share) else round(share, 4)
