"""`streamer model import`: from another trainer's factors to a model folder."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from streamer.cli.moments import Moment
from streamer.cli.stages import OnProgress, progress_bars
from streamer.models.folder_writer import ensure_replaceable, place_for
from streamer.models.id_files import read_ids, read_popularity
from streamer.models.import_arrays import import_arrays, import_parquet
from streamer.models.import_implicit import import_implicit
from streamer.models.import_spark import import_spark
from streamer.models.imported import ImportedModel, ImportOptions
from streamer.models.tables import Column

SOURCES: Final = ("implicit", "spark", "npy", "dataframe-parquet")
PATH: Final = click.Path(path_type=Path, exists=True)
POSITIVE: Final = click.FloatRange(min=0, min_open=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """What the options of `streamer model import` say."""

    path: Path
    source: str
    ids: Path | None
    id_column: str
    factors_column: str
    popularity: Path | None
    popularity_column: str | None
    out: Path
    alpha: float | None
    regularization: float | None
    unit_entry: float
    entries_per_user: float | None
    spark_estimator: Path | None
    trained_through: int | None
    force: bool
    as_json: bool
    quiet: bool


@click.command("import")
@click.argument("path", metavar="PATH", type=PATH)
@click.option(
    "--from",
    "source",
    type=click.Choice(SOURCES),
    required=True,
    help="What PATH is: the .npz that implicit's save wrote, the folder of a Spark ML ALSModel, "
    "an .npy matrix, or a data frame as Parquet.",
)
@click.option(
    "--ids",
    type=PATH,
    help="Item ids in row order: a .json array, .npy, a column of .parquet, or text, one a line. "
    "For spark the id of each of its integers, which are the ids without it.",
)
@click.option("--id-column", default="item_id", show_default=True, help="Of ids in Parquet.")
@click.option(
    "--factors-column",
    default="factors",
    show_default=True,
    help="Of a data frame: lists, or NAME_0, NAME_1 and so on.",
)
@click.option(
    "--popularity",
    type=PATH,
    help="A number an item: .npy or a .json array in row order, or a .json object by id.",
)
@click.option("--popularity-column", metavar="NAME", help="The same, of a data frame.")
@click.option(
    "--out", metavar="DIR", type=click.Path(path_type=Path), required=True, help="The model folder."
)
@click.option("--alpha", type=POSITIVE, help="Ours; default: what the source recorded, translated.")
@click.option("--regularization", type=POSITIVE, help="Ours; default likewise.")
@click.option(
    "--unit-entry",
    type=POSITIVE,
    default=1.0,
    show_default=True,
    help="What a play to the end was in the matrix; translates a recorded alpha.",
)
@click.option(
    "--entries-per-user",
    type=POSITIVE,
    help="Of the matrix; translates Spark's regParam.  [default: 20]",
)
@click.option(
    "--spark-estimator",
    type=PATH,
    metavar="DIR",
    help="What the ALS that was fitted was saved as: it records alpha and regParam.",
)
@click.option(
    "--trained-through",
    type=Moment(),
    metavar="TIME",
    help="Newest event it was trained on: RFC 3339, or a duration before now such as 8h.",
)
@click.option("--force", is_flag=True, help="Replace the model in DIR.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def import_command(**options: Any) -> None:  # noqa: ANN401  one of every type
    """Make factors that were trained elsewhere an item model.

    Nothing pickled is ever loaded, and neither implicit nor Spark need be installed; Parquet needs
    streamer[parquet]. How alpha and regularization translate: docs/reference/import.md.
    """
    request = ImportRequest(**options)
    _ensure_options(request)
    started = time.monotonic()
    with progress_bars(quiet=request.quiet) as on_progress:
        on_progress("reading", 0, 0)
        imported = _import(request, on_progress)
        on_progress("writing", 0, 0)
        model_id = _write(imported, request)
    answer = {
        "model_id": model_id,
        "folder": str(request.out),
        "imported_from": request.source,
        "n_items": len(imported.item_ids),
        "n_factors": int(imported.item_factors.shape[1]),
        "alpha": imported.params.alpha,
        "regularization": imported.params.regularization,
        "trained_through": imported.notes.trained_through,
        "remarks": imported.remarks,
        "seconds": round(time.monotonic() - started, 2),
    }
    if request.as_json:
        click.echo(json.dumps(answer))
        return
    for remark in imported.remarks:
        click.echo(f"note: {remark}", err=True)
    click.echo(
        f"{request.out}: model {model_id}, {answer['n_items']} items x {answer['n_factors']} "
        f"factors from {request.source}; alpha {answer['alpha']:g}, regularization "
        f"{answer['regularization']:g}; {answer['seconds']:.1f} s"
    )


def _ensure_options(request: ImportRequest) -> None:
    """Refuse what would fail at the end of the work, before its beginning."""
    if request.source in ("implicit", "npy") and request.ids is None:
        raise click.UsageError(f"--from {request.source} needs --ids FILE: it has rows, no ids")
    if request.source == "dataframe-parquet":
        if request.ids is not None:
            raise click.UsageError("a data frame has its ids in --id-column; leave --ids out")
    elif request.popularity_column is not None:
        raise click.UsageError("--popularity-column is of a data frame; give --popularity FILE")
    if request.popularity is not None and request.popularity_column is not None:
        raise click.UsageError("give --popularity or --popularity-column, one of them")
    if request.out.exists():
        if not request.force and (not request.out.is_dir() or any(request.out.iterdir())):
            raise click.BadParameter(f"{request.out} is there already; --force replaces it")
        ensure_replaceable(request.out)


def _import(request: ImportRequest, on_progress: OnProgress) -> ImportedModel:
    on_rows = partial(on_progress, "reading")
    options = ImportOptions(
        alpha=request.alpha,
        regularization=request.regularization,
        unit_entry=request.unit_entry,
        entries_per_user=request.entries_per_user,
        popularity=None if request.popularity is None else read_popularity(request.popularity),
        trained_through=request.trained_through,
    )
    if request.source == "dataframe-parquet":
        column = Column(request.id_column, request.factors_column)
        return import_parquet(request.path, options, column, request.popularity_column, on_rows)
    ids = None if request.ids is None else read_ids(request.ids, request.id_column)
    if request.source == "spark":
        return import_spark(request.path, ids, options, on_rows, request.spark_estimator)
    assert ids is not None
    if request.source == "implicit":
        return import_implicit(request.path, ids, options)
    return import_arrays(request.path, ids, options)


def _write(imported: ImportedModel, request: ImportRequest) -> str:
    """Write the model; one that is replaced stays until the new one is complete."""
    with place_for(request.out, replace=request.force) as place:
        return imported.write(place)
