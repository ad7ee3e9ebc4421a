"""What an event costs on a Redis Cluster, beside one Redis, in one run: a program.

    python tests/integration/cluster_cost.py --rounds 7

Batches of JSON events go through what a worker does with them: decode, read, merge, fold in,
compare and set, and marks once a second of the stream. Both stores get the same batches in turn;
Kafka, which costs the same for both, is left out, so the ratio errs against the cluster.
"""

import time
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import click
import numpy as np
import orjson
import redis

from streamer.dev.redis_cluster import RedisCluster
from streamer.dev.redis_server import RedisServer
from streamer.factors import FeatureDtype, FoldInParams, RecencyFoldIn
from streamer.models import load_model, write_model
from streamer.pipeline.ports import Mark, MarkMove
from streamer.pipeline.records import Decoder, Partition, Record
from streamer.pipeline.step import LiveModel
from streamer.runtime.cache import HistoryCache
from streamer.runtime.updater import Updater
from streamer.stores import connect, open_store

N_USERS, N_ITEMS, N_FACTORS = 200_000, 20_000, 64
N_PARTITIONS = 8
PARTS = ("worker, an event", "of it in the store", "Redis, an event")
BASE_MS = 1_763_900_000_000


class Timed:
    """A store that adds up what its calls cost this process."""

    def __init__(self, store):
        self._store, self.seconds = store, 0.0

    def __getattr__(self, name):
        call = getattr(self._store, name)

        def timed(*args):
            started = time.process_time()
            try:
                return call(*args)
            finally:
                self.seconds += time.process_time() - started

        return timed


class Way:
    """One store, and everything before it."""

    def __init__(self, servers, url, live):
        self._servers, self._live = servers, live
        client = connect(url, timeout_seconds=10)
        self.store = Timed(open_store(client, "cost", tombstone_days=30))
        self._updater = Updater(
            self.store, HistoryCache(100_000), FeatureDtype.F16, time.time, time.sleep, Random(1)
        )
        self._decoder = Decoder()
        partitions = [Partition("play-events", number) for number in range(N_PARTITIONS)]
        self._marks = self.store.read_marks(partitions)

    def apply(self, records):
        decoded = self._decoder.decode(records)
        self._updater.apply(decoded.user_ids, decoded.arrived, [self._live])

    def vouch(self, next_offset):
        moves = {p: MarkMove(mark, Mark(next_offset)) for p, mark in self._marks.items()}
        self._marks = self.store.move_marks(moves)
        assert set(self._marks.values()) == {Mark(next_offset)}

    def seconds(self):
        """Return the CPU spent so far: of this process, in the store alone, of Redis."""
        return np.array([time.process_time(), self.store.seconds, self._server_seconds()])

    def _server_seconds(self):
        total = 0.0
        for server in self._servers:
            with redis.Redis.from_url(server.url) as client:
                cpu = client.info("cpu")
                total += cpu["used_cpu_user"] + cpu["used_cpu_sys"]
        return total


def batches(random, n_batches, size):
    """Return batches of plays, Zipf over the viewers."""
    for _ in range(n_batches):
        users = random.zipf(1.1, 2 * size)
        users = users[users <= N_USERS][:size]
        items = random.integers(0, N_ITEMS, len(users))
        times = BASE_MS + random.integers(0, 86_400_000, len(users))
        yield [
            Record(Partition("play-events", 0), 0, BASE_MS + 86_400_000, b"", value)
            for value in map(event, users.tolist(), items.tolist(), times.tolist())
        ]


def event(user, item, time_ms):
    return orjson.dumps(
        {
            "type": "play_stop",
            "event_id": f"{user:08x}{item:08x}{time_ms:016x}",
            "user_id": f"u-{user}",
            "item_id": f"title-{item}",
            "event_time": time_ms,
            "watched_s": 2710,
            "duration_s": 3120,
            "context": {"surface": "home", "row_id": "books-to-screen", "position": 3},
        }
    )


def model_in(folder):
    write_model(
        folder,
        params=FoldInParams(alpha=3.0, regularization=0.7),
        item_ids=[f"title-{number}" for number in range(N_ITEMS)],
        item_factors=np.random.default_rng(1).normal(size=(N_ITEMS, N_FACTORS)).astype(np.float32),
        popularity=np.ones(N_ITEMS, np.float32),
    )
    return LiveModel("default", 1, load_model(folder), RecencyFoldIn())


@click.command()
@click.option("--rounds", default=7, show_default=True)
@click.option("--batches", "n_batches", default=20, show_default=True, help="Of a round.")
@click.option("--size", default=2000, show_default=True, help="Events of a batch.")
@click.option("--rate", default=20_000, show_default=True, help="Events a second, for the marks.")
def main(rounds, n_batches, size, rate):
    """Print the medians of both, and the median and range of their ratio."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "one").mkdir()
        one, cluster = RedisServer(folder / "one"), RedisCluster(folder)
        try:
            one.start()
            cluster.start()
            live = model_in(folder / "model")
            paths = {
                "one Redis": Way([one], one.url, live),
                "cluster": Way(cluster.primaries, cluster.url, live),
            }
            report(measure(paths, rounds, n_batches, size, rate))
        finally:
            cluster.stop()
            one.stop()


def measure(paths, rounds, n_batches, size, rate):
    """Return µs an event of each round, by path, as `PARTS`; the first round warms up."""
    random = np.random.default_rng(7)
    costs = {name: [] for name in paths}
    batches_per_mark = max(1, rate // size)
    for number in range(rounds + 1):
        same = list(batches(random, n_batches, size))
        for name, path in paths.items():
            started = path.seconds()
            for place, records in enumerate(same, 1):
                path.apply(records)
                if place % batches_per_mark == 0:
                    path.vouch(number * n_batches + place)
            n_events = sum(map(len, same))
            if number:
                costs[name].append(1e6 * (path.seconds() - started) / n_events)
    return {name: np.array(rounds) for name, rounds in costs.items()}


def report(costs):
    one, cluster = costs["one Redis"], costs["cluster"]
    ratios = cluster / one
    for place, part in enumerate(PARTS):
        click.echo(
            f"{part:32} {np.median(one[:, place]):7.2f} µs, on a cluster "
            f"{np.median(cluster[:, place]):7.2f}; ratio {np.median(ratios[:, place]):.2f} "
            f"({ratios[:, place].min():.2f} to {ratios[:, place].max():.2f})"
        )


if __name__ == "__main__":
    main()
