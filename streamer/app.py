"""The composition root: the only place where adapters meet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from random import Random

import structlog

from streamer.config import RedisSection, Settings
from streamer.experiments import Catalog, Counting
from streamer.factors import FeatureDtype, Learner, load_learner, load_learners
from streamer.host.garbage import settle
from streamer.kafka.dead_letters import KafkaDeadLetters
from streamer.kafka.source import KafkaSource
from streamer.kafka.topics import open_admin
from streamer.kafka.watermarks import WatermarkMonitor
from streamer.metrics import WorkerMetrics
from streamer.models import load_model, read_pointer
from streamer.models.experiment_file import load_catalog
from streamer.pipeline.step import LiveModel, warm_up
from streamer.runtime.cache import HistoryCache
from streamer.runtime.checkpoint import Checkpoints
from streamer.runtime.guards import EXIT_TEMPORARY, Shutdown, Watchdog
from streamer.runtime.health import HealthServer, health_of
from streamer.runtime.live_models import LiveModels
from streamer.runtime.loop import LoopParts, LoopSettings, WorkerLoop
from streamer.runtime.measuring import Measurer, MeasuringSettings
from streamer.runtime.observer import LoopObserver
from streamer.runtime.progress import Progress
from streamer.runtime.startup import Startup, ensure_expiry, ensure_topics
from streamer.runtime.sweeper import Sweeper
from streamer.runtime.updater import Updater
from streamer.stores import RedisClient, RedisScan, connect, open_store, ping


def redis_client(section: RedisSection) -> RedisClient:
    """Return a client for the configured Redis; nothing is sent yet."""
    return connect(
        section.url,
        username=section.username,
        password=section.password.get_secret_value() if section.password else None,
        timeout_seconds=section.timeout_seconds,
    )


def load_variants(settings: Settings) -> dict[str, Learner]:
    """Return the learner of every variant that is kept fresh, the configured one first.

    Raises:
        ConfigError: A learner, or the file of experiments, cannot be loaded.
    """
    models = settings.models
    specs = _catalog(settings).learners(models.variant, models.learner)
    learners = load_learners(specs.values())
    return {variant: learners[spec] for variant, spec in specs.items()}


def _catalog(settings: Settings) -> Catalog:
    """Return what is being tried; nothing without a file."""
    file = settings.models.experiments
    return Catalog.of([], [], []) if file is None else load_catalog(file)


def read_live_model(settings: Settings, client: RedisClient) -> LiveModel | None:
    """Load the configured variant's live model; None before the first publish.

    Raises:
        ConfigError: The learner cannot be loaded.
        ModelError: The pointer or the model it names is unusable.
        StoreUnavailable: Redis did not answer.
    """
    variant = settings.models.variant
    pointer = read_pointer(client, variant)
    if pointer is None:
        return None
    model = load_model(settings.models.directory / pointer.model_id)
    return LiveModel(variant, pointer.generation, model, load_learner(settings.models.learner))


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process, wired but not started."""

    settings: Settings
    learners: Mapping[str, Learner]
    client: RedisClient
    source: KafkaSource
    dead_letters: KafkaDeadLetters
    loop: WorkerLoop
    observer: LoopObserver
    live_models: LiveModels
    monitor: WatermarkMonitor
    health: HealthServer
    log: structlog.stdlib.BoundLogger

    def run(self, *, wait: bool) -> None:
        """Work until SIGTERM or SIGINT; main thread only.

        Args:
            wait: Wait for an unreachable Kafka or Redis at start, as long as it takes.

        Raises:
            TransientError: Kafka or Redis is unreachable at start, without `wait`.
            RestartNeeded: The process cannot go on.
        """
        worker = self.settings.worker
        shutdown = Shutdown(self.loop.stop, worker.drain_timeout_seconds)
        shutdown.install()
        self.health.start()
        try:
            self._wait_for_others(None if wait else worker.start_timeout_seconds)
            if not self.loop.is_stopping:
                # After the others are there: who has to fail, fails fast.
                for learner in dict.fromkeys(self.learners.values()):
                    warm_up(learner)
                settle()
                self._run(shutdown)
        finally:
            self.client.close()
            self.health.stop()
        self.log.info("worker_stopped")

    def _wait_for_others(self, timeout_seconds: float | None) -> None:
        kafka = self.settings.kafka
        admin = open_admin({**kafka.client, "bootstrap.servers": kafka.bootstrap_servers})
        startup = Startup(timeout_seconds, lambda: self.loop.is_stopping, self.observer, self.log)
        startup.wait_for(lambda: ping(self.client))
        startup.wait_for(
            lambda: self.source.assume_missing(
                ensure_topics(admin, kafka.topics, kafka.dead_letter_suffix, self.log)
            )
        )
        expire_after_days = self.settings.redis.expire_after_days
        if expire_after_days:
            startup.wait_for(lambda: ensure_expiry(admin, kafka.topics, expire_after_days))

    def _run(self, shutdown: Shutdown) -> None:
        worker = self.settings.worker
        watchdog = Watchdog(lambda: self.observer.turned_at, worker.watchdog_timeout_seconds)
        self.live_models.start(self.settings.models.poll_interval_seconds)
        self.monitor.start()
        self.observer.turned()
        watchdog.start()
        self.log.info(
            "worker_started",
            group_id=self.settings.kafka.group_id,
            variants=list(self.learners),
            topics=self.settings.kafka.topics,
            metrics_port=self.health.port,
        )
        try:
            self.loop.run()
        finally:
            # Leaving the group may hang with a dead broker, and not only a signal leads here.
            shutdown.arm(EXIT_TEMPORARY)
            watchdog.stop()
            self.dead_letters.close()
            self.source.close()
            self.monitor.stop()
            self.live_models.stop()


def build_worker(settings: Settings) -> Worker:
    """Wire a worker; binds its metrics port and connects to nothing yet.

    Raises:
        ConfigError: A client refuses its settings, a learner or the file of experiments cannot be
            loaded, or the port is taken.
    """
    log: structlog.stdlib.BoundLogger = structlog.get_logger()
    kafka, section = settings.kafka, settings.worker
    learners = load_variants(settings)
    client = redis_client(settings.redis)
    jitter = Random()
    metrics = WorkerMetrics(kafka.topics, list(learners))
    observer = LoopObserver(metrics, log, settings.metrics.delay_trace)
    health = HealthServer(
        settings.metrics.host,
        settings.metrics.port,
        metrics.registry,
        lambda: health_of(
            observer,
            lambda: monitor.answered_at,
            lambda: source.missing_topics,
            lambda: live_models.out_of_service,
        ),
    )
    store = open_store(
        client,
        kafka.group_id,
        tombstone_days=settings.redis.tombstone_days,
        expire_after_days=settings.redis.expire_after_days,
        sums_days=settings.experiments.keep_days,
    )
    source = KafkaSource(
        kafka.client, kafka.bootstrap_servers, kafka.group_id, kafka.topics, kafka.group_protocol
    )
    dead_letters = KafkaDeadLetters(kafka.client, kafka.bootstrap_servers, kafka.dead_letter_suffix)
    progress = Progress(time.time)
    metrics.watch_partitions(progress.gauges)
    live_models = LiveModels(
        partial(read_pointer, client), settings.models.directory, learners, metrics, log
    )
    updater = Updater(
        store,
        HistoryCache(section.cache_users),
        FeatureDtype[settings.features.dtype.upper()],
        time.time,
        time.sleep,
        jitter,
    )
    updater.measurer = Measurer(
        Counting(_catalog(settings)),
        MeasuringSettings(settings.experiments.sample_share, settings.experiments.max_cpu_share),
        time.thread_time,
        metrics,
        log,
    )
    metrics.cache_users.set_function(lambda: updater.n_cached_users)
    loop = WorkerLoop(
        LoopParts(
            source,
            dead_letters,
            updater,
            Sweeper(RedisScan(client), updater.fold_in, section.sweep_share, jitter),
            Checkpoints(store, source, progress, metrics, log),
            live_models.current,
            live_models.take_out,
            observer,
            jitter,
        ),
        LoopSettings(
            section.batch_records,
            section.poll_timeout_seconds,
            section.checkpoint_interval_seconds,
            section.drain_timeout_seconds,
        ),
        log,
    )
    monitor = WatermarkMonitor(
        kafka.client,
        kafka.bootstrap_servers,
        progress.partitions,
        progress.observe_watermarks,
        section.checkpoint_interval_seconds,
    )
    return Worker(
        settings,
        learners,
        client,
        source,
        dead_letters,
        loop,
        observer,
        live_models,
        monitor,
        health,
        log,
    )
