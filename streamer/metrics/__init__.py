"""What Prometheus sees of a worker."""

from streamer.metrics.histogram import BucketedHistogram
from streamer.metrics.worker import STAGES, Stage, WorkerMetrics, WorkerState

__all__ = ["STAGES", "BucketedHistogram", "Stage", "WorkerMetrics", "WorkerState"]
