"""The report: a table for people, JSON for everything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from benchmarks.figures import ratio

FLOOR = "floor"


def tables_of(report: Mapping[str, Any]) -> list[Table | str]:
    """Return everything that is printed at the end, in order."""
    parts: list[Table | str] = [table_of(report)]
    parts += [f"[bold]{name}[/]: {_remark(each)}" for name, each in report["contenders"].items()]
    for name in ("scaling", "serving", "memory"):
        if name in report:
            facts = (f"{key} {_plain(value)}" for key, value in report[name].items())
            parts.append(f"[bold]{name}[/]: " + ", ".join(facts))
    return [*parts, *_noise(report)]


def _noise(report: Mapping[str, Any]) -> list[str]:
    """Say so if somebody else was busy: what runs here leaves at most one process a core."""
    rounds = (each for figures in report["contenders"].values() for each in figures["load"])
    before = [load[0] for each in rounds for load in each.values()]
    most = 2 * report["machine"]["cores"]
    busy = sum(load > most for load in before)
    if not busy:
        return []
    what = f"{busy} of {len(before)} measurements began at a load average above {most}"
    return [f"[bold red]NOISY[/]: {what}, up to {max(before):.1f}: others had their share"]


def _plain(value: object) -> str:
    """Return a part of JSON as words; of what was measured in rounds, the median."""
    if not isinstance(value, Mapping):
        return str(value)
    if value.keys() == {"min", "median", "max"}:
        return _short(value["median"])
    return "(" + ", ".join(f"{name} {_plain(part)}" for name, part in value.items()) + ")"


def table_of(report: Mapping[str, Any]) -> Table:
    """Return medians, their spread, and how many times the floor's they are."""
    contenders = report["contenders"]
    rates = sorted({rate for each in contenders.values() for rate in each["latency_ms"]}, key=int)
    table = Table(title="median, times the floor; least to greatest", show_lines=True)
    table.add_column("contender")
    for column in ("CPU µs/event", "events/s", *(f"p99 ms at {int(r):,}/s" for r in rates)):
        table.add_column(column, justify="right")
    floor = contenders.get(FLOOR, {})
    for name, figures in contenders.items():
        cells = [
            _cell(figures, floor, "cpu_us_per_event"),
            _cell(figures, floor, "events_per_second"),
            *(_delay(figures, floor, rate) for rate in rates),
        ]
        left_out = " [bold red]LEFT OUT[/]" if "error" in figures else ""
        table.add_row(name + left_out, *cells)
    return table


def _remark(figures: Mapping[str, Any]) -> str:
    if "error" in figures:
        return f"[bold red]LEFT OUT[/]: {figures['error']}"
    settings = figures.get("settings", {}).items()
    return f"{figures['version']}; " + ", ".join(f"{name} {value}" for name, value in settings)


def _cell(figures: Mapping[str, Any], floor: Mapping[str, Any], name: str) -> str:
    if name not in figures:
        return "–"
    figure, times = figures[name], ratio(figures, floor, name)
    of_floor = "" if times is None else f", ×{times:.2g}"
    spread = f"[dim]{_short(figure['min'])} to {_short(figure['max'])}[/]"
    return f"[bold]{_short(figure['median'])}[/]{of_floor}\n{spread}"


def _delay(figures: Mapping[str, Any], floor: Mapping[str, Any], rate: str) -> str:
    delays = figures["latency_ms"].get(rate)
    if delays is None:
        return "–"
    text = _cell(delays, floor.get("latency_ms", {}).get(rate, {}), "p99")
    return text if delays["kept_up"] else f"{text}\n[red]fell behind[/]"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
