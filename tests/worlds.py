"""Small worlds for tests: records of a log, and a model that knows its items."""

from __future__ import annotations

import json

import numpy as np

from streamer.factors import FoldInParams, ItemModel, RecencyFoldIn
from streamer.pipeline.records import Partition, Record
from streamer.pipeline.step import LiveModel

NOW_MS = 1_763_900_000_000
PLAYS = Partition("play-events", 0)


def item_model(n_items=40, n_factors=8, model_id=0xA1, seed=3) -> ItemModel:
    random = np.random.default_rng(seed)
    return ItemModel.of(
        model_id,
        FoldInParams(alpha=10.0, regularization=1.0),
        [f"title-{row}" for row in range(n_items)],
        (0.3 * random.standard_normal((n_items, n_factors))).astype(np.float32),
        np.arange(n_items, 0, -1).astype(np.float32),
    )


def live_model(generation=1, **options) -> LiveModel:
    return LiveModel("default", generation, item_model(**options), RecencyFoldIn())


def event(user_id, item_id, event_time_ms=NOW_MS, event_type="play_stop", **fields) -> bytes:
    if event_type in {"play_stop", "play_progress"}:
        fields = {"watched_s": 3000, "duration_s": 3000, **fields}
    payload = {"type": event_type, "user_id": user_id, "event_time": event_time_ms, **fields}
    if item_id is not None:
        payload["item_id"] = item_id
    return json.dumps(payload).encode()


def records(*values: bytes | None, partition=PLAYS, first_offset=0, at_ms=NOW_MS) -> list[Record]:
    return [
        Record(partition, first_offset + index, at_ms + index, None, value)
        for index, value in enumerate(values)
    ]
