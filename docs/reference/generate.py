#!/usr/bin/env python3
"""Write the generated blocks of the reference: settings, test vectors, the sample in JavaScript.

A block stands between ``<!-- generated:NAME -->`` and ``<!-- end -->``; everything else is written
by hand. `tests/unit/test_docs_reference.py` fails where a block is not what this file would write.

The vectors are those of `tests/vectors.json`, by which both the package and the oracle of the tests
are judged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

from pydantic import BaseModel

from streamer.config import Settings
from streamer.factors import BUILT_INS
from streamer.models.experiment_file import PARTS

REFERENCE = Path(__file__).parent
EXAMPLES = REFERENCE.parent / "examples"
SAMPLE = EXAMPLES / "read_features.mjs"
VECTORS = REFERENCE.parents[1] / "tests" / "vectors.json"
ALLOCATION_VECTORS = REFERENCE.parents[1] / "tests" / "allocation_vectors.json"
PAGES = ("config.md", "redis.md", "allocation.md", "experiments.md", "learners.md")


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
        "vectors": vectors_text(json.loads(VECTORS.read_text(encoding="utf-8"))),
        "sample": f"```js\n{sample}\n```",
        **experiment_blocks(),
        **learner_blocks(),
    }


def learner_blocks() -> dict[str, str]:
    """Return the blocks of the page about learners; the example is part of a list."""
    rows = [(f"`{name}`", each.n_vectors, each.description) for name, each in BUILT_INS.items()]
    example = (EXAMPLES / "own_learner.py").read_text(encoding="utf-8").rstrip("\n")
    return {
        "learners built-ins": table(("learner", "vectors", "what"), rows),
        "learners example": indent(f"```python\n{example}\n```", "   "),
    }


def experiment_blocks() -> dict[str, str]:
    """Return the blocks of the pages about experiments."""
    sample = (EXAMPLES / "allocate.mjs").read_text(encoding="utf-8").rstrip("\n")
    example = (EXAMPLES / "experiments.toml").read_text(encoding="utf-8").rstrip("\n")
    vectors = json.loads(ALLOCATION_VECTORS.read_text(encoding="utf-8"))
    return {
        "allocation sample": f"```js\n{sample}\n```",
        "allocation vectors": allocation_text(vectors),
        "experiments example": f"```toml\n{example}\n```",
        **{f"experiments {name}": part_table(part) for name, part in PARTS.items()},
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


def part_table(part: type[BaseModel]) -> str:
    """Return one line per field of a table in a file of experiments."""
    schemas = part.model_json_schema()["properties"]
    rows = [
        (
            f"`{name}`",
            "list" if (schema := schemas[name]).get("type") == "array" else _type(schema),
            "required" if field.is_required() else _default(schema),
            field.description,
        )
        for name, field in part.model_fields.items()
    ]
    return table(("name", "type", "default", "what"), rows)


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
        return {
            "path": "path",
            "password": "string, secret",
            "date-time": "time with an offset",
        }[schema["format"]]
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


def vectors_text(vectors: Mapping[str, Any]) -> str:
    """Return the vectors as they stand in redis.md."""
    keys = [
        (f"`{_short(item_id)}`", f"`0x{key}`", f"`{bytes.fromhex(key)[::-1].hex(' ')}`")
        for item_id, key in vectors["item_keys"].items()
    ]
    users = [(f"`{user_id}`", f"`{number}`") for user_id, number in vectors["buckets"].items()]
    words = [
        (each["event_time_ms"], each["value"], each["kind"], f"`0x{each['word']}`")
        for each in vectors["words"]
    ]
    return "\n\n".join(
        [
            table(("item id", "`item_key`", "as stored"), keys),
            table(("user id", "bucket"), users),
            table(("`event_time_ms`", "value", "kind", "`word`"), words),
            *map(_history_text, vectors["histories"]),
            *map(_features_text, vectors["features"]),
            *map(_fold_in_text, vectors["fold_ins"]),
            *map(_imported_text, vectors["imported"]),
        ]
    )


def allocation_text(vectors: Mapping[str, Any]) -> str:
    """Return the vectors as they stand in allocation.md."""
    slots = [
        (f"`{each['salt']}`", f"`{_short(each['user_id'])}`", f"`{each['digest']}`", each["slot"])
        for each in vectors["slots"]
    ]
    experiment = vectors["experiment"]
    cells = "; ".join(
        f"`{cell['name']}` with share {cell['share']} of `{json.dumps(cell['slots'])}`"
        for cell in experiment["cells"]
    )
    users = [
        (f"`{each['user_id']}`", each["slot"], f"`{each['cell']}`" if each["cell"] else "none")
        for each in vectors["allocations"]
    ]
    return "\n\n".join(
        [
            table(("salt", "user id", "digest begins with", "slot"), slots),
            f"With the salt `{experiment['salt']}` and the cells {cells}:",
            table(("user id", "slot", "cell"), users),
        ]
    )


def _short(item_id: str) -> str:
    """Say how often a character is repeated where that is all there is."""
    repeated = len(item_id) > 40 and len(set(item_id)) == 1
    return f"{item_id[0]}` × `{len(item_id)}" if repeated else item_id


def _history_text(vector: Mapping[str, Any]) -> str:
    events = "\n".join(
        f"{each['record_timestamp_ms']}  {json.dumps(each['value'], ensure_ascii=False)}"
        for each in vector["events"]
    )
    return (
        f"The history of `{vector['user_id']}` after these events (the timestamp of the record, "
        f"then its value); digest `0x{vector['digest']}`:\n\n"
        f"```text\n{events}\n\n{_hex_lines(vector['hex'], 24)}\n```"
    )


def _features_text(vector: Mapping[str, Any]) -> str:
    return (
        f"Features in {vector['dtype']}:\n\n"
        f"```text\n{_facts(vector, 'hex')}\n\n{_hex_lines(vector['hex'], 64)}\n```"
    )


def _fold_in_text(vector: Mapping[str, Any]) -> str:
    return (
        f"The history of `{vector['user_id']}` above, folded in with a model of three titles and "
        "the signals by default; vectors to 1e-5 of their length:\n\n"
        f"```text\n{_facts(vector['model'])}\n\n{_facts(vector, 'history', 'model')}\n```"
    )


def _imported_text(vector: Mapping[str, Any]) -> str:
    return (
        f"An imported vector in {vector['dtype']}:\n\n"
        f"```text\n{_facts(vector, 'hex')}\n\n{_hex_lines(vector['hex'], 32)}\n```"
    )


def _facts(facts: Mapping[str, Any], *left_out: str) -> str:
    """Return one line a fact."""
    return "\n".join(
        f"{name} = {json.dumps(fact) if isinstance(fact, dict | list) else fact}"
        for name, fact in facts.items()
        if name not in left_out
    )


def _hex_lines(digits: str, n_header_bytes: int) -> str:
    """Break hexadecimal digits after every 16 bytes and after the header."""
    parts = (digits[: 2 * n_header_bytes], digits[2 * n_header_bytes :])
    lines = (part[at : at + 32] for part in parts for at in range(0, len(part), 32))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
