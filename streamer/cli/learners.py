"""`streamer learners`: which learners there are, and whether one's own is one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Final

import click
import numpy as np
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.table import Table

from streamer.factors import (
    BUILT_INS,
    DEFAULT_LEARNER,
    FoldInParams,
    ItemModel,
    Learner,
    ask,
    check_learner,
    learner_id,
    load_learner,
)
from streamer.factors.conformance import histories_for
from streamer.history import HistoryBatch
from streamer.models import load_model

N_ITEMS: Final = 2000
N_FACTORS: Final = 64
"""Of the model that a learner is checked with where none is given."""
N_TIMES: Final = 16
"""How often the histories of the check are repeated to measure the cost of a user."""
N_ROUNDS: Final = 9


def complete_learner(
    _: click.Context, __: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the names of the built-ins, in a shell."""
    return [
        CompletionItem(name, help=each.description)
        for name, each in BUILT_INS.items()
        if name.startswith(incomplete)
    ]


@click.group()
def command() -> None:
    """Show the learners, and check one's own. Asks neither Kafka nor Redis."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="A JSON array of objects.")
def list_command(*, as_json: bool) -> None:
    """Show the built-in learners, the default first.

    Any other is a class that Python can import, named as package.module:Class.
    """
    if as_json:
        found = [
            {"name": name, "learner_id": f"{learner_id(name):08x}", **asdict(each)}
            | {"is_default": name == DEFAULT_LEARNER}
            for name, each in BUILT_INS.items()
        ]
        click.echo(json.dumps(found))
        return
    table = Table("learner", "vectors", "", box=None)
    for name, each in BUILT_INS.items():
        default = " (default)" if name == DEFAULT_LEARNER else ""
        table.add_row(name, str(each.n_vectors), each.description + default)
    Console(highlight=False).print(table)


@command.command()
@click.argument("spec", metavar="LEARNER", shell_complete=complete_learner)
@click.option(
    "--model",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Check it with this model; else with one of random items.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead.")
def check(spec: str, folder: Path | None, *, as_json: bool) -> None:
    """Say whether LEARNER may go into service: a built-in, or package.module:Class.

    The checks are those that a worker makes when it loads a model: the form of the answer, finite
    numbers, and that a user's factors depend on that user's history and the model alone. Exit 78
    if it cannot be loaded, 1 if it fails; one line says what would be right.
    """
    learner = load_learner(spec)
    model = _random_items() if folder is None else load_model(folder)
    check_learner(learner, model)
    answer = {
        "learner": spec,
        "name": learner.name,
        "learner_id": f"{learner_id(learner.name):08x}",
        "n_vectors": ask(learner, HistoryBatch.empty(0), model).vectors.shape[1],
        "model_id": None if folder is None else f"{model.model_id:016x}",
        "us_per_user": round(_us_per_user(learner, model), 2),
    }
    if as_json:
        click.echo(json.dumps(answer))
        return
    items = "random items" if folder is None else f"items of model {answer['model_id']}"
    vectors = "1 vector" if answer["n_vectors"] == 1 else "2 vectors"
    click.echo(
        f"OK {learner.name}: {vectors} and {answer['us_per_user']} µs a user, "
        f"with {model.n_items:,} {items}, {model.n_factors} factors"
    )


def _us_per_user(learner: Learner, model: ItemModel) -> float:
    """Return the median cost of a user of the check's histories, in a batch of some hundreds."""
    histories = histories_for(model)
    rows = np.tile(np.arange(len(histories)), N_TIMES)
    batch = histories.take(rows)
    return (
        median(_seconds(lambda: learner(batch, model)) for _ in range(N_ROUNDS)) / len(rows) * 1e6
    )


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _random_items() -> ItemModel:
    rng = np.random.default_rng(1)
    return ItemModel.of(
        model_id=0,
        params=FoldInParams(alpha=10.0, regularization=1.0),
        item_ids=[f"title-{number}" for number in range(N_ITEMS)],
        item_factors=rng.normal(0, 0.1, (N_ITEMS, N_FACTORS)).astype(np.float32),
        popularity=np.ones(N_ITEMS, np.float32),
    )
