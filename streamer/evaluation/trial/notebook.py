"""`streamer.evaluation.replay`: a learner on a log, for a notebook.

Takes whatever a researcher has at hand, and makes of it what `replay_records` takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from streamer.errors import ConfigError, RejectedRecord
from streamer.evaluation.trial.court import OnProgress
from streamer.evaluation.trial.event_rows import (
    is_frame,
    record_of_row,
    records_of_rows,
    rows_of_frame,
    rows_of_parquet,
)
from streamer.evaluation.trial.log_sources import record_of_value, records_of_lines
from streamer.evaluation.trial.replaying import DEFAULT_K, ReplayPlan, TargetsFrom, replay_records
from streamer.evaluation.trial.report import Report
from streamer.evaluation.trial.targets import TargetKind
from streamer.events.times import parse_event_time
from streamer.factors import DEFAULT_LEARNER, ItemModel, Learner, load_learner
from streamer.models import load_model, read_manifest
from streamer.pipeline.records import Record

PARQUET: Final = ".parquet"
LATER_SHARE: Final = 0.8
"""Of a log, before its targets begin, where no folder says through when the model was trained."""

AnyLearner = Learner | type | str


def replay(  # noqa: PLR0913  three say what, the others have defaults and names
    events: Any,  # noqa: ANN401  a path, a DataFrame of any library, or an iterable
    model: ItemModel | str | Path,
    learner: AnyLearner | Sequence[AnyLearner] = DEFAULT_LEARNER,
    *,
    targets_from: TargetsFrom | str | datetime | None = None,
    targets: TargetKind | str = TargetKind.PLAYS,
    k: int = DEFAULT_K,
    capacities: Sequence[int] = (),
    on_progress: OnProgress = lambda *_: None,
) -> Report:
    """Foresee each play of a log, then learn from it, beside five baselines.

    Args:
        events: A file (JSON lines, or Parquet with the extra `replay`); a DataFrame of pandas or
            polars or a table of pyarrow, a column for each field of an event; or an iterable of
            dictionaries, of JSON as bytes or str, or of Records.
        model: The items: a folder, or a loaded model.
        learner: An instance, a class, the name of a built-in, ``package.module:Class``, or several
            of these. The first one is also the baseline `static`.
        targets_from: Plays later than this are foreseen: epoch milliseconds, a datetime or RFC 3339
            with an offset, or as a float a share of the log. Default: the `trained_through` of the
            folder; 0.8 with a loaded model.
        targets: ``plays`` of titles that were never touched, or ``contacts``: the first time that
            a title is played, left at once, opened, or its trailer is watched.
        k: The cut-off of recall and the others.
        capacities: Try the default learner also on histories with room for so many plays.
        on_progress: Told a stage, what is done and what there is of it.

    Returns:
        The report; at the end of a notebook's cell it shows tables and plots.

    Raises:
        ConfigError: An argument is none of these, or there is no play to foresee.
        ModelError: The model must be refused, or the file cannot be read.
    """
    items = model if isinstance(model, ItemModel) else load_model(Path(model))
    begin: TargetsFrom
    if targets_from is not None:
        begin = _moment_or_share(targets_from)
    elif isinstance(model, ItemModel):
        begin = LATER_SHARE
    else:
        begin = trained_through_of(Path(model))
    kind = _target_kind(targets)
    plan = ReplayPlan(items, _learners(learner), begin, k, kind, tuple(capacities))
    return replay_records(records_of(events, on_progress), plan, on_progress)


def records_of(events: Any, on_progress: OnProgress) -> Iterator[Record]:  # noqa: ANN401  as above
    """Yield the records of anything that `replay` takes.

    Raises:
        ConfigError: It takes no such thing.
        ModelError: The file cannot be read.
    """
    if isinstance(events, Path | str):
        return records_of_file(Path(events), on_progress)
    if is_frame(events):
        return records_of_rows(rows_of_frame(events))
    if isinstance(events, bytes | Mapping) or not isinstance(events, Iterable):
        raise ConfigError(
            f"events are of type {type(events).__name__}; expected a file, a DataFrame, or "
            "something to iterate over with dictionaries, JSON or records"
        )
    return (_record_of(event, offset) for offset, event in enumerate(events))


def records_of_file(path: Path, on_progress: OnProgress) -> Iterator[Record]:
    """Yield the records of a file: Parquet by its ending, else JSON lines."""
    if path.suffix == PARQUET:
        return records_of_rows(
            rows_of_parquet(path, lambda done, total: on_progress("reading", done, total))
        )
    n_bytes = path.stat().st_size if path.is_file() else 0
    return records_of_lines(path, lambda done: on_progress("reading", min(done, n_bytes), n_bytes))


def _record_of(event: object, offset: int) -> Record:
    if isinstance(event, Record):
        return event
    if isinstance(event, bytes):
        return record_of_value(event, offset)
    if isinstance(event, str):
        return record_of_value(event.encode(errors="replace"), offset)
    if isinstance(event, Mapping):
        return record_of_row(event, offset)
    raise ConfigError(
        f"event {offset} is of type {type(event).__name__}; expected a dictionary, JSON as bytes "
        "or str, or a Record"
    )


def _learners(learner: AnyLearner | Sequence[AnyLearner]) -> dict[str, Learner]:
    several = (
        [learner] if isinstance(learner, str) or not isinstance(learner, Sequence) else learner
    )
    learners = [_learner(each) for each in several]
    found = {each.name: each for each in learners}
    if not found or len(found) < len(learners):
        names = ", ".join(each.name for each in learners)
        raise ConfigError(f"learners are called {names or 'nothing'}; give each a name of its own")
    return found


def _learner(learner: AnyLearner) -> Learner:
    made: Any = learner
    if isinstance(learner, str):
        made = load_learner(learner)
    elif isinstance(learner, type):
        made = learner()
    if not callable(made) or not isinstance(getattr(made, "name", None), str):
        raise ConfigError(
            f"learner is of type {type(made).__name__}; expected a learner: something to call with "
            "histories and a model, with a `name`"
        )
    checked: Learner = made
    return checked


def trained_through_of(folder: Path) -> int:
    """Return through when a model was trained, epoch milliseconds.

    Raises:
        ConfigError: Its manifest does not say.
    """
    trained_through = read_manifest(folder).notes.trained_through
    if trained_through is None:
        raise ConfigError(
            f"{folder}: the manifest has no trained_through; say from when on plays are foreseen "
            "(--targets-from, targets_from)"
        )
    return trained_through


def _target_kind(targets: TargetKind | str) -> TargetKind:
    try:
        return TargetKind(targets)
    except ValueError as error:
        raise ConfigError(
            f"targets is {targets!r}; expected {' or '.join(map(repr, map(str, TargetKind)))}"
        ) from error


def _moment_or_share(targets_from: TargetsFrom | str | datetime) -> TargetsFrom:
    if isinstance(targets_from, datetime):
        if targets_from.tzinfo is None:
            raise ConfigError(f"targets_from is {targets_from}, without a time zone")
        targets_from = targets_from.isoformat(timespec="milliseconds")
    if isinstance(targets_from, str):
        try:
            return parse_event_time(targets_from)
        except RejectedRecord as error:
            raise ConfigError(
                f"targets_from is {targets_from!r}; expected a time with an offset such as "
                "2025-11-23T12:00:00Z, epoch milliseconds, or a share as a float"
            ) from error
    if isinstance(targets_from, float) and not 0 <= targets_from < 1:
        raise ConfigError(f"targets_from is {targets_from}; a share of the log is 0 to 1")
    return targets_from
