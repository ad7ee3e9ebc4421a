#!/usr/bin/env python3
"""Write the generated blocks of the reference: settings, test vectors, the sample in JavaScript.

A block stands between ``<!-- generated:NAME -->`` and ``<!-- end -->``; everything else is written
by hand. `tests/unit/test_docs_reference.py` fails where a block is not what this file would write.

The vectors are computed here in plain Python, from the formulas of redis.md and with nothing of the
package, so that they can judge it.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zlib import crc32

from pydantic import BaseModel

from streamer.config import Settings

REFERENCE = Path(__file__).parent
SAMPLE = REFERENCE.parent / "examples" / "read_features.mjs"
PAGES = ("config.md", "redis.md")
U64 = (1 << 64) - 1


def main() -> None:
    """Rewrite the blocks in place."""
    found = blocks()
    for page in PAGES:
        path = REFERENCE / page
        path.write_text(fill(path.read_text(encoding="utf-8"), found), encoding="utf-8")


def blocks() -> dict[str, str]:
    """Return every block by its name."""
    tables = {
        f"config {name}": settings_table(name, field.annotation)
        for name, field in Settings.model_fields.items()
        if field.annotation is not None
    }
    sample = SAMPLE.read_text(encoding="utf-8").rstrip("\n")
    return {
        **tables,
        "vectors": vectors_text(vectors()),
        "sample": f"```js\n{sample}\n```",
    }


def fill(text: str, found: Mapping[str, str]) -> str:
    """Return the page with each of its blocks as it should be."""
    return re.sub(
        r"(<!-- generated:([^>]+?) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}\n{found[match[2]]}\n\n{match[3]}",
        text,
        flags=re.DOTALL,
    )


# --- settings ----------------------------------------------------------------------------------


def settings_table(section: str, model: type[BaseModel]) -> str:
    """Return one line per setting of a section."""
    schemas = model.model_json_schema()["properties"]
    rows = []
    for name, field in model.model_fields.items():
        schema = schemas[name]
        variable = f"STREAMER__{section}__{name}".upper()
        if schema.get("type") == "object":
            variable += "__NAME"
        rows.append(
            (f"`{name}`", _type(schema), _default(schema), field.description, f"`{variable}`")
        )
    return table(("name", "type", "default", "what", "environment"), rows)


def _type(schema: Mapping[str, Any]) -> str:
    schema = next((part for part in schema.get("anyOf", ()) if part["type"] != "null"), schema)
    if "enum" in schema:
        *others, last = (f"`{choice}`" for choice in schema["enum"])
        return f"{', '.join(others)} or {last}"
    if "pattern" in schema:
        return f"string, `{schema['pattern']}`"
    if schema["type"] in ("number", "integer"):
        return f"{schema['type']}, {_range(schema)}"
    if schema["type"] == "object":
        return "table of strings"
    if "format" in schema:
        return {"path": "path", "password": "string, secret"}[schema["format"]]
    return "string, not empty" if schema.get("minLength") else "string"


def _range(schema: Mapping[str, Any]) -> str:
    if "exclusiveMinimum" in schema:
        return f"> {schema['exclusiveMinimum']}, ≤ {schema['maximum']}"
    return f"{schema['minimum']} to {schema['maximum']}"


def _default(schema: Mapping[str, Any]) -> str:
    if "default" not in schema:
        return "empty"
    return "none" if schema["default"] is None else f"`{schema['default']}`"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table of Markdown."""
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


# --- test vectors ------------------------------------------------------------------------------

RECORD_TIMESTAMP_MS = 1_763_900_060_000
ITEM_IDS = ("title-501", "title-17", "título-2")
USER_IDS = ("u-1842", "viewer-000007", "zoë")
KINDS = {"play": 1, "brief_play": 2, "detail_view": 3, "trailer_view": 4, "my_list": 5, "thumb": 6}
WORDS = ((1_763_900_000_123, 174, "play"), (946_684_800_000, 0, "detail_view"))
LARGEST_WORD = ((1 << 48) - 1, 255, "thumb")


def event(event_type: str, seconds: int, item_id: str | None = None, **more: object) -> Any:  # noqa: ANN401  a JSON object
    """Return an event of so many seconds before the record's timestamp."""
    at = {} if item_id is None else {"item_id": item_id}
    return {"type": event_type, **at, "event_time": RECORD_TIMESTAMP_MS - 1000 * seconds, **more}


# What each event is evidence of was worked out by hand from events.md.
HISTORIES: tuple[tuple[str, tuple[tuple[Any, str | None, int], ...]], ...] = (
    (
        "u-1842",
        (
            (event("play_stop", 60, "title-501", watched_s=2710, duration_s=3120), "play", 174),
            (event("thumb_up", 50, "title-501"), "thumb", 2),
            # older than the first, and of the same title and kind: it changes nothing
            (event("play_progress", 900, "title-501", watched_s=1800, duration_s=3120), "play", 115),
            (event("play_stop", 40, "title-17", watched_s=12, duration_s=5400), "brief_play", 0),
            (event("my_list_add", 50, "título-2"), "my_list", 1),
            (event("impression", 5, "title-17"), None, 0),
        ),
    ),
    (
        "zoë",
        (
            (event("detail_view", 1, "title-17"), "detail_view", 0),
            (event("forget", 0), None, 0),
        ),
    ),
)

FEATURES: tuple[Mapping[str, Any], ...] = tuple(
    {
        "dtype": dtype,
        "model_id": 0xA02F7085CF3B5BD8,
        "history_digest": 0x0123456789ABCDEF,
        "generation": 7,
        "learner_id": crc32(b"recency_fold_in"),
        "as_of_ms": RECORD_TIMESTAMP_MS - 40_000,
        "written_ms": RECORD_TIMESTAMP_MS + 4,
        "n_interactions": 4,
        "n_solved": 3,
        "recent": [0.5, -0.25, 0.0, 1.5],
        "lasting": [0.75, 2.0**-24, -3.0, 0.125],
    }
    for dtype in ("f16", "f32")
)
BLEND_HALF_LIFE_S = 1800


def vectors() -> dict[str, Any]:
    """Return test vectors, all numbers as they are."""
    return {
        "item_keys": {item_id: item_key(item_id) for item_id in ITEM_IDS},
        "words": [
            {"event_time_ms": at, "value": value, "kind": kind, "word": word(at, value, kind)}
            for at, value, kind in (*WORDS, LARGEST_WORD)
        ],
        "histories": [history_vector(user_id, events) for user_id, events in HISTORIES],
        "buckets": {user_id: bucket(user_id) for user_id in USER_IDS},
        "features": [features_vector(fields) for fields in FEATURES],
    }


def item_key(item_id: str) -> int:
    """Return the first eight bytes' worth of BLAKE2b, asked for with that length."""
    return int.from_bytes(blake2b(item_id.encode(), digest_size=8).digest(), "little")


def word(event_time_ms: int, value: int, kind: str) -> int:
    """Return what an entry is ordered by."""
    return event_time_ms << 16 | value << 8 | KINDS[kind]


def bucket(user_id: str) -> str:
    """Return what stands between the braces of a user's keys."""
    return f"{crc32(user_id.encode()) % 256:02x}"


def mix(z: int) -> int:
    """Return splitmix64's finaliser of z."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & U64
    z = (z ^ z >> 27) * 0x94D049BB133111EB & U64
    return z ^ z >> 31


def history_vector(user_id: str, events: Sequence[tuple[Any, str | None, int]]) -> dict[str, Any]:
    """Merge events that fit into every group's capacity."""
    newest: dict[tuple[int, str], int] = {}
    forgotten_before_ms = 0
    for payload, kind, value in events:
        if payload["type"] == "forget":
            forgotten_before_ms = RECORD_TIMESTAMP_MS + 300_000
        if kind is not None:
            key = item_key(payload["item_id"]), kind
            newest[key] = max(newest.get(key, 0), word(payload["event_time"], value, kind))
    entries = sorted(
        (
            (packed, key)
            for (key, _), packed in newest.items()
            if packed >> 16 > forgotten_before_ms
        ),
        reverse=True,
    )
    digest = sum(mix(key + mix(packed) & U64) for packed, key in entries)
    digest = digest + mix(forgotten_before_ms + 1) & U64
    blob = struct.pack("<2sBBHHQQ", b"SH", 1, 0, len(entries), 0, digest, forgotten_before_ms)
    blob += b"".join(struct.pack("<QQ", key, packed) for packed, key in entries)
    payloads = [payload | {"user_id": user_id} for payload, _, _ in events]
    return {"user_id": user_id, "events": payloads, "hex": blob.hex(), "digest": digest}


def features_vector(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Encode features, and blend them half an hour after the newest event."""
    recent, lasting = fields["recent"], fields["lasting"]
    number, code = {"f32": (1, "f"), "f16": (2, "e")}[fields["dtype"]]
    names = ("model_id", "history_digest", "generation", "learner_id", "as_of_ms", "written_ms")
    numbers = (fields[name] for name in (*names, "n_interactions", "n_solved"))
    blob = struct.pack("<2sBBBBH", b"SF", 1, number, 2, 0, len(recent))
    blob += struct.pack("<QQIIQQHH12x", *numbers)
    blob += struct.pack(f"<{2 * len(recent)}{code}", *recent, *lasting)
    blended = [(a + b) / 2 for a, b in zip(unit(recent), unit(lasting), strict=True)]
    return {**fields, "hex": blob.hex(), "blended_after_half_life": blended}


def unit(vector: Sequence[float]) -> list[float]:
    """Return the vector of length 1 in the same direction."""
    length = sum(x * x for x in vector) ** 0.5
    return [x / length for x in vector]


def vectors_text(found: Mapping[str, Any]) -> str:
    """Return the vectors as they stand in redis.md."""
    keys = [
        (f"`{item_id}`", f"`0x{key:016x}`", f"`{key.to_bytes(8, 'little').hex(' ')}`")
        for item_id, key in found["item_keys"].items()
    ]
    users = [(f"`{user_id}`", f"`{number}`") for user_id, number in found["buckets"].items()]
    words = [
        (each["event_time_ms"], each["value"], f"`{each['kind']}`", f"`0x{each['word']:016x}`")
        for each in found["words"]
    ]
    return "\n\n".join(
        [
            table(("item id", "`item_key`", "as stored"), keys),
            table(("user id", "bucket"), users),
            table(("`event_time_ms`", "value", "kind", "`word`"), words),
            *map(_history_text, found["histories"]),
            *map(_features_text, found["features"]),
        ]
    )


def _history_text(vector: Mapping[str, Any]) -> str:
    events = "\n".join(json.dumps(each, ensure_ascii=False) for each in vector["events"])
    return (
        f"History of `{vector['user_id']}` after these events, in any order and any number of "
        f"times; digest `0x{vector['digest']:016x}`:\n\n"
        f"```text\n{events}\n\n{_hex_lines(vector['hex'], 24)}\n```"
    )


def _features_text(vector: Mapping[str, Any]) -> str:
    blended = ", ".join(f"{x:.9f}" for x in vector["blended_after_half_life"])
    fields = "\n".join(
        f"{name} = {f'0x{value:016x}' if name in ('model_id', 'history_digest') else value}"
        for name, value in vector.items()
        if name not in ("hex", "blended_after_half_life")
    )
    return (
        f"Features in {vector['dtype']}; blended at `as_of_ms` + {BLEND_HALF_LIFE_S} s with a half-"
        f"life of {BLEND_HALF_LIFE_S} s they are ({blended}):\n\n"
        f"```text\n{fields}\n\n{_hex_lines(vector['hex'], 64)}\n```"
    )


def _hex_lines(digits: str, n_header_bytes: int) -> str:
    """Break hexadecimal digits after every 16 bytes and after the header."""
    parts = (digits[: 2 * n_header_bytes], digits[2 * n_header_bytes :])
    lines = (part[at : at + 32] for part in parts for at in range(0, len(part), 32))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
