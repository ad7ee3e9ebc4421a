"""What a viewer costs: bytes in Redis, and bytes in a worker that has the viewer cached."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.measure import START_SECONDS, job_of, wait_for
from benchmarks.processes import CannotRun, Workers
from benchmarks.stack import Stack
from benchmarks.workload import Columns, Encoded, encode_events

INTERACTIONS: Final = 20
EVENTS_PER_SECOND: Final = 1_000
"""A worker that is slower than this is given up."""


def measure_memory(stack: Stack, n_users: int) -> dict[str, Any]:
    """Let streamer learn 20 plays of each of `n_users`, in two halves, and weigh both sides.

    All keys count in Redis: history and features of each viewer, and the few of the worker. The
    worker's share is the growth of its resident set from the first half to the second, so what it
    needs for itself is not in it.

    Raises:
        CannotRun: The worker ended, or was too slow.
    """
    stack.reset_redis(with_histories=False)
    topics = stack.create_topics(f"memory-{time.monotonic_ns()}")
    before = stack.used_memory()
    half = n_users // 2
    settings = {"worker.cache_users": str(n_users)}
    with Workers(job_of(stack, topics, "memory-catch-up"), settings=settings) as worker:
        resident = []
        for start in (0, half):
            stack.produce(topics, _plays(stack, start, start + half))
            n_events = (start + half) * INTERACTIONS
            if not wait_for(worker, n_events, START_SECONDS + n_events / EVENTS_PER_SECOND):
                raise CannotRun("the worker was too slow to fill its cache")
            resident.append(resident_bytes(worker.process_ids[0]))
    used = stack.used_memory() - before
    return {
        "users": 2 * half,
        "interactions_per_user": INTERACTIONS,
        "features": "f16, 2 vectors of 64",
        "redis_bytes_per_user": round(used / (2 * half), 1),
        "worker_bytes_per_cached_user": round((resident[1] - resident[0]) / half, 1),
        "worker_resident_mb": round(resident[1] / 1e6, 1),
    }


def resident_bytes(process_id: int) -> int:
    """Return the resident set of a process, Linux."""
    status = Path(f"/proc/{process_id}/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def _plays(stack: Stack, start: int, stop: int) -> Iterator[Encoded]:
    """Return 20 plays of 20 different items for each user, all users in turn."""
    users = np.tile(np.arange(start, stop), INTERACTIONS)
    rounds = np.repeat(np.arange(INTERACTIONS), stop - start)
    now_ms = round(time.time() * 1000)
    return encode_events(
        Columns(
            users=users,
            items=(users * 7 + rounds * 991) % stack.world.n_items,
            types=np.zeros_like(users),
            times_ms=now_ms - len(users) + np.arange(len(users)),
        )
    )
