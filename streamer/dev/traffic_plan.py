"""Everything that decides a stream of synthetic traffic: who, what, when, and what goes wrong.

Equal plans give equal bytes (`streamer.dev.traffic`). Viewers' tastes and the titles depend on the
plan's `World` alone, so a model trained on a history serves live traffic of the same world; what
the viewers then do depends on the world, the mode and the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from streamer.dev.sittings import EVENTS_PER_SITTING, SITTING_S
from streamer.dev.timeline import REST_S
from streamer.errors import ConfigError

DAY_S: Final = 86_400
HISTORY_END_MS: Final = 1_761_955_200_000
"""2025-11-01T00:00:00Z, where a history ends unless told otherwise."""
SITTINGS_PER_DAY: Final = 0.5
"""Of the average viewer of a history."""
LIVE_SITTING_S: Final = 20.0
# Enough ordinary records must remain to carry the disturbances.
MAX_DISTURBED_SHARE: Final = 0.6


@dataclass(frozen=True, slots=True)
class World:
    """Who there is and what there is; equal worlds have equal tastes and titles."""

    seed: int = 7
    n_viewers: int = 2_000
    n_titles: int = 2_000

    def __post_init__(self) -> None:
        """Refuse a world without viewers or titles."""
        if self.seed < 0 or self.n_viewers < 1 or self.n_titles < 1:
            raise ConfigError(f"{self}: a seed is at least 0, viewers and titles at least 1")


@dataclass(frozen=True, slots=True)
class Disturbances:
    """What goes wrong on the way, as shares of all records.

    Attributes:
        late_share: Dated 2 s to 10 min before their place in the order; half of them within 77 s.
        duplicate_share: The same bytes again, within the next 300 records.
        malformed_share: Records of `streamer.dev.faults`.
        lines_only: Only malformed records that can stand in a text file, one a line.
    """

    late_share: float = 0.0
    duplicate_share: float = 0.0
    malformed_share: float = 0.0
    lines_only: bool = False

    def __post_init__(self) -> None:
        """Refuse shares that leave too little to disturb."""
        shares = (self.late_share, self.duplicate_share, self.malformed_share)
        if min(shares) < 0 or not sum(shares) <= MAX_DISTURBED_SHARE:
            raise ConfigError(
                f"shares late {shares[0]}, duplicates {shares[1]}, malformed {shares[2]}: "
                f"each must be at least 0, and all together at most {MAX_DISTURBED_SHARE}"
            )


@dataclass(frozen=True, slots=True)
class TrafficPlan:
    """What `streamer.dev.traffic.generate` follows; filled in by `plan_history` or `plan_live`.

    Attributes:
        mode: How viewers arrive and how events are dated.
        n_records: How many records, disturbances included.
        start_ms: Date of the beginning, Unix milliseconds.
        span_s: From the beginning to the end, in seconds of event time.
        n_sittings: How many begin within the span (history), or are under way at any time (live).
        world: Viewers and titles.
        disturbances: What goes wrong on the way.
    """

    mode: Literal["history", "live"]
    n_records: int
    start_ms: int
    span_s: float
    n_sittings: int
    world: World = World()
    disturbances: Disturbances = Disturbances()


def plan_history(
    n_records: int | None = None,
    *,
    days: float = 14.0,
    end_ms: int = HISTORY_END_MS,
    world: World = World(),
    disturbances: Disturbances = Disturbances(),
) -> TrafficPlan:
    """Plan a log of the past, to train on: sittings hours or days apart.

    Args:
        n_records: How many; None for half a sitting a viewer and day, about 20 events.
        days: How much event time it covers. It is nearly filled: the shorter the log, the less.
        end_ms: No event is later, Unix milliseconds.
        world: Viewers and titles.
        disturbances: What goes wrong on the way.

    Raises:
        ConfigError: So few viewers cannot do so much in so few days.
    """
    span_s = days * DAY_S
    if n_records is None:
        n_records = round(SITTINGS_PER_DAY * days * world.n_viewers * EVENTS_PER_SITTING)
    # Four standard deviations more than needed: the log is complete before its span is over.
    n_events = n_records + 4.0 * (n_records * 1.3 * EVENTS_PER_SITTING) ** 0.5
    n_sittings = int(n_events / EVENTS_PER_SITTING) + 1
    # On average at most half of the viewers may be busy or resting, else nobody could come back.
    capacity = int(0.5 * world.n_viewers * span_s / (SITTING_S + REST_S))
    if n_sittings > capacity:
        raise ConfigError(
            f"{n_records} events are too many for {world.n_viewers} viewers in {days:g} days: "
            f"at most about {int(capacity * EVENTS_PER_SITTING)}, less some 200"
        )
    start_ms = end_ms - round(span_s * 1_000)
    return TrafficPlan("history", n_records, start_ms, span_s, n_sittings, world, disturbances)


def plan_live(
    n_records: int,
    *,
    rate_per_s: float,
    start_ms: int,
    sitting_s: float = LIVE_SITTING_S,
    world: World = World(),
    disturbances: Disturbances = Disturbances(),
) -> TrafficPlan:
    """Plan traffic to be produced while it happens: record i at ``start_ms + 1000 i / rate_per_s``.

    Args:
        n_records: How many.
        rate_per_s: Records a second, of all viewers together; more than 0.
        start_ms: The wall clock when production starts, Unix milliseconds.
        sitting_s: How long a sitting of about 40 events takes. It decides how many viewers are
            active at any time, ``rate_per_s * sitting_s / 40``, at most all; the smaller, the more
            sittings follow one another.
        world: Viewers and titles.
        disturbances: What goes wrong on the way.
    """
    n_active = max(1, min(world.n_viewers, round(rate_per_s * sitting_s / EVENTS_PER_SITTING)))
    span_s = n_records / rate_per_s
    return TrafficPlan("live", n_records, start_ms, span_s, n_active, world, disturbances)
