"""What readers and operators wait for: reads beside a working worker, a large model, a start."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.measure import START_SECONDS, Log, job_of, wait_for
from benchmarks.processes import CannotRun, Workers
from benchmarks.stack import N_FACTORS, Stack, write_items
from benchmarks.workload import user_id
from streamer.factors import RecencyFoldIn
from streamer.history import HistoryBatch
from streamer.models import load_model
from streamer.reader import FeatureReader, blend_many

READ_USERS: Final = 500
N_READS: Final = 400
N_RANKED: Final = 300
TICK_SECONDS: Final = 0.0005


def measure_reads(stack: Stack, log: Log) -> dict[str, Any]:
    """Return milliseconds of a read of 500 viewers with both vectors blended, and of a top 20.

    Measured while a worker catches up with the log, on the same Redis and cores.

    Raises:
        CannotRun: The worker ended, or was done before the reads were.
    """
    stack.reset_redis()
    rng = np.random.default_rng(3)
    with Workers(job_of(stack, log.topics, "reads-catch-up")) as worker:
        if not wait_for(worker, log.n_events // 4, START_SECONDS):
            raise CannotRun("the worker beside the reads was too slow")
        url = stack.redis_server.url
        with FeatureReader.connect(url, models=stack.models, timeout_seconds=1.0) as reader:
            if reader.model is None:
                raise CannotRun("the reader found no model")
            read_ms = []
            for _ in range(N_READS):
                users = [user_id(n) for n in rng.integers(0, stack.world.n_users // 10, READ_USERS)]
                started = time.perf_counter()
                reads = reader.get_many(users)
                blend_many(reads, round(time.time() * 1000))
                read_ms.append((time.perf_counter() - started) * 1000)
            is_beside = worker.samples()[-1].events < log.n_events
            ranked = [read for read in reads if read.vectors is not None][:N_RANKED]
            rank_ms = []
            for read in ranked:
                started = time.perf_counter()
                reader.top_k(read, exclude_seen=False)
                rank_ms.append((time.perf_counter() - started) * 1000)
    return {
        "users": READ_USERS,
        "read_ms": _percentiles(read_ms),
        "top_k_ms": _percentiles(rank_ms),
        "items": stack.world.n_items,
        "beside_a_worker": is_beside,
    }


def measure_loading(folder: Path, n_items: int) -> dict[str, Any]:
    """Return how long a large model takes, and how long another thread has to wait meanwhile."""
    path = folder / "large"
    write_items(path, n_items)
    learner = RecencyFoldIn()
    learner(HistoryBatch.empty(1), load_model(path))  # the file is in the system's cache now
    with _ticking() as pauses:
        started = time.perf_counter()
        learner(HistoryBatch.empty(1), load_model(path))
        seconds = time.perf_counter() - started
    return {
        "items": n_items,
        "factors": N_FACTORS,
        "seconds": round(seconds, 3),
        "longest_pause_ms": round(1000 * max(pauses), 1),
    }


def measure_start(stack: Stack, log: Log) -> dict[str, Any]:
    """Return the seconds from starting a worker to its first applied event, group join included.

    Raises:
        CannotRun: It applied nothing.
    """
    stack.reset_redis()
    started = time.perf_counter()
    with Workers(job_of(stack, log.topics, "start-catch-up")) as worker:
        if not wait_for(worker, 1, START_SECONDS):
            raise CannotRun("the worker applied nothing")
        return {"first_event_seconds": round(time.perf_counter() - started, 2)}


def measure_serving(
    stack: Stack, log: Log, n_items: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return all three.

    Raises:
        CannotRun: A worker ended or was too slow.
    """
    say("reading beside a worker")
    found = {"reads": measure_reads(stack, log)}
    say(f"loading a model of {n_items:,} items")
    found["loading"] = measure_loading(stack.folder, n_items)
    say("starting a worker")
    found["start"] = measure_start(stack, log)
    return found


@contextmanager
def _ticking() -> Iterator[list[float]]:
    """Yield the pauses, in seconds, that a thread meets which does nothing but look at the time."""
    pauses = [0.0]
    is_done = threading.Event()

    def tick() -> None:
        last = time.perf_counter()
        while not is_done.is_set():
            time.sleep(TICK_SECONDS)
            now = time.perf_counter()
            pauses.append(now - last)
            last = now

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield pauses
    finally:
        is_done.set()
        thread.join()


def _percentiles(values: list[float]) -> dict[str, float]:
    if not values:
        raise CannotRun("nothing was measured")
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}
