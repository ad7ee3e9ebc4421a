"""CPU, throughput and delay as one picture, PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

PANELS: Final = (
    ("CPU per event, µs", ("cpu_us_per_event",)),
    ("events a second, one process", ("events_per_second",)),
    ("delay p99 at 2,000/s, ms", ("latency_ms", "2000", "p99")),
    ("delay p99 at 10,000/s, ms", ("latency_ms", "10000", "p99")),
)
OURS: Final = "#c0392b"
THEIRS: Final = "#7f8c8d"


def plot(report: Mapping[str, Any], path: Path) -> list[Path]:
    """Draw medians with their spread, on logarithmic axes; return the files written."""
    import matplotlib as mpl  # noqa: PLC0415  of the bench extra, and slow to import

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
    for axis, (title, where) in zip(axes.flat, PANELS, strict=True):
        _bars(axis, title, _values(report["contenders"], where))
    machine = report["machine"]
    figure.suptitle(f"streamer and others on {machine['cores']} cores of {machine['cpu']}")
    files = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    for file in files:
        figure.savefig(file, dpi=130)
    plt.close(figure)
    return files


def _values(contenders: Mapping[str, Any], where: tuple[str, ...]) -> dict[str, Mapping[str, Any]]:
    """Return each contender's figure; one that fell behind is named so."""
    values = {}
    for name, figures in contenders.items():
        found, label = figures, name
        for part in where:
            if found.get("kept_up") is False:
                label = f"{name} (fell behind)"
            found = found.get(part, {})
        if found:
            values[label] = found
    return values


def _bars(axis: Any, title: str, values: Mapping[str, Mapping[str, float]]) -> None:  # noqa: ANN401
    names = list(values)[::-1]
    medians = [values[name]["median"] for name in names]
    below = [values[name]["median"] - values[name]["min"] for name in names]
    above = [values[name]["max"] - values[name]["median"] for name in names]
    colors = [OURS if name.startswith("streamer") else THEIRS for name in names]
    bars = axis.barh(names, medians, xerr=[below, above], color=colors, ecolor="#2c3e50")
    axis.bar_label(
        bars,
        [f" {median:,.0f}" if median >= 100 else f" {median:.1f}" for median in medians],
        fontsize=8,
    )
    axis.set_title(title, fontsize=10)
    if medians:
        axis.set_xscale("log")
        axis.set_xlim(right=3 * max(values[name]["max"] for name in names))
