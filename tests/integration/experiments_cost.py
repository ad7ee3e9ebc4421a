"""What experiments cost a worker and its Redis, in one run: a program.

    make experiments-cost

Batches of JSON events of plays go through what a worker does with them, into one real Redis, in
turn without experiments, with outcomes, and with outcomes and scores at their defaults. Kafka is
left out, so shares err against the experiments.
"""

import time
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import click
import numpy as np
import redis
import structlog
from integration.cluster_cost import BASE_MS, batches, model_in

from streamer.config import ExperimentsSection
from streamer.dev.redis_server import RedisServer
from streamer.experiments import Counting
from streamer.factors import FeatureDtype
from streamer.metrics import WorkerMetrics
from streamer.models.experiment_file import parse_catalog
from streamer.pipeline.records import Decoder
from streamer.runtime.cache import HistoryCache
from streamer.runtime.measuring import Measurer, MeasuringSettings
from streamer.runtime.updater import Updater
from streamer.stores import connect, open_store

WAYS = ("without experiments", "outcomes", "outcomes and scores")
CATALOG = """
[layers.taste]
salt = "taste-1"
parameters = ["blend_half_life_s"]

[layers.page]
salt = "page-1"
parameters = ["row_order"]
"""
EXPERIMENT = """
[[experiments]]
name = "{name}"
layer = "{layer}"
start = 2020-01-01T00:00:00Z

[[experiments.cells]]
name = "control"
share = 5000
slots = ["0-4999"]

[[experiments.cells]]
name = "b"
share = 5000
slots = ["5000-9999"]
"""


class Way:
    """A worker without Kafka, on a Redis of its own."""

    def __init__(self, name, server, live):
        self.server, self._live = server, live
        self.metrics = WorkerMetrics([], ["default"])
        store = open_store(connect(server.url, timeout_seconds=10), "cost", tombstone_days=30)
        self._updater = Updater(
            store, HistoryCache(100_000), FeatureDtype.F16, time.time, time.sleep, Random(1)
        )
        self._decoder = Decoder()
        if name != WAYS[0]:
            defaults = ExperimentsSection()
            text = CATALOG + "".join(
                EXPERIMENT.format(name=layer, layer=layer) for layer in ("taste", "page")
            )
            share = defaults.sample_share if name == WAYS[2] else 0.0
            self._updater.measurer = Measurer(
                Counting(parse_catalog(text)),
                MeasuringSettings(share, defaults.max_cpu_share),
                time.thread_time,
                self.metrics,
                structlog.get_logger(),
            )

    def apply(self, records):
        decoded = self._decoder.decode(records)
        self._updater.apply(decoded.user_ids, decoded.arrived, [self._live])

    def value(self, name):
        labels = {"variant": "default"} if name == "plays" else None
        return self.metrics.registry.get_sample_value(f"streamer_prequential_{name}_total", labels)

    def seconds(self):
        """Return the CPU spent so far: of this process, and of Redis."""
        with redis.Redis.from_url(self.server.url) as client:
            cpu = client.info("cpu")
        return np.array([time.process_time(), cpu["used_cpu_user"] + cpu["used_cpu_sys"]])


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--batches", "n_batches", default=20, show_default=True, help="Of a round.")
@click.option("--size", default=2000, show_default=True, help="Events of a batch.")
def main(rounds, n_batches, size):
    """Print what each way costs, and which share scoring has."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        servers = []
        for number in range(len(WAYS)):
            (folder / str(number)).mkdir()
            servers.append(RedisServer(folder / str(number)))
        try:
            ways = {}
            live = model_in(folder / "model")
            for way, server in zip(WAYS, servers, strict=True):
                server.start()
                ways[way] = Way(way, server, live)
            measure(ways, rounds, n_batches, size)
        finally:
            for server in servers:
                server.stop()


def measure(ways, rounds, n_batches, size):
    costs = {name: [] for name in ways}
    for number in range(rounds + 1):
        some = list(batches(np.random.default_rng(number), n_batches, size))
        n_events = sum(map(len, some))
        for name, way in ways.items():
            before = way.seconds()
            for records in some:
                way.apply(records)
            if number:  # the first round fills caches
                costs[name].append((way.seconds() - before) / n_events * 1e6)
    for name in ways:
        worker, server = np.median(costs[name], axis=0)
        click.echo(f"{name:22} {worker:6.2f} µs of the worker, {server:5.2f} µs of Redis an event")
    last = ways[WAYS[2]]
    spent = last.value("cpu_seconds")
    in_total = np.sum(costs[WAYS[2]], axis=0)[0] * n_batches * size / 1e6
    share = spent / (in_total * (rounds + 1) / rounds)
    click.echo(
        f"scoring: {100 * share:.1f} % of the worker's CPU, {last.value('plays'):.0f} plays, "
        f"{last.value('skipped'):.0f} beyond the budget; a play among 20,000 titles takes "
        f"{spent / max(1, last.value('plays')) * 1e6:.0f} µs"
    )


assert BASE_MS > 1_577_836_800_000, "the events are after the start"

if __name__ == "__main__":
    main()
