"""`streamer config show`: every effective setting and where it came from."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from streamer.config import explain_settings, load_settings


@click.group()
def command() -> None:
    """Show every effective setting and where it came from."""


@command.command()
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object instead of a table.")
def show(config: Path | None, as_json: bool) -> None:
    """Print every setting with its value and source; secrets are masked.

    Exit 78 with one line if a name is unknown or a value does not fit.
    """
    settings = load_settings(config)
    rows = list(explain_settings(settings, config))
    if as_json:
        click.echo(
            json.dumps({name: {"value": value, "source": source} for name, value, source in rows})
        )
        return
    table = Table("setting", "value", "source", box=None)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
