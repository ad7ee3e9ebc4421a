"""`streamer get`: one viewer, as workers and readers see them."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamer.app import redis_client
from streamer.config import load_settings
from streamer.errors import StoreUnavailable
from streamer.events import FULL_COMPLETION, Kind, MyList, Thumb
from streamer.factors import UNKNOWN_ROW, ItemModel, strengths
from streamer.history import event_times_ms, kinds, values
from streamer.reader import FeatureReader, ReaderSettings, Status, TopK, UserRead
from streamer.reader.source import RedisSource
from streamer.stores import ping

LEAST_WIDTH: Final = 120
"""Of the tables where there is no terminal that says how wide it is."""
STYLES: Final = {
    Status.FRESH: "bold green",
    Status.STALE: "bold yellow",
    Status.REFOLDED: "bold cyan",
    Status.COLD: "bold blue",
    Status.DEGRADED: "bold red",
}
MEANINGS: Final = {
    Status.FRESH: "everything that workers have applied is in it",
    Status.STALE: "the newest events may be missing",
    Status.REFOLDED: "folded in here: the stored features are missing, behind, or another model's",
    Status.COLD: "nothing to fold in; popular titles instead",
    Status.DEGRADED: "Redis did not answer",
}
FIXED_WORDS: Final = {
    (Kind.MY_LIST, MyList.ADDED): "put on the list",
    (Kind.MY_LIST, MyList.REMOVED): "taken off the list",
    (Kind.THUMB, Thumb.UP): "thumbs up",
    (Kind.THUMB, Thumb.DOWN): "thumbs down: hidden",
    (Kind.THUMB, Thumb.CLEARED): "thumb withdrawn",
    (Kind.DETAIL_VIEW, 0): "opened the details",
    (Kind.TRAILER_VIEW, 0): "watched the trailer",
}


@click.command()
@click.argument("user_id", metavar="USER")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead.")
@click.option("-k", default=20, show_default=True, type=click.IntRange(1, 1000), help="Titles.")
@click.option("--imported", is_flag=True, help="Use an imported vector in place of `lasting`.")
def command(user_id: str, config: Path | None, as_json: bool, k: int, imported: bool) -> None:
    """Show one viewer: history, features, top titles.

    A viewer whom nobody knows is COLD and gets popular titles; that is no error.
    """
    settings = load_settings(config)
    client = redis_client(settings.redis)
    ping(client)
    models = settings.models
    reader_settings = ReaderSettings(
        group_id=settings.kafka.group_id, learner=models.learner, imported_lasting=imported
    )
    reader = FeatureReader(
        RedisSource(client), models.variant, models.directory, reader_settings
    ).start()
    with reader:
        read = reader.get(user_id, check_history=True)
        top = reader.top_k(read, k)
    if read.status is Status.DEGRADED:
        raise StoreUnavailable(f"Redis did not answer: {read.error}")
    answer = as_json_object(read, top, int(time.time() * 1000))
    if as_json:
        click.echo(json.dumps(answer))
    else:
        _show(read, answer)


def as_json_object(read: UserRead, top: TopK, now_ms: int) -> dict[str, Any]:
    """Return everything that is known of the viewer, for machines."""
    model = None if read.served is None else read.served.model
    vectors = {} if read.vectors is None else {"recent": read.recent, "lasting": read.lasting}
    forgotten_before_ms = 0 if read.history is None else int(read.history.forgotten_before_ms[0])
    return {
        "user_id": read.user_id,
        "status": str(read.status),
        "error": read.error,
        "freshness_age_seconds": read.age_seconds,
        "model_id": None if read.model_id is None else f"{read.model_id:016x}",
        "generation": read.generation,
        "as_of_ms": read.as_of_ms,
        "written_ms": read.written_ms,
        "idle_seconds": None if read.as_of_ms is None else (now_ms - read.as_of_ms) / 1000,
        "forgotten_before_ms": forgotten_before_ms or None,
        "vectors": {
            name: {"norm": float(np.linalg.norm(vector)), "n_factors": len(vector)}
            for name, vector in vectors.items()
            if vector is not None
        },
        "is_imported": read.is_imported,
        "history": _entries(read, model),
        "ranked_by": None if model is None else "taste" if vectors else "popularity",
        "top": [
            {"item_id": item_id, "score": float(score)}
            for item_id, score in zip(top.item_ids, top.scores, strict=True)
        ],
    }


def in_words(kind: int, value: int) -> str:
    """Say what a viewer did to a title."""
    if kind in (Kind.PLAY, Kind.BRIEF_PLAY):
        completion = f"{100 * value / FULL_COMPLETION:g} %"
        return f"watched {completion}" if kind == Kind.PLAY else f"left after {completion}"
    return FIXED_WORDS.get((Kind(kind), value), f"value {value}")


def _entries(read: UserRead, model: ItemModel | None) -> list[dict[str, Any]]:
    """Return the history, newest first; ids and strengths are the live model's."""
    if read.history is None:
        return []
    n_entries = int(read.history.counts[0])
    item_keys, words = read.history.item_keys[0, :n_entries], read.history.words[0, :n_entries]
    rows = model.rows_of(item_keys) if model else np.full(n_entries, UNKNOWN_ROW)
    strength = strengths(words, model.strength_table).tolist() if model else [None] * n_entries
    columns = zip(
        *(column.tolist() for column in (rows, item_keys, kinds(words), values(words))),
        event_times_ms(words).tolist(),
        strength,
        strict=True,
    )
    return [
        {
            "item_id": model.item_ids[row] if model and row != UNKNOWN_ROW else None,
            "item_key": f"{item_key:016x}",
            "kind": Kind(kind).name.lower(),
            "value": value,
            "what": in_words(kind, value),
            "event_time_ms": event_time_ms,
            "strength": entry_strength,
        }
        for row, item_key, kind, value, event_time_ms, entry_strength in columns
    ]


def _show(read: UserRead, answer: dict[str, Any]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(LEAST_WIDTH, console.width))
    now_ms = int(time.time() * 1000)
    console.print(_summary(read, answer, now_ms))
    if answer["history"]:
        console.print(_history_table(answer["history"], now_ms))
    else:
        since = "since then" if answer["forgotten_before_ms"] else "that workers have seen"
        console.print(Text(f"no history: this viewer has done nothing {since}", "italic"))
    if answer["top"]:
        console.print(_top_table(answer))
    else:
        console.print(Text("no titles: no model is live here, see `streamer model publish`"))


def _summary(read: UserRead, answer: dict[str, Any], now_ms: int) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("viewer", Text(read.user_id, "bold"))
    meaning = f"  {MEANINGS[read.status]}" + (f" ({read.error})" if read.error else "")
    status = Text(read.status.upper(), STYLES[read.status]).append(meaning, "default not bold")
    table.add_row("status", status)
    age = read.age_seconds
    vouched = "no worker vouches for anything" if age is None else f"as of {_ago(age)}"
    table.add_row("freshness", vouched)
    model = answer["model_id"]
    table.add_row("model", f"{model}, generation {read.generation}" if model else "none is live")
    if read.as_of_ms is not None:
        table.add_row("newest event", _when(read.as_of_ms, now_ms))
    if read.written_ms is not None:
        table.add_row("written", _when(read.written_ms, now_ms))
    if answer["forgotten_before_ms"]:
        table.add_row("forgotten", f"until {_when(answer['forgotten_before_ms'], now_ms)}")
    for name, vector in answer["vectors"].items():
        origin = ", imported" if read.is_imported and name == "lasting" else ""
        table.add_row(name, f"norm {vector['norm']:.4f}, {vector['n_factors']} factors{origin}")
    return table


def _history_table(entries: list[dict[str, Any]], now_ms: int) -> Table:
    table = Table(title=f"history, {len(entries)} entries, newest first", title_justify="left")
    table.add_column("title", overflow="fold")
    table.add_column("what", no_wrap=True)
    table.add_column("when", no_wrap=True)
    table.add_column("strength", justify="right")
    for entry in entries:
        title = Text(entry["item_id"] or f"key {entry['item_key']}")
        if entry["item_id"] is None:
            title.append("  not in the model", "dim")
        strength = "" if entry["strength"] is None else f"{entry['strength']:.2f}"
        table.add_row(title, entry["what"], _when(entry["event_time_ms"], now_ms), strength)
    return table


def _top_table(answer: dict[str, Any]) -> Table:
    table = Table(title=f"titles by {answer['ranked_by']}", title_justify="left")
    table.add_column("", justify="right")
    table.add_column("title", overflow="fold")
    table.add_column("score", justify="right")
    for rank, title in enumerate(answer["top"], 1):
        table.add_row(str(rank), Text(title["item_id"]), f"{title['score']:.4f}")
    return table


def _when(time_ms: int, now_ms: int) -> str:
    try:
        moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):  # 48 bits of milliseconds reach past year 9999
        return f"{time_ms} ms"
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC, {_ago((now_ms - time_ms) / 1000)}"


def _ago(seconds: float) -> str:
    if seconds < 0:
        return f"{-seconds:.0f} s ahead"
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.1f} s ago"
