"""A replay's report as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from rich import box
from rich.console import Group as Renderables
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from streamer.cli.moments import in_utc
from streamer.cli.plan_costs import COSTS, REFERENCE_FACTORS
from streamer.evaluation.trial.bootstrap import Interval
from streamer.evaluation.trial.breakdowns import Group
from streamer.evaluation.trial.capacities import history_bytes
from streamer.evaluation.trial.contenders import FULL_HISTORY, NIGHTLY, POPULARITY
from streamer.evaluation.trial.report import Report


def as_table(report: Report) -> Renderables:
    """Return everything that is worth a look: who is how good, by how much, and when."""
    origin, targets = report.origin, report.trial.targets
    skipped = sum(origin.rejected.values())
    shown: list[RenderableType] = [
        f"{report.n_targets:,} {report.subject} after {in_utc(origin.targets_from_ms)} UTC; "
        f"{origin.n_events:,} events of {origin.n_users:,} viewers\n"
        f"no targets: {targets.n_touched:,} of titles that were touched before, "
        f"{targets.n_unknown:,} of unknown titles; {skipped:,} bad records skipped",
        _standings(report),
        *_lifts(report),
        _lists(report),
    ]
    if report.trial.long_lengths:
        shown.append(_prices(report))
    names = [*report.learners, *report.trial.long_lengths, FULL_HISTORY, NIGHTLY, POPULARITY]
    label = f"recall@{report.trial.k}"
    shown += [
        _groups(f"{label} by entries of the history", report.by_history_length, names),
        _groups(f"{label} by time since the newest entry", report.by_pause, names),
        _groups(f"{label} if events come later", report.by_delay, report.learners),
    ]
    return Renderables(*shown)


def _standings(report: Report) -> Table:
    labels = list(next(iter(report.standings.values())).metrics)
    table = _table("learner", labels[0], "95 %", *labels[1:])
    for place, (name, standing) in enumerate(report.standings.items(), 1):
        first, *others = (standing.metrics[label] for label in labels)
        table.add_row(
            escape(name),
            f"{first.value:.4f}",
            "" if isnan(first.low) else f"{first.low:.3f} to {first.high:.3f}",
            *(f"{other.value:.4f}" for other in others),
            end_section=place == report.trial.n_learners,
        )
    return table


def _lists(report: Report) -> Table:
    """Return what the lists of k best are like."""
    table = _table("learner", "coverage", "calibration error", "cold")
    for place, (name, standing) in enumerate(report.standings.items(), 1):
        calibration = standing.calibration
        table.add_row(
            escape(name),
            f"{standing.coverage:.1%}",
            "" if calibration is None else f"{calibration.error:.4f}",
            f"{standing.cold:.1%}",
            end_section=place == report.trial.n_learners,
        )
    return table


def _prices(report: Report) -> Table:
    """Return what a viewer costs with each capacity, by the costs of docs/sizing.md."""
    title = "a viewer at a target, by the room for plays"
    table = _table("", "entries", "bytes of history", "µs to fold in", title=title)
    n_factors = report.origin.n_factors
    for name, entries in report.mean_entries.items():
        fold_us = COSTS.entry_us * entries * n_factors / REFERENCE_FACTORS
        table.add_row(name, f"{entries:.1f}", f"{history_bytes(entries):,.0f}", f"{fold_us:.1f}")
    return table


def _lifts(report: Report) -> list[str]:
    """Return a line for each pair of a learner and somebody else."""
    label = f"recall@{report.trial.k}"
    return [
        f"{escape(learner)} over {escape(other)}: {label} {_share(lifts[label])}"
        for learner, others in report.lifts.items()
        for other, lifts in others.items()
    ]


def _share(lift: Interval) -> str:
    if isnan(lift.value):
        return "cannot be told"
    bounds = "" if isnan(lift.low) else f" (95 %: {lift.low:+.1%} to {lift.high:+.1%})"
    return f"{lift.value:+.1%}{bounds}"


def _groups(title: str, groups: Sequence[Group], names: Sequence[str]) -> Table:
    table = _table("", "targets", *names, title=title)
    for group in groups:
        recalls = (group.recall[name] for name in names)
        table.add_row(
            group.label,
            f"{group.n_targets:,}",
            *("" if isnan(recall) else f"{recall:.4f}" for recall in recalls),
        )
    return table


def _table(first: str, *others: str, title: str | None = None) -> Table:
    """Return a table of numbers beside a name."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for other in others:
        table.add_column(escape(other), justify="right", overflow="fold")
    return table
