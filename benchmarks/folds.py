"""Does folding one user in cost more where there are more users? Cache misses and hits apart.

Every event is a new title for a user of 20 entries, users in turn, so every event is one fold.
*Cold*: users come in a circle that is longer than the cache, so each is read from Redis. *Warm*: a
circle that fits in the cache, its users strewn over all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import slope
from benchmarks.measure import START_SECONDS, busy, job_of, wait_for
from benchmarks.processes import CannotRun, Workers
from benchmarks.stack import Stack
from benchmarks.workload import ITEM_EXPONENT, Columns, encode_events, user_id, zipf
from streamer.history import HistoryBatch, Interactions, digests, encode, item_key, merge
from streamer.stores.keys import history_key

CIRCLE: Final = 5_000
"""Users of the warm circle, and room in the cache of the cold one."""
ENTRIES: Final = 20
DIFFERENT: Final = 10_000
"""So many different histories; beyond that they repeat, which changes no cost."""
SETTINGS: Final = {"cold": {"worker.cache_users": str(CIRCLE)}, "warm": {}}


def measure_folds(
    stack: Stack,
    sizes: tuple[int, ...],
    item_sizes: tuple[int, ...],
    n_events: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Return CPU in µs a fold, cold and warm, by the number of users in Redis, and of items.

    Args:
        stack: Prepared.
        sizes: Numbers of users, each more than 2 x CIRCLE.
        item_sizes: Numbers of items; warm, among the fewest users.
        n_events: Folds of one measurement.
        say: Told of each.

    Raises:
        CannotRun: A worker ended, or was too slow to be measured.
    """
    found: dict[str, Any] = {}
    blobs = equal_histories(DIFFERENT)
    for n_users in sizes:
        say(f"folding in among {n_users:,} users")
        circles = {
            "cold": np.arange(n_events) % n_users,
            "warm": np.arange(n_events) % CIRCLE * (n_users // CIRCLE),
        }
        found[str(n_users)] = {
            kind: _measure(stack, keyed(blobs, n_users), users, SETTINGS[kind])
            for kind, users in circles.items()
        }
    by_items = {}
    for n_items in item_sizes:
        say(f"folding in with {n_items:,} items")
        users = np.arange(n_events) % CIRCLE
        histories = keyed(blobs, sizes[0])
        by_items[str(n_items)] = _measure(stack, histories, users, SETTINGS["warm"], n_items)
    return {
        "cpu_us_per_fold": found,
        "cpu_us_per_fold_by_items": by_items,
        "entries_per_user": ENTRIES,
        "cold_cache_users": CIRCLE,
    }


def _measure(
    stack: Stack,
    histories: Iterator[tuple[str, bytes]],
    users: NDArray[np.int64],
    settings: dict[str, str],
    n_items: int | None = None,
) -> float:
    stack.reset_redis(with_histories=False, n_items=n_items)
    stack.write(histories)
    topics = stack.create_topics(f"folds-{time.monotonic_ns()}")
    number = np.arange(len(users))
    n_items = n_items or stack.world.n_items
    columns = Columns(
        users=users,
        items=zipf(
            np.random.default_rng(5), n_items or stack.world.n_items, ITEM_EXPONENT, len(users)
        ),
        types=np.zeros_like(users),
        times_ms=round(time.time() * 1000) - len(users) + number,
    )
    stack.produce(topics, encode_events(columns))
    with Workers(job_of(stack, topics, "folds-catch-up"), settings=settings) as worker:
        wait_for(worker, 1, START_SECONDS)
        wait_for(worker, len(users), START_SECONDS)
        samples = busy(worker.samples(), len(users))
    try:
        return float(f"{slope(samples)[0]:.4g}")
    except ValueError as error:
        raise CannotRun(str(error)) from error


def equal_histories(n_users: int) -> list[bytes]:
    """Return histories of 20 plays each, of last week."""
    rows = np.repeat(np.arange(n_users), ENTRIES)
    entry = np.arange(len(rows))
    keys = np.array([item_key(f"title-{number:05d}") for number in range(1_000)], np.uint64)
    times_ms = round((time.time() - 7 * 86_400) * 1000) + entry
    words = times_ms.astype(np.uint64) << np.uint64(16) | np.uint64(1 | 180 << 8)
    item_keys = keys[(rows * 31 + entry % ENTRIES * 37) % len(keys)]
    arrived = Interactions(rows, item_keys, words, np.zeros(n_users, np.uint64))
    merged, _ = merge(HistoryBatch.empty(n_users), arrived)
    assert (merged.counts == ENTRIES).all()
    return encode(merged, digests(merged))


def keyed(blobs: list[bytes], n_users: int) -> Iterator[tuple[str, bytes]]:
    """Give each of `n_users` one of the histories, by key of Redis."""
    for number in range(n_users):
        yield history_key(user_id(number)), blobs[number % len(blobs)]
