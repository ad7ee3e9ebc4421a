"""`streamer verify`: recompute every viewer from the log and compare with Redis."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from streamer.app import read_live_model, redis_client
from streamer.config import load_settings
from streamer.evaluation.verify import Verdict, Verification, verify
from streamer.kafka.log_reader import read_log
from streamer.stores import read_values


@click.command()
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.pass_context
def command(context: click.Context, config: Path | None, as_json: bool, quiet: bool) -> None:
    """Recompute every viewer from the log and compare with Redis.

    Histories must be equal byte for byte, vectors within the stored precision. Reads the topics
    from their earliest record, commits nothing and writes nothing. Viewers whose events are still
    on their way count as different: run it when the workers have caught up, on topics that reach
    back to the first event. Exit 1 if any viewer is different.
    """
    settings = load_settings(config)
    kafka = settings.kafka
    client = redis_client(settings.redis)
    live = read_live_model(settings, client)
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.fields[n]:,} records read"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task("", total=None, n=0)
        result = verify(
            read_log(kafka.client, kafka.bootstrap_servers, kafka.topics),
            lambda user_ids: read_values(client, settings.models.variant, user_ids),
            live,
            lambda n_records: progress.update(task, n=n_records),
        )
    click.echo(json.dumps(as_json_object(result)) if as_json else "\n".join(as_lines(result)))
    if result.n_different:
        context.exit(1)


def as_json_object(result: Verification) -> dict[str, object]:
    """Return the result for machines."""
    return {
        "users": result.n_users,
        "equal": result.verdicts[Verdict.EQUAL],
        "different": result.n_different,
        "verdicts": {str(verdict): result.verdicts[verdict] for verdict in Verdict},
        "worst_vector_error": result.worst_error,
        "records": result.n_records,
        "applied": result.n_applied,
        "rejected": result.n_rejected,
    }


def as_lines(result: Verification) -> Sequence[str]:
    """Return the result for people."""
    lines = [
        f"{result.n_records:,} records: {result.n_applied:,} events, "
        f"{result.n_rejected:,} dead letters",
        f"{result.n_users:,} viewers: {result.verdicts[Verdict.EQUAL]:,} equal, "
        f"{result.n_different:,} different; worst vector error {result.worst_error:.1e}",
    ]
    lines += [
        f"  {verdict}: {n_users:,}"
        for verdict, n_users in result.verdicts.items()
        if verdict is not Verdict.EQUAL
    ]
    return lines
