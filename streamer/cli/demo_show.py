"""What the demo shows: a live table, and the last lines."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from streamer.cli.demo_workers import DemoWorker

RECENT: Final = 5
"""Seconds that the live table looks back."""


APPLIED: Final = "streamer_events_applied_total"
DEAD_LETTERED: Final = "streamer_records_dead_lettered_total"


@dataclass(slots=True)
class LiveView:
    """Follows the workers and draws them.

    Attributes:
        workers: The worker processes.
        delays: Every delay since the view began, in seconds.
        n_produced: Records that must become applied or dead letters.
    """

    workers: Sequence[DemoWorker]
    delays: list[NDArray[np.float64]] = field(default_factory=list)
    n_produced: int = 0
    _recent: list[tuple[float, float, NDArray[np.float64]]] = field(default_factory=list)

    def begin(self) -> None:
        """Leave out what was applied until now."""
        for worker in self.workers:
            worker.new_delays()

    def look(self) -> Table:
        """Ask the workers, and return the table as it is now."""
        totals = [worker.totals() for worker in self.workers]
        delays = np.concatenate([worker.new_delays() for worker in self.workers])
        self.delays.append(delays)
        applied = sum(total[APPLIED] for total in totals)
        now = time.monotonic()
        self._recent = [each for each in self._recent if now - each[0] < RECENT]
        self._recent.append((now, applied, delays))
        return self._draw(totals)

    def n_settled(self) -> int:
        """Return how many records are applied or dead-lettered."""
        totals = [worker.totals() for worker in self.workers]
        return int(sum(total[APPLIED] + total[DEAD_LETTERED] for total in totals))

    def balance(self) -> dict[str, Any]:
        """Return what went in, what came out, and the exact quantiles of the delays."""
        totals = [worker.totals() for worker in self.workers]
        p50, p99 = _quantiles(np.concatenate(self.delays))
        return {
            "produced": self.n_produced,
            "applied": int(sum(total[APPLIED] for total in totals)),
            "dead_lettered": int(sum(total[DEAD_LETTERED] for total in totals)),
            "freshness_seconds": {"p50": p50, "p99": p99},
        }

    def _draw(self, totals: Sequence[Mapping[str, float]]) -> Table:
        (began, before, _), (now, applied, _) = self._recent[0], self._recent[-1]
        rate = (applied - before) / (now - began) if now > began else 0.0
        p50, p99 = _quantiles(np.concatenate([delays for _, _, delays in self._recent]))
        table = Table(title="streamer: events in, fresh vectors out", min_width=72)
        for column in ("", "partitions", "applied", "dead letters", "lag", "conflicts", "cached"):
            table.add_column(column, justify="left" if not column else "right")
        names = (
            "streamer_partitions_assigned",
            APPLIED,
            DEAD_LETTERED,
            "streamer_partition_lag_records",
            "streamer_redis_conflicts_total",
            "streamer_cache_users",
        )
        for worker, total in zip(self.workers, totals, strict=True):
            table.add_row(worker.name, *(f"{total[name]:,.0f}" for name in names))
        table.add_section()
        sums = (sum(total[name] for total in totals) for name in names)
        table.add_row("together", *(f"{value:,.0f}" for value in sums))
        table.caption = (
            f"{rate:,.0f} events/s, readable after p50 {p50 * 1000:.1f} ms, "
            f"p99 {p99 * 1000:.1f} ms (last {RECENT} s)"
        )
        return table


def last_lines(result: Mapping[str, Any]) -> list[str]:
    """Return the demo's verdict, a line a fact."""
    fresh, hits, check = result["freshness_seconds"], result["hit_rate"], result["verify"]
    balance = result["applied"] + result["dead_lettered"]
    sign = "=" if balance == result["produced"] else "but"
    return [
        f"produced {result['produced']:,} {sign} applied {result['applied']:,} "
        f"+ dead-lettered {result['dead_lettered']:,}",
        f"freshness, append to readable in Redis: p50 {fresh['p50'] * 1000:.1f} ms, "
        f"p99 {fresh['p99'] * 1000:.1f} ms (exact, every live event)",
        f"next new title among the 20 best: {hits['fresh']:.1%} with fresh vectors, "
        f"{hits['frozen']:.1%} with vectors frozen at the start of the stream",
        f"verify: {check['users']:,} viewers recomputed from the log, {check['equal']:,} equal, "
        f"{check['behind']:,} behind, {check['different']:,} different",
    ]


def _quantiles(delays: NDArray[np.float64]) -> tuple[float, float]:
    if not len(delays):
        return float("nan"), float("nan")
    p50, p99 = np.quantile(delays, [0.5, 0.99]).tolist()
    return p50, p99
