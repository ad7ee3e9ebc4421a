"""A replay's report as a table for the terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from streamer.evaluation.replay_report import Report


def as_table(report: Report) -> Group:
    """Return the table: one line a contender, learners first."""
    table = Table(title=f"{report.n_targets:,} plays of titles that are new to their viewers")
    table.add_column("learner")
    metrics = report.metrics()
    for metric in next(iter(metrics.values())):
        table.add_column(metric, justify="right")
    for place, (name, values) in enumerate(metrics.items(), 1):
        is_last_learner = place == report.trial.n_learners
        table.add_row(
            name, *(f"{value:.4f}" for value in values.values()), end_section=is_last_learner
        )
    return Group(table)
