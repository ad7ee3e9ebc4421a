"""The worker's metrics: one registry of its own, counted per batch.

Gauges that must stay true while the loop hangs (lag, heartbeat age) are evaluated when scraped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from streamer import __version__
from streamer.events import EventType, RejectReason
from streamer.factors import LEARNER_FAULTS
from streamer.history import Outcome
from streamer.metrics.histogram import BucketedHistogram
from streamer.pipeline.records import Partition

DELAY_EDGES: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300,
)  # fmt: skip
AGE_EDGES: Final = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 21_600, 86_400, 604_800)
BATCH_EDGES: Final = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 20_000)

Stage = Literal[
    "poll",
    "decode",
    "read",
    "fold_in",
    "write",
    "dead_letter",
    "checkpoint",
    "backpressure",
    "sweep",
]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)


class WorkerState(StrEnum):
    """What the loop is doing."""

    STARTING = "starting"
    IDLE = "idle"
    RUNNING = "running"
    HELD = "held"
    DRAINING = "draining"


PartitionGauges = Mapping[str, Mapping[Partition, float]]
"""Values of the per-partition gauges by (name, partition); a missing partition is unknown."""

PARTITION_GAUGES: Final = {
    "streamer_partition_next_offset": "Next offset to apply.",
    "streamer_partition_lag_records": "Records appended but not applied.",
    "streamer_partition_lag_seconds": "Age of the oldest record that may be unapplied.",
}


class WorkerMetrics:
    """Every metric of a worker process, in a registry of its own."""

    def __init__(self, topics: Sequence[str], variants: Sequence[str]) -> None:
        """Register everything and touch what has a closed set of labels, so that zero is seen."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus-client has none
        self.registry = CollectorRegistry()
        self._define_traffic(topics)
        self._define_loop()
        self._define_store()
        self._define_learning(variants)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._gauge("build_info", "The version that runs.", "version").labels(__version__).set(1)

    def _define_traffic(self, topics: Sequence[str]) -> None:
        self.records_consumed = self._counter("records_consumed", "Records polled.", "topic")
        self.events_applied = self._counter(
            "events_applied", "Events accepted and reflected.", "topic", "type"
        )
        self.records_dead_lettered = self._counter(
            "records_dead_lettered", "Records safe in the dead letters.", "topic", "reason"
        )
        self.records_abandoned = self._counter(
            "records_abandoned", "Records dropped unacknowledged; they come again.", "topic"
        )
        self.records_expired = self._counter(
            "records_expired",
            "Records that retention took before they were read, or read again.",
            "topic",
        )
        self.interactions_merged = self._counter(
            "interactions_merged", "What became of each interaction.", "outcome"
        )
        self.pipeline_delay = BucketedHistogram(
            "streamer_pipeline_delay_seconds",
            "From append to readable in Redis.",
            "topic",
            DELAY_EDGES,
            self.registry,
        )
        self.event_age = BucketedHistogram(
            "streamer_event_age_seconds",
            "From the event's own time to readable in Redis.",
            "topic",
            AGE_EDGES,
            self.registry,
        )
        for topic in topics:
            self.records_consumed.labels(topic)
            self.records_abandoned.labels(topic)
            self.records_expired.labels(topic)
            self.pipeline_delay.touch(topic)
            self.event_age.touch(topic)
            for event_type in EventType:
                self.events_applied.labels(topic, event_type)
            for reason in RejectReason:
                self.records_dead_lettered.labels(topic, reason)
        for outcome in Outcome:
            self.interactions_merged.labels(outcome.name.lower())

    def _define_loop(self) -> None:
        self.loop_heartbeat = self._gauge(
            "loop_heartbeat_timestamp_seconds", "When the loop last turned."
        )
        self.loop_seconds = self._counter("loop_seconds", "Time of the loop.", "stage")
        self.worker_state = self._gauge("worker_state", "1 for the present state.", "state")
        self.partitions_assigned = self._gauge("partitions_assigned", "Partitions that are ours.")
        self.partitions_paused = self._gauge(
            "partitions_paused", "Of these, how many deliver nothing."
        )
        self.rebalances = self._counter("rebalances", "Changes of the assignment.", "kind")
        self.rewinds = self._counter("rewinds", "Partitions read again.", "cause")
        self.kafka_errors = self._counter("kafka_errors", "Errors of the client.", "code")
        self.kafka_retries = self._counter(
            "kafka_retries", "Steps tried again because Kafka failed."
        )
        self.batch_records = Histogram(
            "streamer_batch_records",
            "Records a batch.",
            buckets=BATCH_EDGES,
            registry=self.registry,
        )
        for stage in STAGES:
            self.loop_seconds.labels(stage)
        for kind in ("assigned", "revoked", "lost"):
            self.rebalances.labels(kind)
        for cause in ("mark_behind", "mark_missing", "topic_recreated", "writes_missing"):
            self.rewinds.labels(cause)
        self.set_state(WorkerState.STARTING)

    def _define_store(self) -> None:
        self.redis_errors = self._counter("redis_errors", "Failed calls to the store.", "kind")
        self.redis_retries = self._counter(
            "redis_retries", "Steps tried again because Redis failed."
        )
        self.redis_conflicts = self._counter(
            "redis_conflicts", "Compare-and-sets that met another writer's history."
        )
        self.redis_bytes_written = self._counter("redis_bytes_written", "Bytes of values sent.")
        self.histories_quarantined = self._counter(
            "histories_quarantined", "Broken values that were moved aside."
        )
        self.cache_hits = self._counter("cache_hits", "Users whose history was cached.")
        self.cache_misses = self._counter("cache_misses", "Users whose history was read.")
        self.cache_users = self._gauge("cache_users", "Histories in the cache.")

    def _define_learning(self, variants: Sequence[str]) -> None:
        self.folds = self._counter("folds", "Users folded in.", "variant")
        self.fold_rejected = self._counter(
            "fold_rejected", "Solves that failed their check.", "variant", "reason"
        )
        self.learner_failures = self._counter(
            "learner_failures",
            "Batches that a learner failed; the first takes its variant out of service.",
            "variant",
            "reason",
        )
        self.variant_in_service = self._gauge(
            "variant_in_service",
            "1 while the variant's features are kept fresh; 0 without a usable model or learner.",
            "variant",
        )
        self.features_superseded = self._counter(
            "features_superseded", "Features refused in favour of a newer generation."
        )
        self.unknown_item_interactions = self._counter(
            "unknown_item_interactions", "Interactions with items the model does not know."
        )
        self.model_info = self._gauge("model_info", "1 for the live model.", "variant", "model_id")
        self.model_loaded = self._gauge(
            "model_loaded_timestamp_seconds", "When the live model was loaded.", "variant"
        )
        self.model_checked = self._gauge(
            "model_checked_timestamp_seconds",
            "When the thread that follows the live model last finished a look.",
            "variant",
        )
        self.model_errors = self._counter("model_errors", "Models that were refused.", "variant")
        self._define_sweep(variants)
        self._define_measuring(variants)
        for variant in variants:
            self.folds.labels(variant)
            self.fold_rejected.labels(variant, "bound")
            self.model_errors.labels(variant)
            self.variant_in_service.labels(variant)
            for reason in LEARNER_FAULTS:
                self.learner_failures.labels(variant, reason)

    def _define_sweep(self, variants: Sequence[str]) -> None:
        self.sweep_users = self._counter("sweep_users", "Users seen by the sweep.", "variant")
        self.sweep_behind = self._counter(
            "sweep_behind", "Of them, how many had features that had fallen behind.", "variant"
        )
        self.sweep_passes = self._counter(
            "sweep_passes", "Passes of the sweep that this worker ended.", "variant"
        )
        self.sweep_progress = self._gauge(
            "sweep_progress_ratio", "Share of the users seen in the present pass.", "variant"
        )
        self.sweep_done = self._gauge(
            "sweep_done",
            "1 once nobody is left behind, as far as this worker has looked; 0 before.",
            "variant",
        )
        for variant in variants:
            self.sweep_users.labels(variant)
            self.sweep_behind.labels(variant)
            self.sweep_passes.labels(variant)
            self.sweep_progress.labels(variant)
            self.sweep_done.labels(variant)

    def _define_measuring(self, variants: Sequence[str]) -> None:
        self.prequential_plays = self._counter(
            "prequential_plays", "Sampled first plays that were scored, then learned.", "variant"
        )
        self.prequential_hits = self._counter(
            "prequential_hits", "Of these, how many were among the variant's top 20.", "variant"
        )
        self.prequential_reciprocal_ranks = self._counter(
            "prequential_reciprocal_ranks", "Of these, the sum of 1 / place.", "variant"
        )
        self.prequential_skipped = self._counter(
            "prequential_skipped", "Sampled first plays beyond the budget of CPU."
        )
        self.prequential_seconds = self._counter(
            "prequential_cpu_seconds", "CPU that scoring used."
        )
        self.measuring_failures = self._counter(
            "measuring_failures", "Batches whose outcomes or scores were lost to an error.", "part"
        )
        for variant in variants:
            self.prequential_plays.labels(variant)
            self.prequential_hits.labels(variant)
            self.prequential_reciprocal_ranks.labels(variant)
        for part in ("outcomes", "prequential"):
            self.measuring_failures.labels(part)

    def set_state(self, state: WorkerState) -> None:
        """Show what the loop is doing."""
        for each in WorkerState:
            self.worker_state.labels(each).set(each is state)

    def watch_partitions(self, read: Callable[[], PartitionGauges]) -> None:
        """Evaluate the per-partition gauges by `read` whenever somebody scrapes."""
        self.registry.register(_PartitionCollector(read))

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"streamer_{name}", documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(f"streamer_{name}", documentation, labels, registry=self.registry)


class _PartitionCollector(Collector):
    """Gauges by partition, evaluated at scrape time; what is unknown is absent."""

    def __init__(self, read: Callable[[], PartitionGauges]) -> None:
        self._read = read

    def describe(self) -> Iterator[GaugeMetricFamily]:
        for name, documentation in PARTITION_GAUGES.items():
            yield GaugeMetricFamily(name, documentation, labels=["topic", "partition"])

    def collect(self) -> Iterator[GaugeMetricFamily]:
        values = self._read()
        for name, documentation in PARTITION_GAUGES.items():
            family = GaugeMetricFamily(name, documentation, labels=["topic", "partition"])
            for partition, value in values.get(name, {}).items():
                family.add_metric([partition.topic, str(partition.number)], value)
            yield family
