"""The ids of a model's items: read and checked in slices, so that no other thread waits for them.

A million ids are parsed and checked in a worker's background thread, while its loop serves
events. One call over all of them would hold the interpreter's lock for most of 0.1 s.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from streamer.errors import ModelError
from streamer.events import MAX_ID_BYTES, is_id

ITEM_IDS: Final = "item_ids.json"
SLICE_BYTES: Final = 1 << 20
SLICE_IDS: Final = 50_000
_BETWEEN: Final = b'","'
"""Between two strings of an array without spaces."""


def parse_item_ids(content: bytes) -> Any:  # noqa: ANN401  whatever the file holds
    """Parse the file's content; an array of strings as `streamer` writes it, slice by slice.

    Raises:
        ModelError: It is not JSON.
    """
    try:
        return _parse_slices(content)
    except orjson.JSONDecodeError:
        pass  # spaces between the ids, or a cut inside one: `",` may end an id
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ModelError(f"{ITEM_IDS}: not JSON: {error}") from error


def ensure_item_ids(item_ids: list[Any]) -> None:
    """Refuse an id that no event could carry; names its row.

    Raises:
        ModelError: Not a string of 1 to 128 bytes of UTF-8 without control characters.
    """
    for start in range(0, len(item_ids), SLICE_IDS):
        ids = item_ids[start : start + SLICE_IDS]
        if are_plain(ids):
            continue
        for row, item_id in enumerate(ids, start):
            if not is_id(item_id):
                raise ModelError(
                    f"{ITEM_IDS}: row {row} is not a string of 1 to {MAX_ID_BYTES} bytes of UTF-8 "
                    "without control characters"
                )


def _parse_slices(content: bytes) -> Any:  # noqa: ANN401  as above
    cut = content.find(_BETWEEN, SLICE_BYTES)
    if not content.startswith(b'["') or cut < 0:
        return orjson.loads(content)
    item_ids: list[Any] = []
    start = 0
    while cut >= 0:
        # A slice is the ids up to the quote that ends one of them.
        item_ids += orjson.loads(b"[" + content[start + 1 : cut + 1] + b"]")
        start = cut + 1
        cut = content.find(_BETWEEN, start + SLICE_BYTES)
    item_ids += orjson.loads(b"[" + content[start + 1 :])
    return item_ids


def are_plain(item_ids: list[Any]) -> bool:
    """Say at once of many that they are printable ASCII of a fitting length, as ids mostly are."""
    try:
        joined = "".join(item_ids)
    except TypeError:
        return False
    lengths = [*map(len, item_ids)]
    is_ascii = joined.isascii() and joined.isprintable()
    return is_ascii and min(lengths) > 0 and max(lengths) <= MAX_ID_BYTES
