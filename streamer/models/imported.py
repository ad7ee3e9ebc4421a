"""Item models that were trained elsewhere: the parts of any source, checked and made ours.

A source gives factors and ids; what the fold-in needs beside them, α and λ, is what the source
recorded, translated (docs/reference/import.md), or what the caller says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamer import __version__
from streamer.errors import ModelError
from streamer.events import MAX_ID_BYTES, is_id
from streamer.factors import FoldInParams
from streamer.models.folder_writer import write_model
from streamer.models.item_ids import SLICE_IDS, are_plain
from streamer.models.manifest import MAX_FACTORS, MAX_ITEMS, ModelNotes

ROWS_AT_ONCE: Final = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class ImportOptions:
    """What only the caller knows.

    Attributes:
        alpha: α; None takes what the source recorded.
        regularization: λ; likewise.
        unit_entry: What one unit of strength, a play to the end, was in the matrix that the model
            was trained on; > 0. Translates a recorded alpha.
        entries_per_user: How many entries a user had in it; > 0. Translates Spark's regParam.
        popularity: Shape (n_items,), in the order of the ids; or a number by item id, 0 for one
            that is missing. None makes all items equally popular.
        trained_through: Newest event time that it was trained on, epoch milliseconds.
    """

    alpha: float | None = None
    regularization: float | None = None
    unit_entry: float = 1.0
    entries_per_user: float | None = None
    popularity: Sequence[float] | NDArray[Any] | Mapping[str, float] | None = None
    trained_through: int | None = None


DEFAULT_OPTIONS: Final = ImportOptions()


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What was found, before anything is believed.

    Attributes:
        name: Of the kind of source, for the provenance.
        item_ids: Strings or integers, in row order.
        item_factors: Floats, shape (n_items, n_factors).
        alpha: α, translated from what was recorded; None if nothing was.
        regularization: λ, likewise.
        recorded: What was recorded, as JSON, for the provenance.
        remarks: One sentence each: what the caller should know.
        missing: What a message says about α and λ that are missing.
    """

    name: str
    item_ids: Sequence[object]
    item_factors: NDArray[np.floating[Any]]
    alpha: float | None = None
    regularization: float | None = None
    recorded: Mapping[str, Any] | None = None
    remarks: tuple[str, ...] = ()
    missing: str = "the source does not record it"


@dataclass(frozen=True, slots=True, eq=False)
class ImportedModel:
    """A model that is ready to be written.

    Attributes:
        params: What the learner needs; `dataclasses.replace` it to set more than α and λ.
        item_ids: In row order.
        item_factors: float32, shape (n_items, n_factors).
        popularity: float32, shape (n_items,).
        notes: With where it came from.
        remarks: One sentence each: what was converted or assumed.
    """

    params: FoldInParams
    item_ids: list[str]
    item_factors: NDArray[np.float32]
    popularity: NDArray[np.float32]
    notes: ModelNotes
    remarks: tuple[str, ...]

    def write(self, folder: Path | str) -> str:
        """Write it as a new model folder, whole or not at all; return the model id.

        Raises:
            ModelError: As `write_model`.
        """
        created = datetime.now(UTC).isoformat(timespec="seconds")
        return write_model(
            Path(folder),
            params=self.params,
            item_ids=self.item_ids,
            item_factors=self.item_factors,
            popularity=self.popularity,
            notes=replace(self.notes, created=created),
        )


def assemble(source: Source, options: ImportOptions) -> ImportedModel:
    """Check what was found and make it a model.

    Raises:
        ModelError: The parts do not fit each other, an id cannot be one, a factor is no finite
            float32, or α or λ is neither recorded nor said.
    """
    factors = source.item_factors
    item_ids = as_ids(source.item_ids)
    _ensure_shape(factors, len(item_ids))
    params = _params(source, options)
    remarks = list(source.remarks)
    if any(not isinstance(item_id, str) for item_id in list(source.item_ids[:1])):
        remarks.append(f"ids are integers; they became strings, {item_ids[0]!r} and so on")
    if factors.dtype != np.float32:
        remarks.append(f"factors are {factors.dtype}; they became float32")
    popularity, assumed = _popularity(options.popularity, item_ids)
    remarks += assumed
    provenance = {
        "imported_from": source.name,
        "recorded": dict(source.recorded or {}),
        "popularity": "uniform" if options.popularity is None else "given",
        "remarks": remarks,
        "versions": {"streamer": __version__},
    }
    return ImportedModel(
        params=params,
        item_ids=item_ids,
        item_factors=as_float32(factors),
        popularity=popularity,
        notes=ModelNotes(trained_through=options.trained_through, provenance=provenance),
        remarks=tuple(remarks),
    )


def as_ids(found: Sequence[object]) -> list[str]:
    """Return ids as strings, each of them once.

    Raises:
        ModelError: As `id_strings`, or one is there twice; names the rows.
    """
    ids = id_strings(found)
    if len(set(ids)) == len(ids):
        return ids
    first_row: dict[str, int] = {}
    for row, each in enumerate(ids):
        if first_row.setdefault(each, row) != row:
            raise ModelError(f"ids: rows {first_row[each]} and {row} have the same id")
    return ids


def id_strings(found: Sequence[object], first_row: int = 0) -> list[str]:
    """Return ids as strings: integers become their decimal digits.

    Args:
        found: Of items or users.
        first_row: Number of the first one, for messages.

    Raises:
        ModelError: One that no event could carry; names the row.
    """
    as_list = getattr(found, "tolist", None)  # of an array or a column
    values: list[Any] = list(found) if as_list is None else as_list()
    ids: list[str] = []
    for start in range(0, len(values), SLICE_IDS):
        part = values[start : start + SLICE_IDS]
        if set(map(type, part)) == {str} and are_plain(part):
            ids += part
        else:
            ids += [_id_string(each, first_row + row) for row, each in enumerate(part, start)]
    return ids


def _id_string(found: object, row: int) -> str:
    is_text = isinstance(found, str | int | np.integer) and not isinstance(found, bool)
    text = str(found) if is_text else found
    if not is_id(text):
        raise ModelError(
            f"ids: row {row} is {_kind(text)}; expected an integer, or a string of 1 to "
            f"{MAX_ID_BYTES} bytes of UTF-8 without control characters"
        )
    return text


def as_float32(table: NDArray[np.floating[Any]], first_row: int = 0) -> NDArray[np.float32]:
    """Return a float32 array of the same shape, in C order.

    Args:
        table: Two-dimensional.
        first_row: Number of the first row, for messages.

    Raises:
        ModelError: A row is not finite, or does not fit into float32; names the first one.
    """
    converted = np.empty(table.shape, np.float32)
    for start in range(0, len(table), ROWS_AT_ONCE):
        block = table[start : start + ROWS_AT_ONCE]
        with np.errstate(over="ignore"):  # what does not fit becomes infinity, and is refused
            converted[start : start + ROWS_AT_ONCE] = block
        is_finite = np.isfinite(converted[start : start + ROWS_AT_ONCE]).all(axis=1)
        if not is_finite.all():
            row = int(np.argmin(is_finite))
            was_finite = np.isfinite(block[row]).all()
            what = "has a number that float32 cannot hold" if was_finite else "is not finite"
            raise ModelError(f"factors: row {first_row + start + row} {what}")
    return converted


def _kind(value: object) -> str:
    """Name a value that is no id, without showing what may be a person's."""
    if value is None:
        return "missing"
    if isinstance(value, str):
        return "an empty string" if not value else f"a string of {len(value)} characters"
    return f"of type {type(value).__name__}"


def _ensure_shape(factors: NDArray[Any], n_ids: int) -> None:
    if factors.ndim != 2 or factors.dtype.kind != "f":
        raise ModelError(
            f"factors: {factors.dtype} of shape {factors.shape}; expected floats of shape "
            "(n_items, n_factors)"
        )
    n_items, n_factors = factors.shape
    if n_items != n_ids:
        hint = "; is it transposed?" if n_factors == n_ids else ""
        raise ModelError(f"factors: {n_items} rows, but there are {n_ids} ids{hint}")
    if not (1 <= n_items <= MAX_ITEMS and 1 <= n_factors <= MAX_FACTORS):
        raise ModelError(
            f"factors: shape {factors.shape}; expected 1 to {MAX_ITEMS} items and 1 to "
            f"{MAX_FACTORS} factors"
        )


def _params(source: Source, options: ImportOptions) -> FoldInParams:
    numbers: dict[str, Any] = {}
    for name in ("alpha", "regularization"):
        said, recorded = getattr(options, name), getattr(source, name)
        number = recorded if said is None else said
        if number is None:
            raise ModelError(f"{name}: {source.missing}; say it (--{name})")
        numbers[name] = float(number)
    try:
        return FoldInParams(**numbers)
    except ValueError as error:
        raise ModelError(str(error)) from error


def _popularity(
    given: Sequence[float] | NDArray[Any] | Mapping[str, float] | None, item_ids: list[str]
) -> tuple[NDArray[np.float32], list[str]]:
    """Return popularity in row order, and what had to be assumed."""
    if given is None:
        return np.ones(len(item_ids), np.float32), [
            "no popularity was given, so all items are equally popular: viewers without history "
            "get the first ones"
        ]
    remarks = []
    if isinstance(given, Mapping):
        n_missing = sum(item_id not in given for item_id in item_ids)
        if n_missing:
            remarks.append(f"{n_missing} of {len(item_ids)} items have no popularity; it is 0")
        given = [given.get(item_id, 0.0) for item_id in item_ids]
    try:
        popularity = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError("popularity: expected numbers") from error
    if popularity.shape != (len(item_ids),):
        raise ModelError(
            f"popularity: shape {popularity.shape}, but there are {len(item_ids)} items"
        )
    with np.errstate(over="ignore"):  # infinity is refused with the row, as NaN is
        return popularity.astype(np.float32), remarks
