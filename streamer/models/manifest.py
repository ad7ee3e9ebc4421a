"""What a model says about itself: ``manifest.json``, from untrusted JSON to values and back.

Pure: bytes in, values out. Field by field in docs/reference/model.md. Fields of a newer writer are
ignored; a field that we know and that does not fit refuses the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from reprlib import Repr
from typing import Any, Final

import orjson

from streamer.errors import ModelError
from streamer.factors import FoldInParams, Signals

FORMAT: Final = 1
MAX_ITEMS: Final = 10_000_000
"""Far above any catalogue; it bounds what a hostile manifest can make a reader allocate."""
MAX_FACTORS: Final = 1024

_MODEL_ID: Final = re.compile(r"[0-9a-f]{16}")
_OPTIONAL_NUMBERS: Final = ("recency_half_life", "recency_floor", "blend_half_life_s")
_SHORT: Final = Repr()
_SIGNAL_NAMES: Final = tuple(signal.name for signal in fields(Signals))


@dataclass(frozen=True, slots=True)
class ModelNotes:
    """What a model carries for people; no vector depends on it, so the model id does not either.

    Attributes:
        trained_through: Newest event time it was trained on, epoch milliseconds.
        created: When it was written, as RFC 3339.
        provenance: How it was made; anything that JSON can hold.
    """

    trained_through: int | None = None
    created: object = None
    provenance: object = field(default_factory=dict)


NO_NOTES: Final = ModelNotes()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was checked on its own, but not yet against the other files.

    Attributes:
        model_id: 16 lowercase hexadecimal digits.
        n_items: Rows of the factor table, 1 to MAX_ITEMS.
        n_factors: Its columns, 1 to MAX_FACTORS.
        params: What the learner needs beside the factors.
        notes: What people may want to know.
    """

    model_id: str
    n_items: int
    n_factors: int
    params: FoldInParams
    notes: ModelNotes


def is_model_id(value: object) -> bool:
    """Say whether `value` is 16 lowercase hexadecimal digits."""
    return isinstance(value, str) and _MODEL_ID.fullmatch(value) is not None


def decode_manifest(content: bytes) -> Manifest:
    """Read ``manifest.json``.

    Raises:
        ModelError: It is not JSON, or a field is missing, of the wrong type or out of range.
    """
    try:
        payload = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ModelError(f"manifest.json: not JSON: {error}") from error
    if not isinstance(payload, dict):
        raise ModelError("manifest.json: not an object")
    found = payload.get("format")
    if type(found) is not int or found != FORMAT:
        raise ModelError(f"manifest.json: format is {_shown(found)}; this version reads {FORMAT}")
    model_id = payload.get("model_id")
    if not isinstance(model_id, str) or not is_model_id(model_id):
        raise ModelError(
            f"manifest.json: model_id is {_shown(model_id)}; "
            "expected 16 lowercase hexadecimal digits"
        )
    return Manifest(
        model_id=model_id,
        n_items=_size(payload, "n_items", MAX_ITEMS),
        n_factors=_size(payload, "n_factors", MAX_FACTORS),
        params=_params(payload),
        notes=ModelNotes(
            trained_through=_trained_through(payload),
            created=payload.get("created"),
            provenance=payload.get("provenance", {}),
        ),
    )


def encode_manifest(manifest: Manifest) -> bytes:
    """Return ``manifest.json``: indented JSON that `decode_manifest` reads back as it was."""
    params = asdict(manifest.params)
    signals = params.pop("signals")
    payload = {
        "format": FORMAT,
        "model_id": manifest.model_id,
        "n_items": manifest.n_items,
        "n_factors": manifest.n_factors,
        **params,
        "signals": signals,
        "trained_through": manifest.notes.trained_through,
        "created": manifest.notes.created,
        "provenance": manifest.notes.provenance,
    }
    return json.dumps(payload, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _params(payload: Mapping[str, Any]) -> FoldInParams:
    numbers = {name: _number(payload, name) for name in ("alpha", "regularization")}
    numbers |= {name: _number(payload, name) for name in _OPTIONAL_NUMBERS if name in payload}
    try:
        return FoldInParams(**numbers, signals=_signals(payload.get("signals", {})))
    except ValueError as error:
        raise ModelError(f"manifest.json: {error}") from error


def _signals(payload: object) -> Signals:
    if not isinstance(payload, dict):
        raise ModelError("manifest.json: signals is not an object of names and strengths")
    unknown = sorted(payload.keys() - set(_SIGNAL_NAMES))
    if unknown:
        raise ModelError(
            f"manifest.json: signals: {_shown(unknown[0])} is not a signal; "
            f"known: {', '.join(_SIGNAL_NAMES)}"
        )
    return Signals(**{name: _number(payload, name, "signals.") for name in payload})


def _number(payload: Mapping[str, Any], name: str, prefix: str = "") -> float:
    if name not in payload:
        raise ModelError(f"manifest.json: {prefix}{name} is missing")
    value = payload[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ModelError(f"manifest.json: {prefix}{name} is {_shown(value)}; expected a number")
    return float(value)


def _size(payload: Mapping[str, Any], name: str, most: int) -> int:
    if name not in payload:
        raise ModelError(f"manifest.json: {name} is missing")
    value = payload[name]
    if type(value) is not int or not 1 <= value <= most:
        raise ModelError(
            f"manifest.json: {name} is {_shown(value)}; expected an integer, 1 to {most}"
        )
    return value


def _shown(value: object) -> str:
    """Return a value for a message: short and on one line, however long or deep it is."""
    return _SHORT.repr(value)


def _trained_through(payload: Mapping[str, Any]) -> int | None:
    value = payload.get("trained_through")
    if value is not None and (type(value) is not int or value < 0):
        raise ModelError(
            f"manifest.json: trained_through is {_shown(value)}; "
            "expected epoch milliseconds or null"
        )
    return value
