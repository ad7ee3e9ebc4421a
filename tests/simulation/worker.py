"""One simulated worker process: the real loop on a simulated broker and store."""

import structlog
from simulation.broker import SimLetters, SimSource
from simulation.scheduler import Crash
from simulation.store import SimScan, SimStore

from streamer.experiments import Counting
from streamer.factors import FeatureDtype
from streamer.metrics import WorkerMetrics
from streamer.models.experiment_file import parse_catalog
from streamer.runtime.cache import HistoryCache
from streamer.runtime.checkpoint import Checkpoints
from streamer.runtime.loop import LoopParts, LoopSettings, WorkerLoop
from streamer.runtime.measuring import Measurer, MeasuringSettings
from streamer.runtime.observer import LoopObserver
from streamer.runtime.progress import Progress
from streamer.runtime.sweeper import Sweeper
from streamer.runtime.updater import Updater

DRAIN_SECONDS = 2.0
START_MS = 1_763_900_005_000  # some seconds after the first event
EXPERIMENT = """
[layers.all]
salt = "all"
parameters = []

[[experiments]]
name = "all"
layer = "all"
start = 2025-11-23T12:13:25Z

[[experiments.cells]]
name = "everybody"
share = 10_000
slots = ["0-9999"]
"""
CACHE_USERS = 4  # of more viewers than that: some are always read again
SWEEP_SHARE = 0.5
PATROL_SECONDS = 20.0
LOG = structlog.wrap_logger(None, processors=[lambda *_: _drop()])


def _drop():
    raise structlog.DropEvent


class SimWorker:
    """A process from its start to its end.

    Attributes:
        name: In the trace.
        loop: The real one.
        task: Whose turns these are.
    """

    def __init__(self, world, name):
        self.name = name
        self.batch_records = world.random.choice([1, 3, 20])
        self._world = world
        self._live = None
        scheduler = world.scheduler
        self._metrics = WorkerMetrics(list(world.broker.topics), ["default"])
        self.progress = Progress(scheduler.time)
        observer = LoopObserver(self._metrics, LOG)
        store, self.source = SimStore(world), SimSource(world)
        updater = Updater(
            store,
            HistoryCache(CACHE_USERS),
            FeatureDtype.F32,
            scheduler.time,
            scheduler.sleep,
            world.random,
        )
        updater.measurer = Measurer(
            Counting(parse_catalog(EXPERIMENT)),
            MeasuringSettings(0.0, 0.1),
            lambda: 0.0,
            self._metrics,
            LOG,
        )
        self.loop = WorkerLoop(
            LoopParts(
                self.source,
                SimLetters(world),
                updater,
                Sweeper(SimScan(world), updater.fold_in, SWEEP_SHARE, world.random, PATROL_SECONDS),
                Checkpoints(store, self.source, self.progress, self._metrics, LOG),
                self.live_models,
                _never_fails,
                observer,
                world.random,
            ),
            LoopSettings(self.batch_records, 0.2, 1.0, DRAIN_SECONDS),
            LOG,
        )
        self.task = scheduler.spawn(name, self._run)

    @property
    def is_alive(self):
        return not self.task.is_done

    @property
    def was_killed(self):
        return isinstance(self.task.ended_by, Crash)

    def live_models(self):
        """Return the models that this worker has heard of; another one is heard of some time."""
        if self._live is None or self._world.random.random() < 0.2:
            self._live = self._world.live
        return [self._live]

    def counts(self):
        """Return consumed, applied, dead-lettered and abandoned records."""
        metrics = self._metrics
        counters = (
            metrics.records_consumed,
            metrics.events_applied,
            metrics.records_dead_lettered,
            metrics.records_abandoned,
        )
        return [
            int(sum(child._value.get() for child in counter._metrics.values()))
            for counter in counters
        ]

    def _run(self):
        try:
            self.loop.run()
            self.source.close()
        except Crash:
            self.source.die()
            raise
        finally:
            self._world.ended.append(self)


def _never_fails(failure):
    raise failure.error
