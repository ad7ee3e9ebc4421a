"""What a replay found, for programs, for the terminal and for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamer.evaluation.scores import METRICS
from streamer.evaluation.trial import Trial
from streamer.factors import ItemModel


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """The result of a replay.

    Attributes:
        trial: The place of every target in every contender's ranking.
        model: The items.
        n_events: Valid events of the log.
        rejected: Number of invalid ones by reason.
    """

    trial: Trial
    model: ItemModel
    n_events: int
    rejected: Mapping[str, int]

    @property
    def n_targets(self) -> int:
        """How many plays were foreseen, or not."""
        return len(self.trial.targets)

    def metrics(self) -> dict[str, dict[str, float]]:
        """Return ``recall@k``, ``ndcg@k`` and ``mrr@k`` of every contender, 0 to 1."""
        k = self.trial.k
        return {
            name: {
                f"{metric}@{k}": float(values(board.ranks, k).mean())
                for metric, values in METRICS.items()
            }
            for name, board in self.trial.boards.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Return the whole report as JSON."""
        return {
            "targets": self.n_targets,
            "model_id": f"{self.model.model_id:016x}",
            "k": self.trial.k,
            "events": self.n_events,
            "rejected": dict(self.rejected),
            "learners": self.metrics(),
        }
