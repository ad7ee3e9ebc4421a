"""`replay`: a recorded log, a model and learners in, a report out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from streamer.errors import ConfigError
from streamer.evaluation.trial.capacities import MAX_CAPACITY, contender_name
from streamer.evaluation.trial.contenders import BASELINES
from streamer.evaluation.trial.court import Court, OnProgress
from streamer.evaluation.trial.event_log import EventLog, collect_events
from streamer.evaluation.trial.report import Origin, Report
from streamer.evaluation.trial.targets import TargetKind, find_targets
from streamer.factors import ItemModel, Learner
from streamer.pipeline.records import Record

DEFAULT_K = 20
TargetsFrom = int | float
"""Epoch milliseconds, or as a float a share of the log, 0 to 1."""


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What to replay with.

    Attributes:
        model: The items.
        learners: By the names of the report; the first one is also `static`.
        targets_from: Plays later than this are foreseen.
        k: The cut-off.
        target_kind: What is foreseen.
        capacities: Of plays; the default learner is tried with each, beside what a history holds.
    """

    model: ItemModel
    learners: dict[str, Learner]
    targets_from: TargetsFrom
    k: int = DEFAULT_K
    target_kind: TargetKind = TargetKind.PLAYS
    capacities: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        others = [*BASELINES, *map(contender_name, self.capacities)]
        taken = [name for name in self.learners if name in others]
        if taken:
            raise ConfigError(
                f"a learner is called {taken[0]!r}, as another contender is; give it another name "
                f"than {', '.join(others)}"
            )
        if any(not 1 <= each <= MAX_CAPACITY for each in self.capacities):
            raise ConfigError(
                f"capacities {self.capacities}: a history may be tried with room for 1 to "
                f"{MAX_CAPACITY:,} plays"
            )


def replay_records(
    records: Iterable[Record], plan: ReplayPlan, on_progress: OnProgress = lambda *_: None
) -> Report:
    """Replay a log.

    Args:
        records: In any order.
        plan: What with.
        on_progress: Told about `scoring` and the like.

    Raises:
        ConfigError: The log has no event, or none of its plays is a target.
    """
    log = collect_events(records)
    first_position = _first_position(log, plan.targets_from)
    targets = find_targets(log, plan.model, first_position, plan.target_kind)
    if len(targets) == 0:
        raise ConfigError(_why_no_targets(log, targets.n_touched, targets.n_unknown))
    court = Court(log, plan.model, plan.learners, plan.capacities, first_position)
    trial = court.try_all(targets, plan.k, on_progress)
    origin = Origin(
        model_id=plan.model.model_id,
        n_items=plan.model.n_items,
        n_factors=plan.model.n_factors,
        n_events=log.n_events,
        n_users=len(log.user_ids),
        targets_from_ms=_targets_from_ms(log, first_position),
        target_kind=plan.target_kind,
        rejected=log.rejected,
    )
    return Report.of(trial, origin)


def _first_position(log: EventLog, targets_from: TargetsFrom) -> int:
    if isinstance(targets_from, float):
        return int(len(log) * targets_from)
    return log.position_after(targets_from)


def _targets_from_ms(log: EventLog, first_position: int) -> int:
    """Return the time of the last interaction that only fills histories; 0 if there is none."""
    earlier = log.times_ms[log.positions < first_position]
    return int(earlier.max(initial=0))


def _why_no_targets(log: EventLog, n_touched: int, n_unknown: int) -> str:
    if not log.n_events:
        found = ", ".join(f"{count} {reason}" for reason, count in log.rejected.items())
        return f"no valid event in the log; rejected: {found or 'nothing'}"
    return (
        f"nothing to foresee among {log.n_events} events: after --targets-from there are "
        f"{n_touched} of titles that their viewers had touched before and {n_unknown} of "
        "titles that the model does not know; give an earlier --targets-from, or the log that the "
        "model was not trained on"
    )
