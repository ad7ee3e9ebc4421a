"""`streamer experiments promote | rollback`: a cell's model for everybody, and back."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from streamer.app import redis_client
from streamer.cli.experiments_report import read_report
from streamer.config import Settings, load_settings
from streamer.errors import ConfigError
from streamer.experiments import Catalog, Cell, Experiment
from streamer.experiments.report import ExperimentReport
from streamer.models import Pointer, publish, read_pointer, roll_back
from streamer.models.experiment_file import load_catalog
from streamer.stores import RedisClient

T = TypeVar("T", bound=Callable[..., Any])


def _arguments(function: T) -> T:
    for option in reversed(
        [
            click.argument("file", type=click.Path(path_type=Path)),
            click.argument("experiment"),
            click.argument("cell"),
            click.option("--yes", is_flag=True, help="Do not ask."),
            click.option("--json", "as_json", is_flag=True, help="One JSON object instead."),
            click.option(
                "--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file."
            ),
        ]
    ):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True)
class Promotion:
    """A cell whose model goes to everybody, or came from there.

    Attributes:
        settings: Of the deployment.
        catalog: The file.
        experiment: The cell's.
        cell: What is promoted.
        source: The cell's variant.
        target: The deployment's own variant, everybody's.
    """

    settings: Settings
    catalog: Catalog
    experiment: Experiment
    cell: Cell
    source: str
    target: str

    @classmethod
    def of(cls, file: Path, experiment: str, cell: str, config: Path | None) -> Promotion:
        """Find what the names mean.

        Raises:
            ConfigError: They mean nothing, or the cell has the variant of everybody.
        """
        settings, catalog = load_settings(config), load_catalog(file)
        found = catalog.experiment(experiment)
        cells = {each.name: each for each in found.cells}
        if cell not in cells:
            raise ConfigError(
                f"experiment {experiment} has no cell {cell!r}; it has {', '.join(cells)}"
            )
        target = settings.models.variant
        source = cells[cell].parameters.variant
        if source is None or source == target:
            rest = _rest(cells[cell])
            raise ConfigError(
                f"cell {cell} serves the variant {target}, as everybody; no pointer can promote it"
                + (f"; what it sets is the service's: {', '.join(rest)}" if rest else "")
            )
        return cls(settings, catalog, found, cells[cell], source, target)

    def ensure_same_learner(self) -> None:
        """Refuse what no pointer can do.

        Raises:
            ConfigError: The learners differ; says which line to change.
        """
        learner, ours = self.catalog.variants[self.source].learner, self.settings.models.learner
        if learner != ours:
            raise ConfigError(
                f"cell {self.cell.name} folds in with {learner}, everybody with {ours}: a pointer "
                "names a model, and a learner is code that workers and readers load at their "
                f'start. Set [models] learner = "{learner}" where workers and readers are '
                "configured, restart them, then promote again"
            )

    def pointer_of(self, client: RedisClient, variant: str) -> Pointer:
        """Return a variant's live model.

        Raises:
            ConfigError: It has none.
        """
        pointer = read_pointer(client, variant)
        if pointer is None:
            raise ConfigError(
                f"variant {variant} has no live model; publish one: "
                f"streamer model publish DIR --variant {variant}"
            )
        return pointer

    def decisions(self, client: RedisClient) -> dict[str, str]:
        """Return what the experiment has shown of the cell, by outcome."""
        found = read_report(client, self.settings, self.experiment)
        if not isinstance(found, ExperimentReport):
            return {}
        (cell,) = (each for each in found.cells if each.name == self.cell.name)
        return {
            name: str(each.decision)
            for name, each in cell.outcomes.items()
            if each.decision is not None
        }


@click.command("promote")
@_arguments
def promote_command(
    file: Path, experiment: str, cell: str, *, yes: bool, as_json: bool, config: Path | None
) -> None:
    """Let everybody have the model of CELL of EXPERIMENT.

    The pointer of the deployment's own variant is set to the model that the cell's variant serves,
    with a raised generation; workers and readers switch within a second. `rollback` goes back.
    """
    found = Promotion.of(file, experiment, cell, config)
    found.ensure_same_learner()
    with redis_client(found.settings.redis) as client:
        source = found.pointer_of(client, found.source)
        before = read_pointer(client, found.target)
        decisions = found.decisions(client)
        if not as_json:
            for name, decision in decisions.items():
                click.echo(f"{name}: {decision}")
        is_new = before is None or before.model_id != source.model_id
        live = "nothing" if before is None else before.model_id
        if is_new and not yes and sys.stdin.isatty():
            question = f"{found.target} serves {live}; serve {source.model_id} to everybody?"
            click.confirm(question, abort=True, err=True)
        directory = found.settings.models.directory
        pointer = publish(client, directory, directory / source.model_id, found.target)
    rest = _rest(found.cell)
    if as_json:
        answer = {"variant": found.target, "promoted": is_new, **asdict(pointer)}
        click.echo(json.dumps({**answer, "decisions": decisions, "not_promoted": rest}))
        return
    what = "is live now as" if is_new else "was live already, still"
    click.echo(f"{found.target}: model {pointer.model_id} {what} generation {pointer.generation}")
    if rest:
        click.echo(f"not promoted, because it is the service's: {', '.join(rest)}")
    if is_new:
        click.echo(f"to go back: streamer experiments rollback {file} {experiment} {cell}")


@click.command("rollback")
@_arguments
def rollback_command(
    file: Path, experiment: str, cell: str, *, yes: bool, as_json: bool, config: Path | None
) -> None:
    """Take back the promotion of CELL of EXPERIMENT.

    The model before is live again for everybody, with a raised generation. Refused if what is live
    is not the cell's model: then `streamer model rollback` may be meant.
    """
    found = Promotion.of(file, experiment, cell, config)
    with redis_client(found.settings.redis) as client:
        source = found.pointer_of(client, found.source)
        live = found.pointer_of(client, found.target)
        if live.model_id != source.model_id:
            raise ConfigError(
                f"variant {found.target} serves {live.model_id}, not {source.model_id} of cell "
                f"{cell}: there is no promotion to take back; `streamer model rollback` goes back "
                "one model whatever it is"
            )
        if not yes and sys.stdin.isatty():
            question = f"{found.target} serves {live.model_id}; serve {live.previous} again?"
            click.confirm(question, abort=True, err=True)
        pointer = roll_back(client, found.settings.models.directory, found.target)
    if as_json:
        click.echo(json.dumps({"variant": found.target, **asdict(pointer)}))
        return
    click.echo(
        f"{found.target}: model {pointer.model_id} is live again, "
        f"as generation {pointer.generation}; {pointer.previous} was rolled back"
    )


def _rest(cell: Cell) -> list[str]:
    """Return what the cell sets beside its variant."""
    values = asdict(cell.parameters)
    return [f"{name} = {value}" for name, value in values.items() if name != "variant" and value]
