"""`streamer users`: long-term vectors that were trained elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from streamer.app import redis_client
from streamer.cli.main import EXIT_TEMPORARY
from streamer.cli.moments import Moment
from streamer.cli.resume_file import ResumeFile, identity_of
from streamer.cli.stages import OnProgress, progress_bars
from streamer.cli.stopping import stop_flag
from streamer.config import Settings, load_settings
from streamer.errors import ModelError, StoreUnavailable
from streamer.evaluation.pace import Pace
from streamer.factors import FeatureDtype, ImportStamp, encode_imported
from streamer.models import Manifest, read_manifest, read_pointer
from streamer.models.pointer import pointer_key
from streamer.models.tables import Column
from streamer.models.vector_files import VectorChunk, VectorFile, open_vectors
from streamer.stores import ImportedVectors, ping
from streamer.stores.footprint import imported_user_bytes
from streamer.stores.imported import MAX_USERS_PER_CALL

PATH: Final = click.Path(path_type=Path, exists=True)
DAY_MS: Final = 86_400_000
RETRY_AFTER_SECONDS: Final = (0.1, 0.2, 0.4, 0.8, 1.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsersRequest:
    """What the options of `streamer users import` say."""

    path: Path
    ids: Path | None
    id_column: str
    factors_column: str
    variant: str | None
    model: Path | None
    trained_through: int | None
    dtype: str | None
    expire_after_days: float
    rate: float | None
    resume: Path | None
    dry_run: bool
    config: Path | None
    as_json: bool
    quiet: bool


@dataclass(slots=True)
class Outcome:
    """What became of the rows, those of this run.

    Attributes:
        n_written: Users whose vector is in Redis; in a dry run, would be.
        n_forgotten: Users who were forgotten after what their vector was trained on.
        n_zero: Users whose vector is all zeros, which says nothing about them.
        n_bytes: What Redis needs for those that were written.
        next_row: Everything before it is done.
    """

    n_written: int = 0
    n_forgotten: int = 0
    n_zero: int = 0
    n_bytes: int = 0
    next_row: int = 0


@click.group()
def command() -> None:
    """Import viewers' long-term vectors that were trained elsewhere."""


@command.command("import")
@click.argument("path", metavar="PATH", type=PATH)
@click.option(
    "--ids", type=PATH, help="User ids of an .npy file: .json, .npy, .parquet, or text, one a line."
)
@click.option("--id-column", default="user_id", show_default=True, help="Of Parquet and JSON.")
@click.option(
    "--factors-column",
    default="factors",
    show_default=True,
    help="Of Parquet and JSON: lists; in Parquet also NAME_0, NAME_1 and so on.",
)
@click.option("--variant", help="Default: models.variant of the configuration.")
@click.option(
    "--model",
    type=PATH,
    metavar="DIR",
    help="The item model that the vectors belong to; default: the live one of the variant.",
)
@click.option(
    "--trained-through",
    type=Moment(),
    metavar="TIME",
    help="Newest event they were trained on: RFC 3339, or a duration before now such as 8h. "
    "Viewers who were forgotten since are left out; without it all forgotten ones.",
)
@click.option("--dtype", type=click.Choice(["f16", "f32"]), help="Default: features.dtype.")
@click.option(
    "--expire-after-days",
    type=click.FloatRange(0, 3650),
    default=0.0,
    show_default=True,
    help="Drop a vector so long after it was written; 0 keeps it.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Users a second at most; default: as fast as it goes.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep there how far it is, and go on from there if it was stopped.",
)
@click.option("--dry-run", is_flag=True, help="Check every row and say what it would take.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.pass_context
def import_command(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401  one of every type
    """Write viewers' long-term vectors to Redis, for readers to use in place of `lasting`.

    PATH is an .npy matrix with --ids, a .jsonl file with an object a line, or Parquet. The vectors
    must be of the space of the item model: user factors of the training that made it. Readers use
    them where they are opened with imported_lasting=True, and only with that very model.

    Exit 75 after Ctrl-C; with --resume FILE the same command goes on.
    """
    request = UsersRequest(**options)
    settings = load_settings(request.config)
    variant = settings.models.variant if request.variant is None else request.variant
    pointer_key(variant)  # refuses a name that no variant can have
    started = time.monotonic()
    manifest = _manifest(request, settings, variant)
    file = open_vectors(
        request.path, request.ids, Column(request.id_column, request.factors_column)
    )
    with stop_flag() as stopped, progress_bars(quiet=request.quiet) as on_progress:
        run = _Run(request, settings, variant, manifest)
        outcome = run.import_all(file, on_progress, stopped)
    answer = {
        "variant": variant,
        "model_id": manifest.model_id,
        "dry_run": request.dry_run,
        **asdict(outcome),
        "seconds": round(time.monotonic() - started, 2),
    }
    click.echo(json.dumps(answer) if request.as_json else as_text(answer))
    if stopped:
        context.exit(EXIT_TEMPORARY)


def as_text(answer: dict[str, Any]) -> str:
    """Return the summary for people."""
    verb = "would be written" if answer["dry_run"] else "written"
    lines = [
        f"{answer['variant']}: {answer['n_written']:,} vectors {verb} for model "
        f"{answer['model_id']}, {answer['n_bytes'] / 1e6:,.1f} MB of Redis; "
        f"{answer['seconds']:.1f} s"
    ]
    if answer["n_forgotten"]:
        lines.append(f"left out {answer['n_forgotten']:,} viewers who were forgotten since")
    if answer["n_zero"]:
        lines.append(f"left out {answer['n_zero']:,} vectors of zeros")
    return "\n".join(lines)


def _manifest(request: UsersRequest, settings: Settings, variant: str) -> Manifest:
    """Return the manifest of the model whose space the vectors are in."""
    if request.model is not None:
        return read_manifest(request.model)
    pointer = read_pointer(redis_client(settings.redis), variant)
    if pointer is None:
        raise ModelError(
            f"variant {variant} has no live model; publish one, or say which the vectors belong to "
            "(--model DIR)"
        )
    return read_manifest(settings.models.directory / pointer.model_id)


class _Run:
    """One import: rows in, script calls out."""

    def __init__(
        self, request: UsersRequest, settings: Settings, variant: str, manifest: Manifest
    ) -> None:
        self._request = request
        self._variant = variant
        self._manifest = manifest
        trained_through_ms = request.trained_through or 0
        self._stamp = ImportStamp(
            model_id=int(manifest.model_id, 16),
            trained_through_ms=trained_through_ms,
            dtype=FeatureDtype[(request.dtype or settings.features.dtype).upper()],
            written_ms=time.time_ns() // 1_000_000,
        )
        self._client = redis_client(settings.redis)
        self._store = ImportedVectors(
            self._client,
            variant,
            trained_through_ms=trained_through_ms,
            expire_ms=int(request.expire_after_days * DAY_MS),
        )
        self._pace = Pace(request.rate)
        paths = [request.path, *([] if request.ids is None else [request.ids])]
        source = {
            "files": [identity_of(path) for path in paths],
            "variant": variant,
            "model_id": manifest.model_id,
            "trained_through": trained_through_ms,
        }
        self._progress = ResumeFile(None if request.dry_run else request.resume, source)

    def import_all(
        self, file: VectorFile, on_progress: OnProgress, stopped: Sequence[int]
    ) -> Outcome:
        """Write every row from where an earlier run stood, until Ctrl-C."""
        outcome = Outcome(next_row=self._progress.next_row())
        if not self._request.dry_run:
            ping(self._client)
            self._store.prepare()
        for chunk in file.chunks(outcome.next_row):
            self._import_chunk(chunk, outcome, stopped)
            if not self._request.dry_run:
                self._progress.done(outcome.next_row)
            on_progress("users", outcome.next_row, file.n_rows or 0)
            if stopped:
                return outcome
        self._progress.finish()
        return outcome

    def _import_chunk(self, chunk: VectorChunk, outcome: Outcome, stopped: Sequence[int]) -> None:
        n_factors = chunk.vectors.shape[1]
        if n_factors != self._manifest.n_factors:
            raise ModelError(
                f"factors: vectors of {n_factors} numbers, but model {self._manifest.model_id} has "
                f"{self._manifest.n_factors} factors"
            )
        is_zero = np.asarray(np.linalg.norm(chunk.vectors, axis=1) == 0)
        values = encode_imported(chunk.vectors, self._stamp)
        # Paced by the second or finer, so that a low rate is not one burst a chunk.
        step = min(len(values), max(MAX_USERS_PER_CALL, int(self._request.rate or len(values))))
        for start in range(0, len(values), step):
            rows = (np.flatnonzero(~is_zero[start : start + step]) + start).tolist()
            user_ids = [chunk.user_ids[row] for row in rows]
            n_forgotten = 0
            if not self._request.dry_run:
                self._pace.spend(len(rows))
                n_forgotten = self._write(user_ids, [values[row] for row in rows])
            outcome.n_written += len(rows) - n_forgotten
            outcome.n_forgotten += n_forgotten
            outcome.n_zero += int(is_zero[start : start + step].sum())
            outcome.n_bytes += self._redis_bytes(user_ids[:1], n_factors) * (
                len(rows) - n_forgotten
            )
            outcome.next_row = chunk.first_row + min(start + step, len(values))
            if stopped:
                return

    def _write(self, user_ids: Sequence[str], values: Sequence[bytes]) -> int:
        """Write; a Redis that is away for a moment must not end an import of an hour."""
        for pause_seconds in RETRY_AFTER_SECONDS:
            try:
                return self._store.write(user_ids, values)
            except StoreUnavailable:
                time.sleep(pause_seconds)
        return self._store.write(user_ids, values)

    def _redis_bytes(self, user_ids: Sequence[str], n_factors: int) -> int:
        """Return what one user's vector takes, with a place in the table; 0 for nobody."""
        expires = self._request.expire_after_days > 0
        return sum(
            imported_user_bytes(each, n_factors, self._stamp.dtype, self._variant, expires=expires)
            + 8
            for each in user_ids
        )
