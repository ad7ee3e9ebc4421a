"""Importing a model of Spark ML's ALS: the folder that ``ALSModel.save`` writes.

``itemFactors/`` holds Parquet files with ``id`` (int) and ``features`` (list of float), in any
order; ``metadata/`` a line of JSON with the rank, but neither alpha nor regParam, which only
``ALS.save`` records (seen with Spark 4.3.0).

Spark's half-step for a user (`ALS.scala`, implicitPrefs) adds ``a|r| v vᵀ`` to
``VᵀV + n·regParam·I`` and ``(1 + a r) v`` to the right side; n is how many positive ratings that
user has. So α = a·r with the r of a play to the end, and λ = regParam·n with the n of a usual user:
Spark's λ grows with the user, ours does not. The right sides of a user whose entries are equal
differ by a factor alone, which no ranking and no blend sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from streamer.errors import ModelError
from streamer.models.imported import (
    DEFAULT_OPTIONS,
    ImportedModel,
    ImportOptions,
    Source,
    assemble,
)
from streamer.models.tables import Column, OnRows, read_vectors

COLUMN: Final = Column("id", "features")
MAX_METADATA_BYTES: Final = 1 << 20
USUAL_ENTRIES: Final = 20.0
"""Of a user, where nobody says better: as many interactions as a usual history has."""


def import_spark(
    folder: Path | str,
    item_ids: Sequence[object] | Mapping[int, object] | None = None,
    options: ImportOptions = DEFAULT_OPTIONS,
    on_rows: OnRows = lambda _done, _of: None,
    estimator: Path | str | None = None,
) -> ImportedModel:
    """Make a saved ``ALSModel`` ours. Reads Parquet, so it needs ``streamer[parquet]``; no Spark.

    Args:
        folder: What the model was saved as; or an ``itemFactors`` folder or file alone.
        item_ids: The id of each of Spark's integers, such as the labels of a ``StringIndexer``.
            None keeps the integers, as strings.
        options: α and λ must be said here unless there is an `estimator`.
        on_rows: Told how far reading is.
        estimator: What the ``ALS`` that was fitted was saved as: it records alpha and regParam, a
            model does not.

    Raises:
        ConfigError: `pyarrow` is not installed.
        ModelError: Not such a model, or `assemble` refuses it.
    """
    folder = Path(folder)
    recorded = _metadata(folder / "metadata")
    if estimator is not None:
        settings = _metadata(Path(estimator) / "metadata")
        if "regParam" not in settings:
            raise ModelError(f"{estimator}: no metadata of an ALS estimator with a regParam")
        recorded = {**settings, **recorded}
    place = folder / "itemFactors"
    numbers, factors = read_vectors(place if place.exists() else folder, COLUMN, on_rows)
    rank = recorded.get("rank")
    if rank is not None and rank != factors.shape[1]:
        raise ModelError(f"{folder}: metadata say rank {rank}, the factors have {factors.shape[1]}")
    order = np.argsort(np.array(_integers(numbers), np.int64), kind="stable")
    rows = order.tolist()
    alpha, regularization, remarks = _params(recorded, options)
    source = Source(
        name="spark",
        item_ids=[_named(numbers[row], item_ids) for row in rows],
        item_factors=factors[order],
        alpha=alpha,
        regularization=regularization,
        recorded=recorded,
        remarks=remarks,
        missing="Spark records it with the estimator (--spark-estimator), not with the model",
    )
    return assemble(source, options)


def _params(
    recorded: Mapping[str, Any], options: ImportOptions
) -> tuple[float | None, float | None, tuple[str, ...]]:
    remarks = []
    if "regParam" not in recorded:
        remarks.append(
            "a model of Spark does not say whether it was trained with implicitPrefs=True; the "
            "factors of one that was not cannot be folded in"
        )
    alpha = regularization = None
    if options.alpha is None and "alpha" in recorded:
        alpha = recorded["alpha"] * options.unit_entry
        remarks.append(f"alpha {alpha:g} = Spark's {recorded['alpha']:g} x {options.unit_entry:g}")
    if options.regularization is None and "regParam" in recorded:
        entries = options.entries_per_user or USUAL_ENTRIES
        regularization = recorded["regParam"] * entries
        remarks.append(
            f"regularization {regularization:g} = regParam {recorded['regParam']:g} x "
            f"{entries:g} entries a user: Spark's grows with them (--entries-per-user)"
        )
    return alpha, regularization, tuple(remarks)


def _metadata(folder: Path) -> dict[str, Any]:
    """Return what the metadata say about the model: nothing where there are none."""
    if not folder.is_dir():
        return {}
    try:
        parts = sorted(folder.glob("part-*"))
        content = b"".join(_read(part) for part in parts)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read: {error.strerror}") from error
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ModelError(f"{folder}: not one line of JSON, as Spark writes it") from error
    if not isinstance(found, dict):
        raise ModelError(f"{folder}: not a JSON object, as Spark writes it")
    said = {**_object(found, "defaultParamMap"), **_object(found, "paramMap")}
    if said.get("implicitPrefs") is False:
        raise ModelError(
            f"{folder}: trained with implicitPrefs=False, on ratings; its factors predict ratings "
            "and cannot be folded in as preferences"
        )
    recorded: dict[str, Any] = {name: said[name] for name in ("alpha", "regParam") if name in said}
    recorded |= {name: found[name] for name in ("rank", "sparkVersion", "class") if name in found}
    for name in ("alpha", "regParam", "rank"):
        value = recorded.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ModelError(f"{folder}: {name} is not a number")
    return recorded


def _object(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = found.get(name, {})
    return value if isinstance(value, dict) else {}


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_METADATA_BYTES + 1)
    if len(content) > MAX_METADATA_BYTES:
        raise ModelError(f"{path}: longer than {MAX_METADATA_BYTES} bytes")
    return content


def _integers(numbers: Sequence[object]) -> list[int]:
    for row, number in enumerate(numbers):
        if isinstance(number, bool) or not isinstance(number, int):
            raise ModelError(f"column 'id': row {row} is no integer, as Spark's are")
    return [number for number in numbers if isinstance(number, int)]


def _named(number: object, item_ids: Sequence[object] | Mapping[int, object] | None) -> object:
    if item_ids is None:
        return number
    assert isinstance(number, int)
    if isinstance(item_ids, Mapping):
        if number not in item_ids:
            raise ModelError(f"ids: none for Spark's item {number}")
        return item_ids[number]
    if not 0 <= number < len(item_ids):
        raise ModelError(f"ids: {len(item_ids)} of them, so none for Spark's item {number}")
    return item_ids[number]
