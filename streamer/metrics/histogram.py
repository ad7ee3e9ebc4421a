"""A histogram that takes an array at once: one call a batch instead of one a record."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString


class BucketedHistogram(Collector):
    """A Prometheus histogram with one label, bucketed by NumPy."""

    def __init__(
        self,
        name: str,
        documentation: str,
        label: str,
        edges: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        """Register with `registry`.

        Args:
            name: Without a unit suffix of its own; part of the interface.
            documentation: The help text.
            label: Name of the one label.
            edges: Upper bounds, ascending; +Inf is added.
            registry: Where to be scraped.
        """
        self._name = name
        self._documentation = documentation
        self._label = label
        self._edges = np.array(edges)
        self._bounds = [*map(floatToGoString, edges), "+Inf"]
        self._lock = threading.Lock()
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._sums: dict[str, float] = {}
        registry.register(self)

    def touch(self, label_value: str) -> None:
        """Make the series visible with zeros."""
        self.observe(label_value, np.empty(0))

    def observe(self, label_value: str, values: NDArray[np.float64]) -> None:
        """Add many values of one series."""
        buckets = np.searchsorted(self._edges, values, side="left")  # le: the edge belongs below
        counts = np.bincount(buckets, minlength=len(self._bounds))
        with self._lock:
            before = self._counts.get(label_value, 0)
            self._counts[label_value] = before + counts
            self._sums[label_value] = self._sums.get(label_value, 0.0) + float(values.sum())

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Name the metric without values."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=[self._label])

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Return the histogram as it is now."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=[self._label])
        with self._lock:
            for label_value, counts in self._counts.items():
                cumulative = [float(count) for count in np.cumsum(counts)]
                family.add_metric(
                    [label_value],
                    buckets=list(zip(self._bounds, cumulative, strict=True)),
                    sum_value=self._sums[label_value],
                )
        yield family
