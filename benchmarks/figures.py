"""From samples to figures: a slope without the start, percentiles, and the spread over rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

START_SHARE: Final = 0.1
"""Of the events, until which start-up, joining the group and cold caches are not counted."""
PERCENTILES: Final = (50, 99)


class Sample(NamedTuple):
    """What a contender had done at one moment.

    Attributes:
        seconds: On the machine's monotonic clock.
        events: Applied so far: acknowledged by Redis.
        cpu_seconds: Of all its threads and processes so far.
    """

    seconds: float
    events: int
    cpu_seconds: float


@dataclass(slots=True)
class Reading:
    """What one measurement gave.

    Attributes:
        cpu_us_per_event: Client CPU.
        events_per_second: Of the wall clock.
        latency_ms: By rate, by percentile: ``{"2000": {"p50": ..., "p99": ...}}``.
        kept_up: By rate, whether all was applied within a second of the last record.
        load: Load averages before and after, by what was measured.
    """

    cpu_us_per_event: float | None = None
    events_per_second: float | None = None
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    kept_up: dict[str, bool] = field(default_factory=dict)
    load: dict[str, list[float]] = field(default_factory=dict)


def slope(samples: Sequence[Sample]) -> tuple[float, float]:
    """Return CPU per event in µs, and events a second, from a tenth of the events to the end.

    Raises:
        ValueError: There are no two samples that far apart.
    """
    busy = [sample for sample in samples if sample.events > 0]
    if busy:
        started = [s for s in busy if s.events >= START_SHARE * busy[-1].events]
        first, last = started[0], started[-1]
        n_events = last.events - first.events
        if n_events > 0 and last.seconds > first.seconds:
            cpu_us = (last.cpu_seconds - first.cpu_seconds) * 1e6
            return cpu_us / n_events, n_events / (last.seconds - first.seconds)
    raise ValueError(f"{len(busy)} samples with events are too few for a slope")


def percentiles_ms(delays_s: NDArray[np.float64]) -> dict[str, float]:
    """Return the percentiles of delays, in milliseconds.

    Raises:
        ValueError: There are no delays.
    """
    if not len(delays_s):
        raise ValueError("no event was applied while the delay was measured")
    values = np.percentile(delays_s, PERCENTILES) * 1000
    return {f"p{p}": float(v) for p, v in zip(PERCENTILES, values, strict=True)}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the least, the median and the greatest of at least one value, to four digits."""
    found = {"min": min(values), "median": median(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def summarize(readings: Sequence[Reading]) -> dict[str, Any]:
    """Return a contender's figures over all rounds; what was never measured is absent."""
    summary: dict[str, Any] = {}
    for name in ("cpu_us_per_event", "events_per_second"):
        values = [value for reading in readings if (value := getattr(reading, name)) is not None]
        if values:
            summary[name] = spread(values)
    summary["latency_ms"] = {
        rate: _latency(rate, readings)
        for rate in dict.fromkeys(rate for reading in readings for rate in reading.latency_ms)
    }
    summary["load"] = [reading.load for reading in readings]
    return summary


def _latency(rate: str, readings: Sequence[Reading]) -> dict[str, Any]:
    measured = [reading for reading in readings if rate in reading.latency_ms]
    names = measured[0].latency_ms[rate]
    figures: dict[str, Any] = {
        name: spread([reading.latency_ms[rate][name] for reading in measured]) for name in names
    }
    return figures | {"kept_up": all(reading.kept_up[rate] for reading in measured)}


def ratio(figures: Mapping[str, Any], floor: Mapping[str, Any], name: str) -> float | None:
    """Return how many times the floor's median a figure is, None where either is missing."""
    if name not in figures or name not in floor:
        return None
    return float(figures[name]["median"] / floor[name]["median"])
