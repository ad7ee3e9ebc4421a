"""`streamer model train`: from a log of events to a model folder."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from streamer.cli.stages import progress_bars
from streamer.config import load_settings
from streamer.kafka.log_reader import read_log
from streamer.models import ModelNotes, write_model
from streamer.models.als import AlsPlan
from streamer.models.folder_writer import ensure_replaceable, place_for
from streamer.models.train import GRIDS, OnProgress, TrainedModel, TrainingPlan, train
from streamer.models.training_log import TrainingLog, collect_log, read_lines

KAFKA: Final = "kafka:"
REPORT_EVERY: Final = 1_000
RawRecord = tuple[bytes | None, int | None]
"""Value and timestamp, as `collect_log` takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """What the options of `streamer model train` say."""

    events: str
    folder: Path
    config: Path | None
    factors: int
    iterations: int
    seed: int
    min_uses: int
    grid: str
    force: bool
    as_json: bool
    quiet: bool


@click.command("train")
@click.argument("events", metavar="EVENTS")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file.")
@click.option(
    "--factors", type=click.IntRange(1, 1024), default=64, show_default=True, help="Dimension."
)
@click.option(
    "--iterations",
    type=click.IntRange(1, 1000),
    default=15,
    show_default=True,
    help="Rounds of alternating least squares.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=7,
    show_default=True,
    help="Same events and seed: same model.",
)
@click.option(
    "--min-uses",
    type=click.IntRange(1, 1_000_000),
    default=3,
    show_default=True,
    help="Leave out titles that fewer viewers showed a liking for.",
)
@click.option(
    "--grid",
    type=click.Choice(sorted(GRIDS, reverse=True)),
    default="small",
    show_default=True,
    help=f"Try {len(GRIDS['small'])} or {len(GRIDS['full'])} pairs of alpha and regularization.",
)
@click.option("--force", is_flag=True, help="Replace the model in DIR.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def train_command(**options: Any) -> None:  # noqa: ANN401  one of every type
    """Train an item model on EVENTS and write it to DIR.

    EVENTS is a file of play and browse events, one JSON object a line, or `kafka:` for the
    configured topics from their beginning to their present end. Alpha and regularization are
    chosen on the last tenth of the log; then everything is trained once more.
    """
    request = TrainRequest(**options)
    _ensure_paths(request)
    started = time.monotonic()
    plan = TrainingPlan(
        als=AlsPlan(request.factors, request.iterations, request.seed),
        min_uses=request.min_uses,
        grid=GRIDS[request.grid],
    )
    with progress_bars(quiet=request.quiet) as on_progress:
        log = collect_log(_counted(_records(request), on_progress))
        trained = train(log, plan, on_progress)
    answer = {
        "model_id": _write(trained, log, request),
        "folder": str(request.folder),
        **trained.facts(),
        "n_events": log.n_events,
        "trained_through": log.newest_ms,
        "rejected": log.rejected,
        "seconds": round(time.monotonic() - started, 2),
    }
    if request.as_json:
        click.echo(json.dumps(answer))
        return
    if log.rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in log.rejected.items())
        click.echo(f"skipped {sum(log.rejected.values())} bad records: {reasons}", err=True)
    click.echo(_trained_line(answer))


def _ensure_paths(request: TrainRequest) -> None:
    """Refuse what would fail at the end of the work, before its beginning."""
    if request.events != KAFKA and not Path(request.events).is_file():
        raise click.BadParameter(f"{request.events} is not a file, and not {KAFKA}")
    if request.folder.exists():
        if not request.force:
            raise click.BadParameter(f"{request.folder} is there already; --force replaces it")
        ensure_replaceable(request.folder)


def _records(request: TrainRequest) -> Iterable[RawRecord]:
    if request.events != KAFKA:
        return read_lines(Path(request.events))
    kafka = load_settings(request.config).kafka
    records = read_log(kafka.client, kafka.bootstrap_servers, kafka.topics)
    return ((record.value, record.timestamp_ms) for record in records)


def _counted(records: Iterable[RawRecord], on_progress: OnProgress) -> Iterator[RawRecord]:
    for count, record in enumerate(records, 1):
        if count % REPORT_EVERY == 0:
            on_progress("reading", count, 0)
        yield record


def _write(trained: TrainedModel, log: TrainingLog, request: TrainRequest) -> str:
    """Write the model; one that is replaced stays until the new one is complete."""
    with place_for(request.folder, replace=request.force) as place:
        return write_model(
            place,
            params=trained.params,
            item_ids=trained.item_ids,
            item_factors=trained.item_factors,
            popularity=trained.popularity,
            notes=ModelNotes(
                trained_through=log.newest_ms,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                provenance=trained.provenance,
            ),
        )


def _trained_line(answer: dict[str, Any]) -> str:
    recall = "nothing to measure recall with"
    if answer["recall_at_20"] is not None:
        recall = (
            f"recall@20 {answer['recall_at_20']:.3f} "
            f"(popularity {answer['popularity_recall_at_20']:.3f})"
        )
    return (
        f"{answer['folder']}: model {answer['model_id']}, {answer['n_items']} items x "
        f"{answer['n_factors']} factors from {answer['n_events']} events of "
        f"{answer['n_users']} users; alpha {answer['alpha']:g}, regularization "
        f"{answer['regularization']:g}, {recall}; {answer['seconds']:.1f} s"
    )
