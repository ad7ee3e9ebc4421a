"""`streamer model`: train, import, check, show, publish and roll back item models."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from streamer.app import redis_client
from streamer.cli.model_import import import_command
from streamer.cli.model_train import train_command
from streamer.config import load_settings
from streamer.models import check_model, publish, read_pointer, roll_back
from streamer.models.summary import summarize
from streamer.pipeline.ports import UserScan
from streamer.pipeline.sweep import decode_sweep, progress_of
from streamer.stores import RedisScan

FOLDER: Final = click.Path(path_type=Path)

config_option = click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file."
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object instead.")


@click.group()
def command() -> None:
    """Train, import, check, show, publish and roll back item models."""


command.add_command(train_command)
command.add_command(import_command)


@command.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@json_option
def check(folder: Path, as_json: bool) -> None:
    """Say whether a model may be used. Exit 1 and one line if it must be refused."""
    checked = check_model(folder)
    manifest = checked.manifest
    if as_json:
        answer = {
            "model_id": manifest.model_id,
            "n_items": manifest.n_items,
            "n_factors": manifest.n_factors,
            "warnings": checked.warnings,
        }
        click.echo(json.dumps(answer))
        return
    click.echo(
        f"OK {folder}: {manifest.n_items} items x {manifest.n_factors} factors, "
        f"model {manifest.model_id}"
    )
    for warning in checked.warnings:
        click.echo(f"warning: {warning}")


@command.command()
@click.argument("folder", metavar="[DIR]", type=FOLDER, required=False)
@click.option("--variant", help="Show the live model of this variant instead.")
@config_option
@json_option
def show(folder: Path | None, variant: str | None, config: Path | None, as_json: bool) -> None:
    """Show a model's manifest and key numbers.

    Give DIR, or --variant for the model that is live now, and how far everybody has it.
    """
    if (folder is None) == (variant is None):
        raise click.UsageError("give DIR or --variant, one of them")
    answer: dict[str, Any] = {}
    if variant is not None:
        settings = load_settings(config)
        client = redis_client(settings.redis)
        pointer = read_pointer(client, variant)
        if pointer is None:
            raise click.ClickException(f"variant {variant} has no live model yet")
        sweep = read_sweep(RedisScan(client), variant, pointer.generation)
        answer = {"variant": variant, **asdict(pointer), "sweep": sweep}
        folder = settings.models.directory / pointer.model_id
    assert folder is not None
    checked = check_model(folder)
    manifest = asdict(checked.manifest)
    params, notes = manifest.pop("params"), manifest.pop("notes")
    answer |= {
        "folder": str(folder),
        **manifest,
        **params,
        **notes,
        **asdict(summarize(checked.model)),
    }
    answer["warnings"] = checked.warnings
    click.echo(json.dumps(answer) if as_json else "\n".join(_lines(answer)))


@command.command("publish")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--variant", help="Default: models.variant of the configuration.")
@config_option
@json_option
def publish_command(folder: Path, variant: str | None, config: Path | None, as_json: bool) -> None:
    """Make a model the live one.

    It is copied to models.directory, and the variant's generation is raised; workers and readers
    switch within a second. `streamer model rollback` goes back.
    """
    settings = load_settings(config)
    variant = settings.models.variant if variant is None else variant
    client = redis_client(settings.redis)
    before = read_pointer(client, variant)
    pointer = publish(client, settings.models.directory, folder, variant)
    is_new = before is None or before.generation != pointer.generation
    if as_json:
        click.echo(json.dumps({"variant": variant, "published": is_new, **asdict(pointer)}))
        return
    what = "is live now as" if is_new else "was live already, still"
    click.echo(f"{variant}: model {pointer.model_id} {what} generation {pointer.generation}")


@command.command("rollback")
@click.option("--variant", help="Default: models.variant of the configuration.")
@config_option
@json_option
def rollback_command(variant: str | None, config: Path | None, as_json: bool) -> None:
    """Make the model before the live one live again.

    The variant's generation is raised; workers and readers switch within a second. Rolling back
    once more goes forward again.
    """
    settings = load_settings(config)
    variant = settings.models.variant if variant is None else variant
    pointer = roll_back(redis_client(settings.redis), settings.models.directory, variant)
    if as_json:
        click.echo(json.dumps({"variant": variant, **asdict(pointer)}))
        return
    click.echo(
        f"{variant}: model {pointer.model_id} is live again, as generation {pointer.generation}; "
        f"{pointer.previous} was rolled back"
    )


def read_sweep(scan: UserScan, variant: str, generation: int) -> dict[str, Any]:
    """Return how far the sweep of a generation is, over all parts of the store.

    Args:
        scan: Of the store.
        variant: Whose.
        generation: The live one.
    """
    sweeps = []
    parts = scan.parts()
    for part in parts:
        sweep = decode_sweep(scan.look(part, variant).state)
        if sweep is not None and sweep.generation == generation:
            sweeps.append(sweep)
    is_done = len(sweeps) == len(parts) and all(sweep.is_done for sweep in sweeps)
    return {
        "is_done": is_done,
        "progress": round(progress_of(sweeps) * len(sweeps) / len(parts), 4) if parts else 0.0,
        "n_passes": max((sweep.number for sweep in sweeps), default=0),
        "n_found_behind": sum(sweep.n_found for sweep in sweeps),
        "n_left_behind": sum(sweep.n_behind for sweep in sweeps) if is_done else None,
    }


def _lines(answer: dict[str, Any]) -> list[str]:
    """One line a fact; whatever has parts is JSON."""
    width = max(map(len, answer))
    return [
        f"{name:{width}}  {json.dumps(value) if isinstance(value, dict | tuple) else value}"
        for name, value in answer.items()
    ]
