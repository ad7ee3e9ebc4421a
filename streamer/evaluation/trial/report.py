"""What a replay found, computed from the trial, for programs and for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamer.evaluation.trial.bootstrap import Bootstrap, Interval
from streamer.evaluation.trial.breakdowns import Group, by_delay, by_history_length, by_pause
from streamer.evaluation.trial.calibration import Calibration, calibrate
from streamer.evaluation.trial.capacities import PLAY_CAPACITY, contender_name, history_bytes
from streamer.evaluation.trial.court import Board, Trial
from streamer.evaluation.trial.scores import METRICS
from streamer.evaluation.trial.targets import TargetKind


@dataclass(frozen=True, slots=True)
class Origin:
    """What was replayed.

    Attributes:
        model_id: Of the items.
        n_items: Titles of the model.
        n_factors: Of the model's vectors.
        n_events: Valid events of the log.
        n_users: Viewers with evidence.
        targets_from_ms: Plays later than this are targets, epoch milliseconds.
        target_kind: What was foreseen.
        rejected: Number of invalid records by reason.
    """

    model_id: int
    n_items: int
    n_factors: int
    n_events: int
    n_users: int
    targets_from_ms: int
    target_kind: TargetKind
    rejected: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a contender did.

    Attributes:
        metrics: ``recall@k``, ``ndcg@k`` and ``mrr@k``, 0 to 1.
        cold: Share of the targets at which it had no vector, and served popularity.
        coverage: Share of the catalogue that its lists of k best show, of `n_listed` targets.
        calibration: None where there is too little to tell.
    """

    metrics: Mapping[str, Interval]
    cold: float
    coverage: float
    calibration: Calibration | None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Report:
    """The result of a replay. In a notebook it shows itself as tables and plots.

    Attributes:
        origin: What was replayed.
        trial: The place of every target in every contender's ranking.
        standings: By contender: learners first, then the baselines.
        lifts: By learner, other contender and metric: how much more, .5 is 50 %.
        by_history_length: Recall by entries of the history.
        by_pause: Recall by time since the newest entry.
        by_delay: Recall of the learners by how late events come, on `trial.delayed`.
    """

    origin: Origin
    trial: Trial
    standings: Mapping[str, Standing]
    lifts: Mapping[str, Mapping[str, Mapping[str, Interval]]]
    by_history_length: list[Group]
    by_pause: list[Group]
    by_delay: list[Group]

    @classmethod
    def of(cls, trial: Trial, origin: Origin) -> Report:
        """Compute the report of a trial."""
        names = list(trial.boards)
        labels = [f"{metric}@{trial.k}" for metric in METRICS]
        columns = [
            values(board.ranks, trial.k)
            for board in trial.boards.values()
            for values in METRICS.values()
        ]
        means = Bootstrap(np.stack(columns, axis=1), trial.targets.users)
        place = {
            (name, label): at
            for at, (name, label) in enumerate((name, label) for name in names for label in labels)
        }
        return cls(
            origin=origin,
            trial=trial,
            standings={
                name: Standing(
                    metrics={label: means.mean(place[name, label]) for label in labels},
                    cold=1.0 - float(board.is_warm.mean()),
                    coverage=_coverage(board, origin.n_items),
                    calibration=_calibration(board, trial),
                )
                for name, board in trial.boards.items()
            },
            lifts={
                learner: {
                    other: {
                        label: means.lift(place[learner, label], place[other, label])
                        for label in labels
                    }
                    for other in names
                    if other != learner
                }
                for learner in names[: trial.n_learners]
            },
            by_history_length=by_history_length(trial),
            by_pause=by_pause(trial),
            by_delay=by_delay(trial),
        )

    @property
    def n_targets(self) -> int:
        """How many plays were to be foreseen."""
        return len(self.trial.targets)

    @property
    def subject(self) -> str:
        """What was foreseen, in a few words."""
        return {
            TargetKind.PLAYS: "plays of titles new to their viewers",
            TargetKind.CONTACTS: "first contacts of viewers with titles",
        }[self.origin.target_kind]

    @property
    def learners(self) -> list[str]:
        """The names of the learners, without the baselines."""
        return list(self.standings)[: self.trial.n_learners]

    @property
    def mean_entries(self) -> Mapping[str, float]:
        """Entries of a history at a target, a mean: with the format's capacity, and with others."""
        trial = self.trial
        lengths = {contender_name(PLAY_CAPACITY): trial.history_lengths, **trial.long_lengths}
        return {name: float(each.mean()) for name, each in lengths.items()}

    def __repr__(self) -> str:
        label = f"recall@{self.trial.k}"
        recalls = (f"{n} {each.metrics[label].value:.4f}" for n, each in self.standings.items())
        return f"<Report of {self.n_targets:,} targets, {label}: {', '.join(recalls)}>"

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        from streamer.evaluation.trial.page import as_fragment  # noqa: PLC0415  it needs this module

        return as_fragment(self)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON; what cannot be told is null."""
        origin, trial = self.origin, self.trial
        label = f"recall@{trial.k}"
        return {
            "targets": self.n_targets,
            "learners": {name: _standing(each) for name, each in self.standings.items()},
            "lifts": {
                learner: {
                    other: {metric: _interval("lift", lift) for metric, lift in lifts.items()}
                    for other, lifts in others.items()
                }
                for learner, others in self.lifts.items()
            },
            "history_bytes": {
                name: history_bytes(entries) for name, entries in self.mean_entries.items()
            },
            "by_history_length": [_group(each, label) for each in self.by_history_length],
            "by_pause": [_group(each, label) for each in self.by_pause],
            "by_delay": [_group(each, label) for each in self.by_delay],
            "k": trial.k,
            "model_id": f"{origin.model_id:016x}",
            "items": origin.n_items,
            "events": origin.n_events,
            "viewers": origin.n_users,
            "viewers_with_targets": len(np.unique(trial.targets.users)),
            "targets_from": origin.targets_from_ms,
            "target_kind": str(origin.target_kind),
            "of_touched_titles": trial.targets.n_touched,
            "of_unknown_titles": trial.targets.n_unknown,
            "listed_targets": len(trial.listed),
            "rejected": dict(origin.rejected),
        }


def _coverage(board: Board, n_items: int) -> float:
    shown = np.unique(board.best_rows)
    return float(np.count_nonzero(shown >= 0)) / n_items


def _calibration(board: Board, trial: Trial) -> Calibration | None:
    is_warm = board.is_warm[trial.listed]
    targets = trial.listed[is_warm]
    is_hit = board.best_rows[is_warm] == trial.targets.item_rows[targets][:, None]
    return calibrate(board.best_scores[is_warm], is_hit, trial.targets.times_ms[targets])


def _standing(standing: Standing) -> dict[str, Any]:
    calibration = standing.calibration
    return {
        **{metric: interval.value for metric, interval in standing.metrics.items()},
        "intervals": {
            metric: [_number(interval.low), _number(interval.high)]
            for metric, interval in standing.metrics.items()
        },
        "cold": standing.cold,
        "coverage": standing.coverage,
        "calibration": None
        if calibration is None
        else {
            "error": calibration.error,
            "predicted": calibration.predicted.tolist(),
            "observed": calibration.observed.tolist(),
            "forecasts": calibration.n_forecasts,
        },
    }


def _interval(name: str, interval: Interval) -> dict[str, Any]:
    bounds = [_number(interval.low), _number(interval.high)]
    return {name: _number(interval.value), "interval": bounds}


def _group(group: Group, label: str) -> dict[str, Any]:
    recalls = {name: _number(value) for name, value in group.recall.items()}
    return {"label": group.label, "targets": group.n_targets, label: recalls}


def _number(value: float) -> float | None:
    """Return a number of JSON, which has no NaN."""
    return value if math.isfinite(value) else None
