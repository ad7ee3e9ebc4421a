"""The stream of synthetic records that a plan describes, one record at a time.

A pure function of the plan: no clock. Live records are dated by their place in the stream, and a
producer that sends none before its date (`streamer.dev.delivery`) is never ahead of the wall clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from heapq import heappop, heappush
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import orjson

from streamer.dev.catalog import Catalog, build_catalog
from streamer.dev.faults import FAULTS, LINE_FAULTS
from streamer.dev.sittings import SittingWriter
from streamer.dev.timeline import Moment, history_moments, live_moments
from streamer.dev.traffic_plan import TrafficPlan
from streamer.dev.viewers import Draw, build_audience, uniform_draws, viewer_id

Topic = Literal["play", "browse"]
Label = Literal["ordinary", "late", "duplicate", "malformed"]

MIN_LATE_MS: Final = 2_000
MAX_LATE_MS: Final = 600_000
MAX_DUPLICATE_DISTANCE: Final = 300


class TrafficRecord(NamedTuple):
    """One record to produce.

    Attributes:
        topic: Which of the two topics.
        key: The user id, UTF-8.
        value: JSON, unless malformed.
        event_time_ms: Its date; of a malformed record, its place in the order.
        label: What is special about it.
    """

    topic: Topic
    key: bytes
    value: bytes
    event_time_ms: int
    label: Label


def generate(plan: TrafficPlan) -> Iterator[TrafficRecord]:
    """Yield the plan's records in order of event time, apart from late and duplicate ones.

    Lazy; every call starts from the beginning. Memory grows with the viewers that have appeared
    and what they have watched, not with the records.
    """
    disturb = plan.disturbances
    # Shares are of all records; these are the chances where each is decided.
    ordinary_share = 1.0 - disturb.duplicate_share - disturb.malformed_share
    late_chance = disturb.late_share / ordinary_share
    duplicate_chance = disturb.duplicate_share / ordinary_share
    malformed_chance = disturb.malformed_share / (1.0 - disturb.duplicate_share)
    # Chance of its own: what goes wrong on the way must not change what viewers do.
    draw = uniform_draws(np.random.default_rng((plan.world.seed, 4)))
    catalog = build_catalog(plan.world.seed, plan.world.n_titles)
    moments = _moments(plan, catalog)
    encode = _encoder(catalog, _run_id(plan))
    make_malformed = _malformed_maker(plan, draw)
    duplicates: list[tuple[int, TrafficRecord]] = []
    dates = _Dates(plan)
    for index in range(plan.n_records):
        if duplicates and duplicates[0][0] <= index:
            yield heappop(duplicates)[1]
        elif draw() < malformed_chance:
            yield make_malformed(dates.date_ms(index))
        else:
            moment = next(moments)
            date_ms = dates.date_ms(index, moment.time_s)
            if draw() < late_chance:
                record = encode(moment, date_ms - _lateness_ms(draw), "late")
            else:
                record = encode(moment, date_ms, "ordinary")
            if draw() < duplicate_chance:
                due = index + 1 + int(draw() * MAX_DUPLICATE_DISTANCE)
                heappush(duplicates, (due, record._replace(label="duplicate")))
            yield record


class _Dates:
    """Dates of records: of live ones by their index, of a history by the event's own time."""

    def __init__(self, plan: TrafficPlan) -> None:
        self._start_ms = plan.start_ms
        self._end_ms = plan.start_ms + round(plan.span_s * 1_000)
        self._is_live = plan.mode == "live"
        self._step_ms = plan.span_s * 1_000 / max(plan.n_records, 1)
        self._last_ms = plan.start_ms

    def date_ms(self, index: int, time_s: float | None = None) -> int:
        """Return the date of record `index`; never decreases, never past the plan's end.

        Args:
            index: Its place in the stream.
            time_s: When its event happened, None for a record without one.
        """
        if self._is_live:
            return self._start_ms + int(index * self._step_ms)
        if time_s is not None:
            self._last_ms = min(self._start_ms + int(time_s * 1_000), self._end_ms)
        return self._last_ms


def _moments(plan: TrafficPlan, catalog: Catalog) -> Iterator[Moment]:
    world, is_live = plan.world, plan.mode == "live"
    audience = build_audience(world.seed, world.n_viewers, catalog)
    # A second live run begins at another time, and viewers do not repeat themselves in it.
    draw = uniform_draws(np.random.default_rng((world.seed, 3, int(is_live), plan.start_ms)))
    writer = SittingWriter(catalog, audience, draw, _run_id(plan), half=int(is_live))
    if is_live:
        return live_moments(writer, audience, draw, plan.n_sittings)
    return history_moments(writer, audience, draw, plan.n_sittings / plan.span_s)


def _run_id(plan: TrafficPlan) -> str:
    """Return eight hex digits that differ between plans, so that ids do too."""
    return blake2b(repr(plan).encode(), digest_size=4).hexdigest()


def _encoder(catalog: Catalog, run_id: str) -> Callable[[Moment, int, Label], TrafficRecord]:
    title_ids, duration_s = catalog.title_ids, catalog.duration_s
    n_encoded = 0

    def encode(moment: Moment, date_ms: int, label: Label) -> TrafficRecord:
        nonlocal n_encoded
        n_encoded += 1
        user_id = viewer_id(moment.viewer)
        _, kind, title, play_id, watched_s, context = moment.happening
        event: dict[str, Any] = {
            "type": kind,
            "event_id": f"{run_id}{n_encoded:08x}",
            "user_id": user_id,
            "item_id": title_ids[title],
            "event_time": date_ms,
        }
        if play_id:
            event["play_id"] = play_id
        if watched_s >= 0:
            event["watched_s"] = watched_s
            event["duration_s"] = duration_s[title]
        if context is not None:
            event["context"] = context
        topic: Topic = "play" if play_id else "browse"
        return TrafficRecord(topic, user_id.encode(), orjson.dumps(event), date_ms, label)

    return encode


def _malformed_maker(plan: TrafficPlan, draw: Draw) -> Callable[[int], TrafficRecord]:
    faults = LINE_FAULTS if plan.disturbances.lines_only else FAULTS

    def make(date_ms: int) -> TrafficRecord:
        user_id = viewer_id(int(draw() * plan.world.n_viewers))
        value = faults[int(draw() * len(faults))].make(user_id, date_ms)
        topic: Topic = "play" if draw() < 0.5 else "browse"
        return TrafficRecord(topic, user_id.encode(), value, date_ms, "malformed")

    return make


def _lateness_ms(draw: Draw) -> int:
    """Mostly seconds, as after a tunnel; at most ten minutes."""
    uniform: float = draw()
    return MIN_LATE_MS + int((MAX_LATE_MS - MIN_LATE_MS) * uniform**3)
