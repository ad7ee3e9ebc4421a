"""A replay's report as HTML: a part of a notebook, or a page of its own that works offline.

Whatever comes from outside, the names of learners above all, is escaped; there is no script.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from math import isnan
from typing import Final

from streamer.errors import ConfigError
from streamer.evaluation.trial.bootstrap import Interval
from streamer.evaluation.trial.breakdowns import Group
from streamer.evaluation.trial.contenders import FULL_HISTORY, NIGHTLY, POPULARITY
from streamer.evaluation.trial.plots import plots
from streamer.evaluation.trial.report import Report

_STYLE: Final = """
.streamer-replay { font-family: system-ui, sans-serif; max-width: 60rem; line-height: 1.4; }
.streamer-replay table { border-collapse: collapse; margin: .5rem 0 1.5rem; font-size: .9rem; }
.streamer-replay th, .streamer-replay td { padding: .2rem .7rem; text-align: right;
  border-bottom: 1px solid #8884; font-variant-numeric: tabular-nums; }
.streamer-replay th:first-child, .streamer-replay td:first-child { text-align: left; }
.streamer-replay tr.learner { font-weight: 600; }
.streamer-replay figure { margin: 0 0 1.5rem; background: white; color: black; }
.streamer-replay svg { max-width: 100%; height: auto; }
"""


def as_page(report: Report) -> str:
    """Return a whole page: one file, nothing to load.

    Raises:
        ConfigError: `matplotlib` is not installed.
    """
    names = ", ".join(report.learners)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>Replay of {escape(names)}</title>\n</head>\n<body>\n"
        f"{_content(report, plots(report))}\n</body>\n</html>\n"
    )


def as_fragment(report: Report) -> str:
    """Return what a notebook shows; where plots cannot be drawn, it says what is missing."""
    try:
        return _content(report, plots(report))
    except ConfigError as error:
        return _content(report, {}) + f"<p><em>{escape(str(error))}</em></p>"


def _content(report: Report, drawn: Mapping[str, str]) -> str:
    label = f"recall@{report.trial.k}"
    names = [*report.learners, FULL_HISTORY, NIGHTLY, POPULARITY]
    figures = "".join(
        f"<figure>\n<figcaption>{escape(title)}</figcaption>\n{svg}</figure>\n"
        for title, svg in drawn.items()
    )
    return (
        f'<div class="streamer-replay">\n<style>{_STYLE}</style>\n'
        f"<h1>Replay of {escape(', '.join(report.learners))}</h1>\n{_origin(report)}"
        f"{_standings(report)}{_lifts(report, label)}{figures}"
        f"{_groups(f'{label} if events come later', report.by_delay, report.learners)}"
        f"{_groups(f'{label} by entries of the history', report.by_history_length, names)}"
        f"{_groups(f'{label} by time since the newest entry', report.by_pause, names)}</div>"
    )


def _origin(report: Report) -> str:
    origin, targets = report.origin, report.trial.targets
    begin = datetime.fromtimestamp(origin.targets_from_ms / 1000, UTC)
    rejected = "".join(f", {count:,} {reason}" for reason, count in origin.rejected.items())
    facts = (
        f"{report.n_targets:,} {report.subject}, after {begin:%Y-%m-%d %H:%M:%S} UTC.",
        f"{origin.n_events:,} events of {origin.n_users:,} viewers; model "
        f"{origin.model_id:016x}, {origin.n_items:,} titles.",
        f"No targets: {targets.n_touched:,} of titles that were touched before, "
        f"{targets.n_unknown:,} of titles that the model does not know.",
        f"Bad records skipped: {sum(origin.rejected.values()):,}{rejected}.",
        f"Delays were asked of {len(report.trial.delayed):,} targets, coverage and calibration of "
        f"{len(report.trial.listed):,}, spread evenly.",
    )
    return "".join(f"<p>{escape(fact)}</p>\n" for fact in facts)


def _standings(report: Report) -> str:
    labels = list(next(iter(report.standings.values())).metrics)
    head = ["", labels[0], "95 %", *labels[1:], "coverage", "calibration error", "cold"]
    rows = []
    for name, standing in report.standings.items():
        first, *others = (standing.metrics[label] for label in labels)
        calibration = standing.calibration
        rows.append(
            (
                name,
                f"{first.value:.4f}",
                "" if isnan(first.low) else f"{first.low:.3f} to {first.high:.3f}",
                *(f"{other.value:.4f}" for other in others),
                f"{standing.coverage:.1%}",
                "" if calibration is None else f"{calibration.error:.4f}",
                f"{standing.cold:.1%}",
            )
        )
    return _table("", head, rows, report.trial.n_learners)


def _lifts(report: Report, label: str) -> str:
    rows = [
        (f"{learner} over {other}", *_lift(lifts[label]))
        for learner, others in report.lifts.items()
        for other, lifts in others.items()
    ]
    return _table(f"{label}: how much more", ["", "lift", "95 %"], rows)


def _lift(lift: Interval) -> tuple[str, str]:
    if isnan(lift.value):
        return "", ""
    return f"{lift.value:+.1%}", "" if isnan(lift.low) else f"{lift.low:+.1%} to {lift.high:+.1%}"


def _groups(title: str, groups: Sequence[Group], names: Sequence[str]) -> str:
    rows = []
    for group in groups:
        recalls = [group.recall[name] for name in names]
        shown = ("" if isnan(recall) else f"{recall:.4f}" for recall in recalls)
        rows.append((group.label, f"{group.n_targets:,}", *shown))
    return _table(title, ["", "targets", *names], rows)


def _table(
    title: str, head: Sequence[str], rows: Iterable[Sequence[str]], n_learners: int = 0
) -> str:
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr{' class=learner' if at < n_learners else ''}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>\n"
        for at, row in enumerate(rows)
    )
    heading = f"<h2>{escape(title)}</h2>\n" if title else ""
    return f"{heading}<table>\n<tr>{cells}</tr>\n{body}</table>\n"
