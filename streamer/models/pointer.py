"""The pointer to a variant's live model: ``st:model:VARIANT`` in Redis, as a value. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

import orjson

from streamer.errors import ModelError
from streamer.models.manifest import is_model_id

VARIANTS_KEY: Final = "st:variants"
"""Set of every variant ever used: forgetting a viewer deletes the features of all of them."""
_VARIANT: Final = re.compile(r"[a-z0-9_-]{1,32}")
MAX_GENERATION: Final = (1 << 32) - 1
"""What the header of a features value has room for."""


def pointer_key(variant: str) -> str:
    """Return the key of a variant's pointer.

    Raises:
        ModelError: No variant can have this name.
    """
    if not _VARIANT.fullmatch(variant):
        raise ModelError(f"variant {variant!r}: expected 1 to 32 of a-z, 0-9, _ and -")
    return f"st:model:{variant}"


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which model a variant serves.

    Attributes:
        model_id: The live model, 16 lowercase hexadecimal digits.
        generation: 1 for the first model; every publish and roll-back raises it.
        previous: The model before it, for a roll-back.
    """

    model_id: str
    generation: int
    previous: str | None = None


def next_pointer(live: Pointer | None, model_id: str) -> Pointer:
    """Return the pointer after publishing `model_id`; the same one if it is live already.

    Raises:
        ModelError: The generations of this variant are used up.
    """
    if live is None:
        return Pointer(model_id, 1)
    if live.model_id == model_id:
        return live
    if live.generation >= MAX_GENERATION:
        raise ModelError(f"generation {live.generation} is the last one; start a new variant")
    return Pointer(model_id, live.generation + 1, live.model_id)


def encode_pointer(pointer: Pointer) -> bytes:
    """Return the value in Redis."""
    return json.dumps(
        {
            "model_id": pointer.model_id,
            "generation": pointer.generation,
            "previous": pointer.previous,
        }
    ).encode()


def decode_pointer(value: bytes | str) -> Pointer:
    """Read a value of Redis; fields of a newer writer are ignored.

    Raises:
        ModelError: It is not a pointer.
    """
    try:
        payload = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ModelError("not JSON") from error
    if not isinstance(payload, dict):
        raise ModelError("not an object")
    model_id, previous = payload.get("model_id"), payload.get("previous")
    generation = payload.get("generation")
    if not is_model_id(model_id) or not (previous is None or is_model_id(previous)):
        raise ModelError("model_id and previous must be 16 lowercase hexadecimal digits")
    if type(generation) is not int or not 1 <= generation <= MAX_GENERATION:
        raise ModelError(f"generation must be an integer, 1 to {MAX_GENERATION}")
    return Pointer(str(model_id), generation, previous)


def stored_pointer(variant: str, value: bytes | str | None) -> Pointer | None:
    """Return what a variant's key holds; None where there is none.

    Raises:
        ModelError: The value is not a pointer; names the key.
    """
    if value is None:
        return None
    try:
        return decode_pointer(value)
    except ModelError as error:
        raise ModelError(f"Redis key {pointer_key(variant)}: {error}") from error
