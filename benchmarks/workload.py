"""What every contender works on: JSON events of some 215 bytes, Zipf over users and items.

Events are drawn as columns, a million in a fraction of a second, and encoded one by one. The same
seed gives the same events. Only types that make interactions are drawn, so every event is work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.history import HistoryBatch, Interactions, digests, encode, item_key, merge
from streamer.stores.keys import history_key

USER_EXPONENT: Final = 1.0
ITEM_EXPONENT: Final = 0.7
DURATION_S: Final = 3000
# Type, its share, and how a history holds it: (kind, value).
TYPES: Final = (
    ("play_stop", 0.60, (1, 180)),
    ("detail_view", 0.20, (3, 0)),
    ("trailer_view", 0.05, (4, 0)),
    ("my_list_add", 0.08, (5, 1)),
    ("thumb_up", 0.07, (6, 2)),
)
N_PLAY_TYPES: Final = 1  # the first of them go to the topic of plays
EVENT_INTERVAL_MS: Final = 7
HISTORY_USERS_AT_ONCE: Final = 20_000


@dataclass(frozen=True, slots=True)
class World:
    """Who watches what. `n_past_events` are what viewers did before the log that is measured."""

    n_users: int = 200_000
    n_items: int = 20_000
    n_past_events: int = 3_000_000
    seed: int = 1


class Columns(NamedTuple):
    """Events as columns of one length: user and item numbers, index in TYPES, epoch ms."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    types: NDArray[np.int64]
    times_ms: NDArray[np.int64]


class Encoded(NamedTuple):
    """One event as it is produced; `topic` is 0 for plays, 1 for browsing."""

    topic: int
    key: bytes
    value: bytes


def user_id(number: int) -> str:
    """Return a user's id, 8 bytes."""
    return f"u-{number:06d}"


def item_id(number: int) -> str:
    """Return an item's id."""
    return f"title-{number:05d}"


def draw(world: World, n_events: int, end_ms: int, stream: int = 0) -> Columns:
    """Draw events that end at `end_ms`, the oldest first; another `stream`, other events."""
    rng = np.random.default_rng((world.seed, stream))
    shares = [share for _, share, _ in TYPES]
    return Columns(
        users=zipf(rng, world.n_users, USER_EXPONENT, n_events),
        items=zipf(rng, world.n_items, ITEM_EXPONENT, n_events),
        types=np.searchsorted(np.cumsum(shares)[:-1], rng.random(n_events), side="right"),
        times_ms=end_ms + EVENT_INTERVAL_MS * np.arange(1 - n_events, 1, dtype=np.int64),
    )


def zipf(rng: np.random.Generator, size: int, exponent: float, n_draws: int) -> NDArray[np.int64]:
    """Draw from 0 to size - 1, number r with probability ∝ 1 / (r + 1)^exponent."""
    cumulative = np.cumsum(1.0 / np.arange(1, size + 1) ** exponent)
    targets = rng.random(n_draws) * cumulative[-1]
    numbers: NDArray[np.int64] = np.searchsorted(cumulative, targets).astype(np.int64)
    return numbers


def encode_events(columns: Columns) -> Iterator[Encoded]:
    """Encode events one by one, in their order."""
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for number, (user, item, kind, time_ms) in enumerate(rows):
        who = user_id(user)
        value = (
            f'{{"type":"{TYPES[kind][0]}","event_id":"{number:012x}","user_id":"{who}",'
            f'"item_id":"{item_id(item)}","event_time":{time_ms},'
            f'"watched_s":{DURATION_S * 9 // 10},"duration_s":{DURATION_S},'
            f'"context":{{"surface":"home","row_id":"row-{item % 40}","country":"nz"}}}}'
        )
        yield Encoded(int(kind >= N_PLAY_TYPES), who.encode(), value.encode())


def stored_histories(world: World, end_ms: int) -> dict[str, bytes]:
    """Return what `world.n_past_events` before `end_ms` left behind, by key of Redis.

    Nine of ten events of the log then meet a viewer who has a history, most of them a full one.
    """
    past = draw(world, world.n_past_events, end_ms, stream=1)
    item_keys = np.array([item_key(item_id(item)) for item in range(world.n_items)], np.uint64)
    kind_and_value = np.array([kind | value << 8 for _, _, (kind, value) in TYPES], np.uint64)
    words = past.times_ms.astype(np.uint64) << np.uint64(16) | kind_and_value[past.types]
    order = np.argsort(past.users, kind="stable")
    users, keys, words = past.users[order], item_keys[past.items[order]], words[order]
    values: dict[str, bytes] = {}
    for start in range(0, world.n_users, HISTORY_USERS_AT_ONCE):
        stop = min(start + HISTORY_USERS_AT_ONCE, world.n_users)
        mine = slice(*np.searchsorted(users, [start, stop]))
        batch = HistoryBatch.empty(stop - start)
        none = np.zeros(stop - start, np.uint64)
        arrived = Interactions(users[mine] - start, keys[mine], words[mine], none)
        merged, _ = merge(batch, arrived)
        blobs = encode(merged, digests(merged))
        for number in np.flatnonzero(merged.counts).tolist():
            values[history_key(user_id(start + number))] = blobs[number]
    return values


def item_factors(world: World, n_factors: int) -> NDArray[np.float32]:
    """Return random item factors whose spectrum falls like that of a trained model, ∝ 1/√j."""
    rng = np.random.default_rng((world.seed, 2))
    scale = 1.0 / np.sqrt(np.arange(1, n_factors + 1))
    factors = rng.normal(0.0, 0.3, (world.n_items, n_factors)) * scale
    return factors.astype(np.float32)
