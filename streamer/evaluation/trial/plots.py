"""The plots of a replay's report, each as an SVG that stands in a page."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from io import StringIO
from math import isnan
from typing import Any, Final

from streamer.errors import ConfigError
from streamer.evaluation.trial.breakdowns import Group
from streamer.evaluation.trial.contenders import FULL_HISTORY, NIGHTLY, POPULARITY
from streamer.evaluation.trial.report import Report

WIDTH: Final = 7.0
"""Inches, at 72 a pixel each; the page scales them."""
MAX_LABEL: Final = 40
_SETTINGS: Final = {
    "svg.fonttype": "none",  # text stays text: small, and a reader can select it
    "svg.hashsalt": "streamer",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_LEARNER_COLORS: Final = ("#0b6e4f", "#c8553d", "#3d5a98", "#8a5a9e", "#b08900")
_BASELINE_COLORS: Final = {FULL_HISTORY: "#555555", NIGHTLY: "#888888", POPULARITY: "#bbbbbb"}
_OTHER_COLOR: Final = "#999999"


def plots(report: Report) -> dict[str, str]:
    """Return each plot as SVG by its title.

    Raises:
        ConfigError: `matplotlib` is not installed.
    """
    mpl = ensure_plots()
    label = f"recall@{report.trial.k}"
    names = [*report.learners, FULL_HISTORY, NIGHTLY, POPULARITY]
    drawn: dict[str, Callable[[Any], None]] = {
        f"{label} of each, with 95 % intervals": lambda axes: _bars(axes, report, label),
        f"{label} if events come later": lambda axes: _lines(
            axes, report, report.by_delay, report.learners, "events are known after"
        ),
        f"{label} by entries of the history": lambda axes: _lines(
            axes, report, report.by_history_length, names, "entries of the history"
        ),
        f"{label} by time since the newest entry": lambda axes: _lines(
            axes, report, report.by_pause, names, "time since the newest entry"
        ),
    }
    if any(each.calibration is not None for each in report.standings.values()):
        drawn["Predicted and observed share of titles that are played next"] = lambda axes: (
            _reliability(axes, report)
        )
    with mpl.rc_context(_SETTINGS):
        return {title: _svg(draw) for title, draw in drawn.items()}


def ensure_plots() -> Any:  # noqa: ANN401  a module that is not always there
    """Return matplotlib.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        # Inside the function: only plots need it, and it is an optional extra.
        import matplotlib as mpl  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "plots need the package `matplotlib`: pip install 'streamer[replay]'"
        ) from error
    return mpl


def _svg(draw: Callable[[Any], None]) -> str:
    from matplotlib.figure import Figure  # noqa: PLC0415  as above

    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    draw(figure.subplots())
    out = StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = out.getvalue()
    return svg[svg.index("<svg") :]


def _bars(axes: Any, report: Report, label: str) -> None:  # noqa: ANN401  matplotlib's own types
    names = list(report.standings)
    places = range(len(names), 0, -1)
    for place, name in zip(places, names, strict=True):
        metric = report.standings[name].metrics[label]
        axes.barh(place, metric.value, color=_color(report, name), height=0.65)
        if not isnan(metric.low):
            axes.plot([metric.low, metric.high], [place, place], color="black", linewidth=1)
    axes.set_yticks(list(places), [_text(name) for name in names])
    axes.set_xlabel(label)


def _lines(
    axes: Any,  # noqa: ANN401  as above
    report: Report,
    groups: Sequence[Group],
    names: Sequence[str],
    x_label: str,
) -> None:
    """Draw a line a contender over the groups that have targets."""
    there = [group for group in groups if group.n_targets]
    labels = [f"{group.label}\n({group.n_targets:,})" for group in there]
    for name in names:
        axes.plot(
            range(len(there)),
            [group.recall[name] for group in there],
            marker="o",
            markersize=4,
            color=_color(report, name),
            label=_text(name),
        )
    axes.set_xticks(range(len(there)), labels)
    axes.set_xlabel(f"{x_label} (targets)")
    axes.set_ylabel(f"recall@{report.trial.k}")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)


def _reliability(axes: Any, report: Report) -> None:  # noqa: ANN401  as above
    greatest = 0.0
    for name, standing in report.standings.items():
        calibration = standing.calibration
        if calibration is None or not (name in report.learners or name == FULL_HISTORY):
            continue
        axes.plot(
            calibration.predicted,
            calibration.observed,
            marker="o",
            markersize=4,
            color=_color(report, name),
            label=_text(name),
        )
        greatest = max(greatest, calibration.predicted.max(), calibration.observed.max())
    axes.plot([0, greatest], [0, greatest], color="#cccccc", linestyle="--", linewidth=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("observed")
    axes.legend(frameon=False, fontsize=8)


def _color(report: Report, name: str) -> str:
    if name not in report.learners:
        return _BASELINE_COLORS.get(name, _OTHER_COLOR)
    return _LEARNER_COLORS[report.learners.index(name) % len(_LEARNER_COLORS)]


def _text(name: str) -> str:
    """Return a learner's name as it is, at most so long: a dollar would begin a formula."""
    short = name if len(name) <= MAX_LABEL else name[: MAX_LABEL - 1] + "…"
    return re.sub(r"\$", r"\\$", short)
