"""What a viewer costs: bytes in Redis, and bytes in a worker that has the viewer cached."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.folds import DIFFERENT, equal_histories, keyed
from benchmarks.measure import START_SECONDS, job_of, wait_for
from benchmarks.processes import CannotRun, Workers
from benchmarks.stack import Stack
from benchmarks.workload import Columns, Encoded, encode_events

INTERACTIONS: Final = 20
EVENTS_PER_SECOND: Final = 1_000
"""A worker that is slower than this is given up."""


def measure_memory(stack: Stack, n_users: int, n_cached: int) -> dict[str, Any]:
    """Weigh a viewer of 20 plays in Redis, `n_users` of them, and in a worker, `n_cached`.

    Raises:
        CannotRun: The worker ended, or was too slow.
    """
    return {
        "users": n_users,
        "interactions_per_user": INTERACTIONS,
        "features": "f16, 2 vectors of 64",
        "redis_bytes_per_user": _redis_bytes(stack, n_users),
        "cached_users": n_cached,
        "worker_bytes_per_cached_user": _worker_bytes(stack, n_cached),
    }


def _redis_bytes(stack: Stack, n_users: int) -> float:
    """Let streamer learn 20 plays of each user; all keys count, and the few of the worker."""
    stack.reset_redis(with_histories=False)
    topics = stack.create_topics(f"memory-{time.monotonic_ns()}")
    before = stack.used_memory()
    stack.produce(topics, _plays(stack, range(n_users), INTERACTIONS))
    with Workers(job_of(stack, topics, "memory-catch-up")) as worker:
        _wait_until_learned(worker, n_users * INTERACTIONS)
    return round((stack.used_memory() - before) / n_users, 1)


def _worker_bytes(stack: Stack, n_users: int) -> float:
    """Let a worker read users of 20 entries into its cache, one event each, in two halves.

    Its share is the growth of its resident set from the first half to the second, so what it
    needs for itself is not in it. Buffers of the Kafka client come and go by some 10 MB: only
    with many users is this a figure.
    """
    stack.reset_redis(with_histories=False)
    stack.write(keyed(equal_histories(DIFFERENT), n_users))
    topics = stack.create_topics(f"cache-{time.monotonic_ns()}")
    half = n_users // 2
    settings = {"worker.cache_users": str(n_users)}
    with Workers(job_of(stack, topics, "cache-catch-up"), settings=settings) as worker:
        resident = []
        for start in (0, half):
            stack.produce(topics, _plays(stack, range(start, start + half), 1))
            _wait_until_learned(worker, start + half)
            resident.append(resident_bytes(worker.process_ids[0]))
    return round((resident[1] - resident[0]) / half, 1)


def _wait_until_learned(worker: Workers, n_events: int) -> None:
    if not wait_for(worker, n_events, START_SECONDS + n_events / EVENTS_PER_SECOND):
        raise CannotRun(f"the worker did not learn {n_events:,} events in time")


def resident_bytes(process_id: int) -> int:
    """Return the resident set of a process, Linux."""
    status = Path(f"/proc/{process_id}/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def _plays(stack: Stack, users: range, n_plays: int) -> Iterator[Encoded]:
    """Return plays of different items for each user, all users in turn."""
    who = np.tile(np.array(users), n_plays)
    rounds = np.repeat(np.arange(n_plays), len(users))
    now_ms = round(time.time() * 1000)
    return encode_events(
        Columns(
            users=who,
            items=(who * 7 + rounds * 991) % stack.world.n_items,
            types=np.zeros_like(who),
            times_ms=now_ms - len(who) + np.arange(len(who)),
        )
    )
