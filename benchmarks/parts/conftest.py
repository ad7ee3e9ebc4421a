"""Inputs of the parts, and a way to report per event or per user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.stack import N_FACTORS
from benchmarks.workload import World, item_factors, item_id
from streamer.dev.redis_server import RedisServer
from streamer.factors import FoldInParams, ItemModel
from streamer.history import HistoryBatch, Interactions, item_key, merge

N_USERS = 500
NOW_MS = 1_763_900_000_000
# Of a history with so many entries: plays, light ones, my list, thumbs; each within its group.
MIXES = {10: (7, 3, 0, 0), 20: (14, 4, 1, 1), 50: (30, 10, 5, 5)}
KIND_AND_VALUE = np.array([1 | 180 << 8, 3, 5 | 1 << 8, 6 | 2 << 8], np.uint64)

Timed = Callable[[Callable[[], Any], int, str], Any]


@pytest.fixture
def timed(benchmark: Any) -> Timed:  # noqa: ANN401  pytest-benchmark has no types
    """``timed(run, count, "user")`` times `run`, notes µs per user, and returns a result."""

    def time(run: Callable[[], Any], count: int, unit: str) -> Any:  # noqa: ANN401  whatever it is
        result = benchmark(run)
        stats = benchmark.stats.stats
        for name, seconds in (("us", stats.median), ("least_us", stats.min)):
            benchmark.extra_info[f"{name}_per_{unit}"] = round(seconds * 1e6 / count, 3)
        return result

    return time


@pytest.fixture(scope="session")
def model() -> ItemModel:
    """20,000 items, 64 factors."""
    world = World()
    return ItemModel.of(
        model_id=1,
        params=FoldInParams(alpha=20.0, regularization=1.0),
        item_ids=[item_id(number) for number in range(world.n_items)],
        item_factors=item_factors(world, N_FACTORS),
        popularity=np.ones(world.n_items, np.float32),
    )


def histories_of(model: ItemModel, n_entries: int, n_users: int = N_USERS) -> HistoryBatch:
    """Return histories of exactly so many entries."""
    rng = np.random.default_rng(n_entries)
    kinds = np.repeat(KIND_AND_VALUE, MIXES[n_entries])
    rows = np.repeat(np.arange(n_users), n_entries)
    items = np.concatenate(
        [rng.choice(model.n_items, n_entries, replace=False) for _ in range(n_users)]
    )
    times = np.uint64(NOW_MS) - rng.integers(1, 10**9, len(rows)).astype(np.uint64)
    words = times << np.uint64(16) | np.tile(kinds, n_users)
    arrived = Interactions(rows, model.item_keys[items], words, np.zeros(n_users, np.uint64))
    merged, _ = merge(HistoryBatch.empty(n_users), arrived)
    assert (merged.counts == n_entries).all()
    return merged


def one_play_each(n_users: int = N_USERS) -> Interactions:
    """Return one new play of every user."""
    word = np.uint64(NOW_MS) << np.uint64(16) | KIND_AND_VALUE[0]
    keys = np.full(n_users, item_key("title-new"), np.uint64)
    words = np.full(n_users, word, np.uint64)
    return Interactions(np.arange(n_users), keys, words, np.zeros(n_users, np.uint64))


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis of this run."""
    server = RedisServer(Path(tmp_path_factory.mktemp("redis")))
    try:
        server.start()
        yield server.url
    finally:
        server.stop()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:  # noqa: ANN401
    """Say in one line each what a part costs per event or per user."""
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    terminalreporter.section("per event or user")
    for bench in session.benchmarks:
        facts = ", ".join(f"{name} {value:.2f}" for name, value in bench.extra_info.items())
        terminalreporter.line(f"{bench.name:<32} {facts}")
