"""`streamer experiments`: check a file, say who is in which cell, report, promote, roll back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO

import click
from rich.console import Console
from rich.table import Table

from streamer.cli.experiment_costs import VariantCost, Workload, variant_cost
from streamer.cli.experiments_promote import promote_command, rollback_command
from streamer.cli.experiments_report import report_command
from streamer.cli.plan_costs import COSTS
from streamer.events.codec import is_id
from streamer.events.schema import MAX_ID_BYTES
from streamer.experiments import Assignment, Assignments, Catalog, Experiment, Variant
from streamer.factors import FeatureDtype
from streamer.models.experiment_file import load_catalog

USERS_AT_ONCE: Final = 10_000
LEAST_WIDTH: Final = 120
NOBODY: Final = "-"

FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def command() -> None:
    """Check experiments, say who is in which cell, report, promote and roll back.

    `check` and `allocate` ask nobody; the others ask Redis.
    """


command.add_command(report_command)
command.add_command(promote_command)
command.add_command(rollback_command)


@command.command()
@FILE
@click.option("--factors", type=click.IntRange(1, 1024), default=64, show_default=True)
@click.option(
    "--interactions",
    type=click.FloatRange(0, 55),
    default=20.0,
    show_default=True,
    help="Entries of a history, on average.",
)
@click.option("--dtype", type=click.Choice(["f16", "f32"]), default="f16", show_default=True)
@click.option("--id-bytes", type=click.IntRange(1, 128), default=16, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(file: Path, *, as_json: bool, dtype: str, **options: Any) -> None:  # noqa: ANN401  one of every type
    """Check FILE, and show its cells and what each variant costs.

    Exit 78 with one line if anything in it is wrong. Costs are those of docs/sizing.md.
    """
    catalog = load_catalog(file)
    workload = Workload(dtype=FeatureDtype[dtype.upper()], **options)
    costs = {name: variant_cost(each, workload) for name, each in catalog.variants.items()}
    if as_json:
        click.echo(json.dumps(as_json_object(catalog, costs)))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(LEAST_WIDTH, console.width))
    console.print(_cells_table(catalog.experiments))
    console.print()
    console.print(_variants_table(list(catalog.variants.values()), costs))
    console.print(
        f"an event is {workload.interactions:g} entries of {workload.factors} factors "
        f"on {COSTS.machine}; every variant is computed for every user",
        style="dim",
    )


@command.command()
@FILE
@click.option("--user", "users", multiple=True, metavar="ID", help="A user; may be repeated.")
@click.option(
    "--users-file",
    type=click.File(encoding="utf-8"),
    metavar="FILE|-",
    help="One user a line; - is standard input.",
)
@click.option("--json", "as_json", is_flag=True, help="A JSON array of objects.")
def allocate(file: Path, users: tuple[str, ...], users_file: TextIO | None, as_json: bool) -> None:
    """Say in which cells users are.

    One line a user: the id, the variant, and the cell of each experiment, - for none; separated by
    tabs, below a head.
    """
    if not users and users_file is None:
        raise click.UsageError("name users with --user ID, or --users-file FILE")
    catalog = load_catalog(file)
    assignments = Assignments(catalog)
    every = _every_user(users, users_file)
    found = (
        pair
        for chunk in iter(lambda: list(islice(every, USERS_AT_ONCE)), [])
        for pair in zip(chunk, assignments.of_many(chunk), strict=True)
    )
    if as_json:
        _print_json(found)
    else:
        _print_lines(found, [experiment.name for experiment in catalog.experiments])


def as_json_object(catalog: Catalog, costs: dict[str, VariantCost]) -> dict[str, Any]:
    """Return the catalog with its costs, for machines."""
    return {
        "layers": {
            name: {"salt": layer.salt, "parameters": layer.parameters}
            for name, layer in catalog.layers.items()
        },
        "variants": {
            name: {"learner": each.learner, "model": each.model, **asdict(costs[name])}
            for name, each in catalog.variants.items()
        },
        "experiments": [
            {
                "name": experiment.name,
                "layer": experiment.layer,
                "start_ms": experiment.start_ms,
                "cells": [
                    {
                        "name": cell.name,
                        "share": cell.share,
                        "slots": [str(part) for part in cell.slots],
                        **asdict(cell.parameters),
                    }
                    for cell in experiment.cells
                ],
            }
            for experiment in catalog.experiments
        ],
    }


def _cells_table(experiments: Sequence[Experiment]) -> Table:
    table = Table("layer", "experiment", "counts from", "cell", box=None)
    table.add_column("users", justify="right")
    table.add_column("slots", overflow="fold")
    table.add_column("sets", overflow="fold")
    for experiment in sorted(experiments, key=lambda each: each.layer):
        for cell in experiment.cells:
            changes = {k: v for k, v in asdict(cell.parameters).items() if v is not None}
            table.add_row(
                experiment.layer,
                experiment.name,
                _start(experiment),
                cell.name,
                f"{cell.share / 100:.2f} %",
                f"{cell.share:,} of " + ", ".join(map(str, cell.slots)),
                ", ".join(f"{name} {value}" for name, value in changes.items()) or NOBODY,
            )
    return table


def _start(experiment: Experiment) -> str:
    if experiment.start_ms is None:
        return NOBODY
    return f"{datetime.fromtimestamp(experiment.start_ms / 1000, UTC):%Y-%m-%d %H:%M:%SZ}"


def _variants_table(variants: Sequence[Variant], costs: dict[str, VariantCost]) -> Table:
    table = Table("variant", "learner", "model", box=None)
    for head in ("Redis, bytes a user", "Redis, µs an event", "worker, µs an event"):
        table.add_column(head, justify="right")
    for variant in variants:
        cost = costs[variant.name]
        worker = cost.worker_us_per_event
        table.add_row(
            variant.name,
            variant.learner,
            variant.model,
            f"{cost.redis_bytes_per_user:,}",
            f"{cost.redis_us_per_event:.1f}",
            "not measured" if worker is None else f"{worker:.1f}",
        )
    return table


def _every_user(users: Iterable[str], users_file: TextIO | None) -> Iterator[str]:
    for user_id in users:
        yield _checked(user_id, "--user")
    if users_file is None:
        return
    try:
        for number, line in enumerate(users_file, 1):
            yield _checked(line.rstrip("\r\n"), f"{users_file.name}, line {number}")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{users_file.name} is not UTF-8: {error}") from error


def _checked(user_id: str, where: str) -> str:
    try:
        is_good = is_id(user_id)
    except UnicodeEncodeError:  # bytes of the command line that are no UTF-8
        is_good = False
    if not is_good:
        raise click.UsageError(
            f"{where}: not a user id; expected 1 to {MAX_ID_BYTES} bytes of UTF-8 "
            "without control characters"
        )
    return user_id


def _print_json(found: Iterable[tuple[str, Assignment]]) -> None:
    """Print one array, element by element: there may be millions."""
    separator = "["
    for user_id, assignment in found:
        each = {"user_id": user_id, "cells": assignment.cells, **asdict(assignment.parameters)}
        click.echo(f"{separator}{json.dumps(each)}", nl=False)
        separator = ",\n"
    click.echo("]" if separator != "[" else "[]")


def _print_lines(found: Iterable[tuple[str, Assignment]], experiments: Sequence[str]) -> None:
    click.echo("\t".join(["user", "variant", *experiments]))
    for user_id, assignment in found:
        cells = [assignment.cells.get(name, NOBODY) for name in experiments]
        click.echo("\t".join([user_id, str(assignment.parameters.variant), *cells]))
