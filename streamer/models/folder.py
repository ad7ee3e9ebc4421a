"""Item models on disk: a folder of four files, loaded and checked as a whole.

A folder is written by strangers as well as by us, so nothing in it is believed: sizes are bounded
before anything is read, pickles are refused, and every complaint names the file, and the row.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streamer.errors import ModelError
from streamer.events import MAX_ID_BYTES
from streamer.factors import ItemModel
from streamer.models.arrays import map_array
from streamer.models.content_id import content_id
from streamer.models.item_ids import ITEM_IDS, ensure_item_ids, parse_item_ids
from streamer.models.manifest import Manifest, decode_manifest

MANIFEST: Final = "manifest.json"
ITEM_FACTORS: Final = "item_factors.npy"
POPULARITY: Final = "popularity.npy"
FILES: Final = (MANIFEST, ITEM_IDS, ITEM_FACTORS, POPULARITY)

MAX_MANIFEST_BYTES: Final = 1 << 20
MAX_ITEM_IDS_BYTES: Final = 1 << 30
"""Ten million ids of a hundred bytes."""
_MAX_ID_JSON_BYTES: Final = 6 * MAX_ID_BYTES + 64
"""An id in JSON: every character escaped as six, quotes, comma, and room for indentation."""


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """A model that may be used, with what is odd about it.

    Attributes:
        model: Ready to fold in with.
        manifest: Its manifest.
        warnings: One sentence each; none refuses the model.
    """

    model: ItemModel
    manifest: Manifest
    warnings: tuple[str, ...]


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest alone.

    Raises:
        ModelError: A file of the folder is missing, or the manifest does not fit.
    """
    with _naming(folder):
        return _read_manifest(folder)


def load_model(folder: Path) -> ItemModel:
    """Load an item model; factors stay memory-mapped, shared between processes.

    Raises:
        ModelError: The model must be refused; names the folder, the file, and the row.
    """
    with _naming(folder):
        return _load(folder, _read_manifest(folder))


def check_model(folder: Path) -> CheckedModel:
    """Load an item model and look at what `load_model` lets pass.

    Raises:
        ModelError: As `load_model`.
    """
    with _naming(folder):
        manifest = _read_manifest(folder)
        model = _load(folder, manifest)
    digest = content_id(model)
    warnings = []
    if digest != manifest.model_id:
        warnings.append(
            f"model_id {manifest.model_id} is not the digest of the content, {digest}: "
            "two different models of its writer could carry the same id"
        )
    return CheckedModel(model, manifest, tuple(warnings))


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from error


def _read_manifest(folder: Path) -> Manifest:
    if not _is(S_ISDIR, folder):
        raise ModelError("no such folder")
    missing = [name for name in FILES if not _is(S_ISREG, folder / name)]
    if missing:
        raise ModelError(f"missing {', '.join(missing)}")
    return decode_manifest(_read_bytes(folder / MANIFEST, MAX_MANIFEST_BYTES))


def _load(folder: Path, manifest: Manifest) -> ItemModel:
    item_factors = map_array(
        folder / ITEM_FACTORS, ("float32",), (manifest.n_items, manifest.n_factors)
    )
    popularity = map_array(folder / POPULARITY, ("float32", "float64"), (manifest.n_items,))
    return ItemModel.of(
        model_id=int(manifest.model_id, 16),
        params=manifest.params,
        item_ids=_read_item_ids(folder / ITEM_IDS, manifest.n_items),
        item_factors=item_factors.astype(np.float32, copy=False),
        popularity=as_popularity(popularity),
    )


def as_popularity(popularity: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return a float32 copy; what float32 cannot hold becomes infinity, which a model refuses."""
    with np.errstate(over="ignore"):
        return popularity.astype(np.float32)


def _read_item_ids(path: Path, n_items: int) -> list[str]:
    content = _read_bytes(path, min(_MAX_ID_JSON_BYTES * n_items + 1024, MAX_ITEM_IDS_BYTES))
    item_ids = parse_item_ids(content)
    if not isinstance(item_ids, list):
        raise ModelError(f"{path.name}: not an array of strings")
    if len(item_ids) != n_items:
        raise ModelError(f"{path.name}: {len(item_ids)} ids, the manifest says {n_items}")
    ensure_item_ids(item_ids)
    return item_ids


def _is(kind: Callable[[int], bool], path: Path) -> bool:
    """Say whether the path is, or links to, a file of this kind that can be reached."""
    try:
        return kind(path.stat().st_mode)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ModelError(f"{path.name}: cannot be read: {error.strerror}") from error


def _read_bytes(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # Read no more than is there: the buffer is allocated before it is filled.
            content = file.read(size + 1) if size <= most else b""
    except OSError as error:
        raise ModelError(f"{path.name}: cannot be read: {error.strerror}") from error
    if max(size, len(content)) > most:
        raise ModelError(f"{path.name}: longer than {most} bytes")
    return content
