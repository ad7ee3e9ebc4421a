"""How dead letters are shown, to people and to programs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamer.cli.moments import in_utc
from streamer.kafka.letter_content import content_of
from streamer.kafka.letter_survey import Fate, Group, Survey
from streamer.kafka.letters import Letter

PREVIEW_BYTES: Final = 200
LEAST_WIDTH: Final = 160
"""Of tables where there is no terminal that says how wide it is."""


def console_for_tables() -> Console:
    """Return a console that is wide enough where nobody looks at it directly."""
    console = Console(highlight=False)
    if console.is_terminal:
        return console
    return Console(highlight=False, width=max(LEAST_WIDTH, console.width))


def printable(text: str) -> str:
    """Escape whatever could steer a terminal: values are hostile."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def place_json(letter: Letter) -> dict[str, Any]:
    """Return where a letter is, where its record was, and why it is there."""
    return {
        "topic": letter.record.partition.topic,
        "partition": letter.record.partition.number,
        "offset": letter.record.offset,
        "reason": letter.reason,
        "is_reduced": letter.is_reduced,
        "attempts": letter.redriven.n_attempts if letter.redriven else 0,
        "original": {
            "topic": letter.place.topic,
            "partition": letter.place.number,
            "offset": letter.offset,
            "timestamp_ms": letter.timestamp_ms,
        },
    }


def survey_json(survey: Survey) -> dict[str, Any]:
    """Return counts, and the samples of each group, for programs."""
    return {
        **fates_json(survey.fates),
        "foreign": survey.n_foreign,
        "groups": [_group_json(group) for group in survey.groups],
    }


def fates_json(fates: dict[Fate, int]) -> dict[str, int]:
    """Return the number of letters, and of those with each fate."""
    return {
        "letters": sum(fates.values()),
        **{str(fate): fates.get(fate, 0) for fate in Fate},
    }


def letter_json(letter: Letter) -> dict[str, Any]:
    """Return one letter whole, for programs; bytes that are not UTF-8 in base64."""
    record, redriven = letter.record, letter.redriven
    return {
        **place_json(letter),
        "first_rejected": redriven
        and {
            "topic": redriven.place.topic,
            "partition": redriven.place.number,
            "offset": redriven.offset,
            "timestamp_ms": redriven.timestamp_ms,
        },
        "key": _bytes_json(record.key),
        "headers": [{"name": name, "value": _bytes_json(raw)} for name, raw in letter.headers],
        "size": len(record.value or b""),
        "value": _bytes_json(record.value),
    }


def show_survey(survey: Survey) -> None:
    """Print a table of the groups and their samples."""
    console = console_for_tables()
    if not survey.groups:
        console.print("no dead letters")
    else:
        console.print(_table(survey.groups))
    for group in survey.groups:
        for letter in group.samples:
            console.print(_sample_line(letter), soft_wrap=True)
    if survey.n_foreign:
        console.print(
            f"{survey.n_foreign:,} records in these topics are no letters of a worker's; "
            "they are left alone"
        )


def show_letter(letter: Letter) -> None:
    """Print one letter whole."""
    console, record = console_for_tables(), letter.record
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("letter", Text(_where(letter), "bold"))
    table.add_row("reason", Text(letter.reason, "bold"))
    original = f"{letter.place.topic} {letter.place.number} {letter.offset}"
    table.add_row("record", Text(f"{original}, {in_utc(letter.timestamp_ms)} UTC"))
    if redriven := letter.redriven:
        first = f"{redriven.place.topic} {redriven.place.number} {redriven.offset}"
        said = f"{redriven.n_attempts} times, first rejected at {first}"
        table.add_row("redriven", Text(f"{said}, {in_utc(redriven.timestamp_ms)} UTC"))
    table.add_row("key", _as_text(record.key))
    for name, raw in letter.headers:
        table.add_row("header", Text(f"{printable(name)} = ").append_text(_as_text(raw)))
    size = "hash and size only, it cannot be redriven" if letter.is_reduced else "whole"
    table.add_row("value", f"{len(record.value or b''):,} bytes, {size}")
    console.print(table)
    if record.value:
        for line in _value_lines(record.value):
            console.print(Text(line), soft_wrap=True)


def redrive_lines(answer: dict[str, Any]) -> list[str]:
    """Return what a redrive did, for people."""
    if answer["dry_run"]:
        lines = [f"would redrive {answer['planned']:,} of {answer['letters']:,} letters"]
        lines += [
            f"  {group['topic']}  {group['reason']}: {group[Fate.WAITING]:,}"
            for group in answer["groups"]
            if group[Fate.WAITING]
        ]
    else:
        lines = [f"redriven {answer['redriven']:,} of {answer['letters']:,} letters"]
    if answer["stopped"]:
        lines.append("  stopped: repeat it for the rest")
    if answer["redriven_before"]:
        lines.append(f"  {answer['redriven_before']:,} were redriven before")
    if answer[Fate.REDUCED]:
        lines.append(
            f"  {answer[Fate.REDUCED]:,} are reduced to hash and size and cannot be redriven; "
            "their records are in their own topics, if anywhere"
        )
    if answer[Fate.EXPIRED]:
        lines.append(
            f"  {answer[Fate.EXPIRED]:,} are older than redis.tombstone_days and left out: "
            "they could bring a forgotten viewer back"
        )
    lines += [f"  {n:,} were refused: {error}" for error, n in answer["errors"].items()]
    return lines


def _group_json(group: Group) -> dict[str, Any]:
    return {
        "topic": group.topic,
        "reason": group.reason,
        **fates_json(group.fates),
        "failed_again": group.n_failed_again,
        "max_attempts": group.max_attempts,
        "first_ms": group.first_ms,
        "last_ms": group.last_ms,
        "samples": [
            {
                **place_json(letter),
                "size": len(letter.record.value or b""),
                "value": _preview(letter.record.value),
            }
            for letter in group.samples
        ],
    }


def _table(groups: Sequence[Group]) -> Table:
    table = Table()
    table.add_column("topic", overflow="fold")
    table.add_column("reason")
    for name in ("letters", *Fate, "failed again"):
        table.add_column(str(name), justify="right")
    table.add_column("first, UTC", no_wrap=True)
    table.add_column("last, UTC", no_wrap=True)
    for group in groups:
        again = f"{group.n_failed_again:,}"
        if group.n_failed_again:
            again += f" (up to {group.max_attempts} ×)"
        table.add_row(
            group.topic,
            group.reason,
            f"{group.n_letters:,}",
            *(f"{group.fates[fate]:,}" for fate in Fate),
            again,
            *("" if at is None else in_utc(at) for at in (group.first_ms, group.last_ms)),
        )
    return table


def _sample_line(letter: Letter) -> Text:
    line = Text(f"{_where(letter)}  ").append(letter.reason, "bold")
    return line.append(f"  {_preview(letter.record.value)}")


def _where(letter: Letter) -> str:
    partition = letter.record.partition
    return f"{partition.topic} {partition.number} {letter.record.offset}"


def _preview(value: bytes | None) -> str:
    if value is None:
        return "(no value)"
    cut = value[:PREVIEW_BYTES].decode(errors="backslashreplace")
    return printable(cut) + ("…" if len(value) > PREVIEW_BYTES else "")


def _value_lines(value: bytes) -> list[str]:
    """Return JSON with a field a line, anything else as text with escapes."""
    content = content_of(value)
    text = (
        orjson.dumps(content, option=orjson.OPT_INDENT_2).decode()
        if content
        else value.decode(errors="backslashreplace")
    )
    return [printable(line) for line in text.split("\n")]


def _as_text(raw: bytes | None) -> Text:
    if raw is None:
        return Text("none", "italic")
    return Text(printable(raw.decode(errors="backslashreplace")))


def _bytes_json(raw: bytes | None) -> str | dict[str, str] | None:
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}
