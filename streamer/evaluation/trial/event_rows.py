"""Records of events that are rows: dictionaries, rows of a DataFrame, rows of a Parquet file.

A row is an event with a column for each of its fields (`type`, `user_id`, `item_id`, `event_time`,
`watched_s`, `duration_s`; others are ignored), empty where the type has none. Or it is a record as
it came from Kafka: the JSON in `value`, and if there is one its `timestamp`. Either way it goes
through the decoder of the worker, and is refused for the same reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson

from streamer.errors import ConfigError, ModelError
from streamer.evaluation.trial.log_sources import IN_A_FILE, record_of_value
from streamer.pipeline.records import Record

FIELDS: Final = ("type", "user_id", "item_id", "event_time", "watched_s", "duration_s")
ROWS_AT_ONCE: Final = 10_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def record_of_row(row: Mapping[str, Any], offset: int) -> Record:
    """Return the record of a row.

    Raises:
        ConfigError: A time without a time zone, or neither a `type` nor a `value`.
    """
    value = row.get("value")
    if value is not None and row.get("type") is None:
        value = value.encode() if isinstance(value, str) else bytes(value)
        timestamp = _plain(row.get("timestamp"), "timestamp")
        if timestamp is None:
            return record_of_value(value, offset)
        return Record(IN_A_FILE, offset, int(timestamp), None, value)
    if "type" not in row:
        raise ConfigError(
            f"row {offset} has neither a `type` nor a `value`; give the fields of an event "
            f"({', '.join(FIELDS)}), or records with the JSON in `value`"
        )
    fields = {name: _plain(row.get(name), name) for name in FIELDS}
    present = {name: field for name, field in fields.items() if field is not None}
    return record_of_value(_encoded(present), offset)


def records_of_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[Record]:
    """Yield the record of each row; its place is its offset."""
    for offset, row in enumerate(rows):
        yield record_of_row(row, offset)


def rows_of_frame(frame: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401  of any library
    """Yield the rows of a DataFrame of pandas or polars, or of a table of pyarrow.

    Raises:
        ConfigError: It is none of them.
    """
    if hasattr(frame, "iter_rows"):  # polars
        yield from frame.iter_rows(named=True)
    elif hasattr(frame, "iloc"):  # pandas
        for start in range(0, len(frame), ROWS_AT_ONCE):
            part = frame.iloc[start : start + ROWS_AT_ONCE]
            yield from part.astype(object).where(part.notna(), None).to_dict("records")
    elif hasattr(frame, "to_batches"):  # pyarrow
        for batch in frame.to_batches(max_chunksize=ROWS_AT_ONCE):
            yield from _in_milliseconds(batch).to_pylist()
    else:
        raise ConfigError(
            f"events are of type {type(frame).__name__}; expected a file, a DataFrame, or "
            "something to iterate over with dictionaries, JSON or records"
        )


def is_frame(events: object) -> bool:
    """Say whether `rows_of_frame` takes it."""
    return any(hasattr(events, name) for name in ("iter_rows", "iloc", "to_batches"))


def rows_of_parquet(
    path: Path, on_rows: Callable[[int, int], None] = lambda _, __: None
) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a Parquet file.

    Args:
        path: The file.
        on_rows: Told how many rows were read, and how many there are.

    Raises:
        ConfigError: `pyarrow` is not installed.
        ModelError: The file cannot be read.
    """
    try:
        # Inside the function: only Parquet needs it, and it is an optional extra.
        import pyarrow as pa  # noqa: PLC0415
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"{path}: Parquet needs the package `pyarrow`: pip install 'streamer[replay]'"
        ) from error
    n_rows = 0
    try:
        with pq.ParquetFile(path) as file:
            names = set(file.schema_arrow.names)
            columns = [name for name in (*FIELDS, "value", "timestamp") if name in names]
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
                yield from _in_milliseconds(batch).to_pylist()
                n_rows += batch.num_rows
                on_rows(n_rows, file.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise ModelError(f"{path}: cannot be read as Parquet: {error}") from error


def _in_milliseconds(batch: Any) -> Any:  # noqa: ANN401  pyarrow is not typed
    """Return a batch whose times have no finer digits, which Python's could not hold."""
    import pyarrow as pa  # noqa: PLC0415  whoever has a batch has pyarrow

    columns = [
        column.cast(pa.timestamp("ms", tz=column.type.tz), safe=False)
        if pa.types.is_timestamp(column.type)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _plain(field: Any, name: str) -> Any:  # noqa: ANN401  whatever a cell holds
    """Return what JSON has a form for; None for an empty cell."""
    if field is None or field != field:  # noqa: PLR0124  NaN, and what pandas has for a time
        return None
    if isinstance(field, datetime):
        if field.tzinfo is None:
            raise ConfigError(
                f"{name} is {field}, without a time zone; say which one it is, with pandas by "
                "`.dt.tz_localize('UTC')`, or give epoch milliseconds"
            )
        return (field - _EPOCH) // _MILLISECOND
    return field


def _encoded(fields: Mapping[str, Any]) -> bytes:
    """Return JSON; what it has no form for becomes a null, which the decoder refuses."""
    return orjson.dumps(fields, default=lambda _: None, option=orjson.OPT_SERIALIZE_NUMPY)
