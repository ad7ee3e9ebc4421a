"""`streamer worker`: the long-lived process."""

from __future__ import annotations

from pathlib import Path

import click

from streamer.config import load_settings
from streamer.log import configure_logging


@click.command()
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file.")
@click.option(
    "--wait", is_flag=True, help="Wait for an unreachable Kafka or Redis instead of exit 69."
)
def command(config: Path | None, wait: bool) -> None:
    """Keep every viewer's features fresh, until SIGTERM.

    Without a file, STREAMER__KAFKA__BOOTSTRAP_SERVERS, STREAMER__REDIS__URL and
    STREAMER__MODELS__DIRECTORY are enough. It is always safe to kill and restart: an event is
    acknowledged only after its effect is in Redis, and learning it twice changes nothing.
    """
    settings = load_settings(config)
    configure_logging(settings.log.level, settings.log.format)
    from streamer.app import build_worker  # noqa: PLC0415  after the settings: they fail fast

    build_worker(settings).run(wait=wait)
