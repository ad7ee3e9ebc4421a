"""Writing model folders so that nobody ever sees half of one.

A folder is filled under another name beside its place, forced to disk, and renamed. A reader finds
the old state or the new one; after a crash a hidden ``.NAME.XXXXXXXX.tmp`` may be left behind,
which nothing reads.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from streamer.errors import ModelError
from streamer.factors import FoldInParams, ItemModel
from streamer.models.content_id import content_id
from streamer.models.folder import (
    FILES,
    ITEM_FACTORS,
    MANIFEST,
    POPULARITY,
    as_popularity,
)
from streamer.models.item_ids import ITEM_IDS, ensure_item_ids
from streamer.models.manifest import NO_NOTES, Manifest, ModelNotes, encode_manifest


def write_model(
    folder: Path,
    *,
    params: FoldInParams,
    item_ids: Sequence[str],
    item_factors: NDArray[np.float32],
    popularity: NDArray[np.floating[Any]],
    notes: ModelNotes = NO_NOTES,
) -> str:
    """Check a model and write it as a new folder, whole or not at all.

    Args:
        folder: Where to; must not exist, or be empty.
        params: What the learner needs beside the factors.
        item_ids: Ids in row order.
        item_factors: float32, shape (n_items, n_factors).
        popularity: Shape (n_items,), finite and >= 0; stored as float32.
        notes: What people may want to know.

    Returns:
        The model id, 16 hexadecimal digits: equal content, equal id.

    Raises:
        ModelError: The parts do not fit, or the folder cannot be written; nothing is left of it.
    """
    ensure_item_ids(list(item_ids))
    model = ItemModel.of(0, params, item_ids, item_factors, as_popularity(popularity))
    model_id = content_id(model)
    manifest = Manifest(model_id, model.n_items, model.n_factors, params, notes)
    with staged(folder) as staging:
        (staging / MANIFEST).write_bytes(encode_manifest(manifest))
        (staging / ITEM_IDS).write_bytes(orjson.dumps(list(item_ids)))
        np.save(staging / ITEM_FACTORS, np.ascontiguousarray(item_factors, "<f4"))
        np.save(staging / POPULARITY, model.popularity.astype("<f4"))
    return model_id


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `folder` at the end, or vanishes on an error.

    Raises:
        ModelError: `folder` is there already and not empty, or the disk refuses.
    """
    folder = folder.resolve()
    staging = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        if folder.exists():
            _ensure_empty(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        yield staging
        for path in staging.iterdir():
            _force_to_disk(path)
        _force_to_disk(staging)
        # Replaces an empty folder and refuses any other, so that two writers cannot both win.
        staging.rename(folder)
        _force_to_disk(folder.parent)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def replace_model(new: Path, folder: Path) -> None:
    """Put the model `new` in the place of the model `folder`, which is deleted.

    Raises:
        ModelError: `folder` holds anything that is not a model's, or the disk refuses.
    """
    ensure_replaceable(folder)
    folder = folder.resolve()
    retired = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        if folder.exists():
            folder.rename(retired)
        new.rename(folder)
        _force_to_disk(folder.parent)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be written: {error.strerror}") from error
    shutil.rmtree(retired, ignore_errors=True)


@contextmanager
def place_for(folder: Path, *, replace: bool) -> Iterator[Path]:
    """Yield where to write a model that is to be at `folder`: an old one stays until it is whole.

    Raises:
        ModelError: As `replace_model`.
    """
    folder = folder.resolve()
    if not (replace and folder.exists()):
        yield folder
        return
    place = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.new")
    yield place
    replace_model(place, folder)


def ensure_replaceable(folder: Path) -> None:
    """Refuse to delete anything that is not a model: one mistyped path must not cost a home.

    Raises:
        ModelError: `folder` is a file, or has a file that no model has.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ModelError(f"{folder}: is not a folder")
    strange = sorted(path.name for path in folder.iterdir() if path.name not in FILES)
    if strange:
        raise ModelError(f"{folder}: is not only a model, it has {strange[0]}; not replaced")


def _ensure_empty(folder: Path) -> None:
    if not folder.is_dir() or any(folder.iterdir()):
        raise ModelError(f"{folder}: is there already")


def _force_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
