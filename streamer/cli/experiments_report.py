"""`streamer experiments report`: what each experiment of a file has shown so far."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from streamer.app import redis_client
from streamer.config import Settings, load_settings
from streamer.experiments import Book, Catalog, Experiment
from streamer.experiments.counting import Sum
from streamer.experiments.report import METRICS, SCORES, Compared, ExperimentReport, report
from streamer.models.experiment_file import load_catalog
from streamer.stores import RedisClient, read_sums

WATCH_SECONDS: Final = 5.0
LEAST_WIDTH: Final = 120
NO_START: Final = "has no start, so no outcomes are kept; add `start = 2026-12-01T06:00:00Z`"
WORDS: Final = {
    "plays_per_user": "plays a user",
    "minutes_per_user": "minutes a user",
    "completion": "completion of a play",
    "thumbs_up_per_user": "thumbs up a user",
    "thumbs_down_per_user": "thumbs down a user",
    "hit_at_20": "hits among 20",
    "mrr": "reciprocal rank",
}


@click.command("report")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--experiment", metavar="NAME", help="This one only.")
@click.option("--watch", is_flag=True, help="Look again every 5 seconds, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array; one a line with --watch.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file.")
def report_command(
    file: Path, experiment: str | None, watch: bool, as_json: bool, config: Path | None
) -> None:
    """Show what the experiments of FILE have shown.

    Cells side by side: users, outcomes with their difference to the control and where it surely
    is, however often one looks, and the decision; "no decision yet" where that is the truth.
    """
    settings, catalog = load_settings(config), load_catalog(file)
    chosen = [catalog.experiment(experiment)] if experiment else list(catalog.experiments)
    with redis_client(settings.redis) as client:
        looks = _looks(client, settings, chosen, watch=watch)
        if as_json:
            for reports in looks:
                click.echo(json.dumps([as_json_object(each) for each in reports]))
            return
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=max(LEAST_WIDTH, console.width))
        if not watch:
            console.print(_page(next(looks), catalog))
            return
        with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
            for reports in looks:
                live.update(_page(reports, catalog), refresh=True)


def read_report(client: RedisClient, settings: Settings, experiment: Experiment) -> Any:  # noqa: ANN401
    """Return an experiment's report, or the experiment itself if it has no start."""
    if experiment.start_ms is None:
        return experiment
    sums = read_sums(client, Book(experiment.name, experiment.start_ms))
    return report(experiment, sums, settings.models.variant)


def as_json_object(each: ExperimentReport | Experiment) -> dict[str, Any]:
    """Return a report for machines."""
    if isinstance(each, Experiment):
        return {"name": each.name, "start_ms": None, "error": NO_START}
    return {**asdict(each), "has_mismatch": each.has_mismatch}


def _looks(
    client: RedisClient, settings: Settings, chosen: list[Experiment], *, watch: bool
) -> Iterator[list[ExperimentReport | Experiment]]:
    while True:
        yield [read_report(client, settings, each) for each in chosen]
        if not watch:
            return
        try:
            time.sleep(WATCH_SECONDS)
        except KeyboardInterrupt:
            return


def _page(reports: list[ExperimentReport | Experiment], catalog: Catalog) -> Group:
    parts: list[Any] = []
    for each in reports:
        if isinstance(each, Experiment):
            parts.append(Text(f"{each.name} {NO_START}", style="yellow"))
        else:
            parts += [_head(each, catalog), *_warnings(each), _outcomes(each), Text()]
            parts += [_variants(each), Text()]
    if not parts:
        parts.append(Text("the file has no experiments"))
    return Group(*parts)


def _head(found: ExperimentReport, catalog: Catalog) -> Text:
    since = datetime.fromtimestamp(found.start_ms / 1000, UTC)
    layer = catalog.experiment(found.name).layer
    head = Text(found.name, style="bold")
    head.append(
        f"  in layer {layer}, since {since:%Y-%m-%d %H:%M:%S} UTC; against {found.control}; "
        f"intervals hold at every look, each with {100 * (1 - found.alpha):g} %",
        style="dim",
    )
    return head


def _warnings(found: ExperimentReport) -> list[Text]:
    if not found.has_mismatch:
        return []
    return [
        Text(
            f"users are not where the shares send them (chance {found.mismatch:.1g}): look for "
            "what keeps a cell's users away, or a share that changed; decide nothing before",
            style="bold red",
        )
    ]


def _outcomes(found: ExperimentReport) -> Table:
    table = Table("", box=None)
    for cell in found.cells:
        table.add_column(cell.name, justify="right")
    table.add_row("share", *[f"{cell.share / 100:.2f} %" for cell in found.cells])
    table.add_row("variant", *[cell.variant for cell in found.cells])
    table.add_row("users", *[f"{cell.sums[Sum.USERS]:,}" for cell in found.cells])
    for metric in METRICS:
        compared = [cell.outcomes[metric.name] for cell in found.cells]
        table.add_row(WORDS[metric.name], *[_cell(each, is_share=True) for each in compared])
    return table


def _variants(found: ExperimentReport) -> Table:
    table = Table("plays foreseen by", box=None)
    for variant in found.variants:
        table.add_column(variant.name, justify="right")
    table.add_row("plays scored", *[f"{variant.n_scored:,}" for variant in found.variants])
    for name in SCORES:
        compared = [variant.scores[name] for variant in found.variants]
        table.add_row(WORDS[name], *[_cell(each, is_share=False) for each in compared])
    return table


def _cell(compared: Compared, *, is_share: bool) -> Text:
    """Mean, difference and decision on a line each."""
    text = Text("-" if compared.mean is None else f"{compared.mean:.4g}")
    interval, decision = compared.difference, compared.decision
    if interval is not None:
        ends = (interval.estimate, interval.lower, interval.upper)
        estimate, lower, upper = (f"{100 * e:+.2f}" if is_share else f"{e:+.4f}" for e in ends)
        text.append(f"\n{estimate} [{lower}, {upper}]{' %' if is_share else ''}")
    if decision is not None:
        style = {"better": "green", "worse": "red"}.get(decision, "dim")
        text.append(f"\n{decision}", style=style)
    return text
