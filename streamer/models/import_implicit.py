"""Importing a model of `implicit`, from memory or as its ``save`` wrote it; needs no `implicit`.

`AlternatingLeastSquares.save` (0.7.3, `implicit/cpu/als.py`) is ``numpy.savez`` of the factors and
the settings, one array each. Its half-step for a user reads a matrix entry r as confidence
``c = a·r``, where a is its ``alpha``, and adds ``(c - 1) v vᵀ`` to ``VᵀV + λI`` and ``c v`` to the
right side: its confidence *replaces* the 1 of an unseen pair, ours adds to it. So λ is ours as it
is, and α = a·r - 1 with the r of a play to the end. Then A is equal, and the right sides of a user
whose entries are equal differ by the factor (c - 1) / c alone, which no ranking and no blend sees.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np

from streamer.errors import ModelError
from streamer.models.arrays import read_array
from streamer.models.imported import (
    DEFAULT_OPTIONS,
    ImportedModel,
    ImportOptions,
    Source,
    assemble,
)

NUMBERS: Final = ("alpha", "regularization", "iterations", "factors")
FOREIGN: Final = ("learning_rate", "neg_prop", "verify_negative_samples")
"""Settings of implicit's other factorisations, whose factors no least squares folds in."""


def import_implicit(
    model: object, item_ids: Sequence[object], options: ImportOptions = DEFAULT_OPTIONS
) -> ImportedModel:
    """Make a model of alternating least squares ours.

    Args:
        model: A fitted `AlternatingLeastSquares`, or the path of the ``.npz`` that it saved.
        item_ids: Of the columns of the matrix that it was trained on, in their order.
        options: α and λ where the recorded ones should not count; popularity.

    Raises:
        ModelError: Not such a model, or `assemble` refuses it.
    """
    is_saved = isinstance(model, str | Path)
    fields = _read(Path(cast("str | Path", model))) if is_saved else _attributes(model)
    factors = fields.get("item_factors")
    if not isinstance(factors, np.ndarray) or factors.ndim != 2:
        raise ModelError(f"{_shown(model)}: no item_factors; is it a fitted model of implicit?")
    recorded: dict[str, Any] = {
        name: fields[name].item()
        for name in NUMBERS
        if name in fields and np.ndim(fields[name]) == 0
    }
    for name, number in recorded.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ModelError(f"{_shown(model)}: {name} is not a number")
    alpha, remarks = _alpha(recorded.get("alpha"), options)
    source = Source(
        name="implicit",
        item_ids=item_ids,
        item_factors=factors,
        alpha=alpha,
        regularization=recorded.get("regularization"),
        recorded=recorded,
        remarks=remarks,
        missing="this version of implicit did not record it",
    )
    return assemble(source, options)


def _alpha(recorded: float | None, options: ImportOptions) -> tuple[float | None, tuple[str, ...]]:
    if options.alpha is not None or recorded is None:
        return None, ()
    confidence = recorded * options.unit_entry
    if confidence <= 1:
        raise ModelError(
            f"implicit's alpha {recorded:g} times the entry {options.unit_entry:g} of a play is a "
            f"confidence of {confidence:g}, no more than that of an unseen title; say what a play "
            "was in your matrix (--unit-entry), or our alpha (--alpha)"
        )
    return confidence - 1, (
        f"alpha {confidence - 1:g} = implicit's {recorded:g} x {options.unit_entry:g} - 1: its "
        "confidence replaces the 1 of an unseen title, ours adds to it",
    )


def _attributes(model: object) -> dict[str, Any]:
    """Return what is needed of a model in memory; one of a GPU copies its factors."""
    fields: dict[str, Any] = {}
    for name in ("item_factors", *NUMBERS, *FOREIGN):
        value = getattr(model, name, None)
        if value is not None:
            fields[name] = np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value)
    _ensure_least_squares(fields, model)
    return fields


def _read(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            _ensure_least_squares(members, path)
            fields: dict[str, Any] = {}
            for field in ("item_factors", *NUMBERS):
                if field in members:
                    info = archive.getinfo(members[field])
                    with archive.open(info) as file:
                        fields[field] = read_array(_binary(file), info.filename, info.file_size)
            return fields
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"{path}: not an .npz file as implicit's save writes it") from error


def _binary(file: IO[bytes]) -> Any:  # noqa: ANN401  a member of an archive reads and tells
    return file


def _ensure_least_squares(fields: Mapping[str, Any], model: object) -> None:
    foreign = [name for name in FOREIGN if name in fields]
    if foreign:
        raise ModelError(
            f"{_shown(model)}: has {foreign[0]}, so it is not AlternatingLeastSquares; factors of "
            "other losses cannot be folded in by least squares"
        )


def _shown(model: object) -> str:
    return str(model) if isinstance(model, str | Path) else type(model).__name__
