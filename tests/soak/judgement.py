"""What a soak run must keep, as pure functions of what was observed.

Memory is judged by a line: least squares over the second half of the run, once without the
seconds around rebalances. It may rise by 2 % over that half. Files and threads are judged by the
medians of the first and of the last third of that half: not one more.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

MAX_GROWTH = 0.02
P99_GOAL_SECONDS = 1.0
MIN_RATE_SHARE = 0.98


class Sample(NamedTuple):
    """One look at a process: seconds since the start, resident bytes, files, threads."""

    seconds: float
    rss_bytes: int
    n_files: int
    n_threads: int


class Delays(NamedTuple):
    """Delays of the records that were applied in the second before, from append to readable."""

    seconds: float
    delays: np.ndarray


class Check(NamedTuple):
    """One line of the table."""

    name: str
    found: str
    wanted: str
    holds: bool


@dataclass
class Observed:
    """Everything that a run has shown.

    Attributes:
        seconds: How long events were produced.
        rate: Records a second that were asked for.
        n_produced: Records that the broker acknowledged.
        produce_seconds: In what time.
        samples: Of each worker that lived all the time, by name.
        delays: Of all workers, in the order of time.
        disturbances: (from, until) seconds of each rebalance.
        rebalances: How often partitions were assigned, over all workers.
        verified: What `streamer verify --json` said at the end.
        notes: Further facts for the table and the JSON.
    """

    seconds: float
    rate: float
    n_produced: int = 0
    produce_seconds: float = 0.0
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    delays: list[Delays] = field(default_factory=list)
    disturbances: list[tuple[float, float]] = field(default_factory=list)
    rebalances: int = 0
    verified: dict = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)

    def is_quiet(self, seconds):
        """Say whether no rebalance was near."""
        return not any(start <= seconds <= end for start, end in self.disturbances)


def judge(observed):
    """Return every check."""
    checks = []
    for name, samples in observed.samples.items():
        half = [s for s in samples if observed.seconds / 2 <= s.seconds <= observed.seconds]
        quiet = [s for s in half if observed.is_quiet(s.seconds)] or half
        growth = line_growth(
            np.array([s.seconds for s in quiet]), np.array([s.rss_bytes for s in quiet])
        )
        mean_mb = np.mean([s.rss_bytes for s in quiet]) / 1e6
        checks.append(
            Check(
                f"{name}: resident memory, second half",
                f"{mean_mb:.1f} MB, {growth:+.2%}",
                f"within {MAX_GROWTH:.0%}",
                bool(abs(growth) <= MAX_GROWTH),
            )
        )
        for what, values in (
            ("open files", [s.n_files for s in quiet]),
            ("threads", [s.n_threads for s in quiet]),
        ):
            third = max(len(values) // 3, 1)
            before, after = np.median(values[:third]), np.median(values[-third:])
            checks.append(
                Check(
                    f"{name}: {what}",
                    f"{before:g}, then {after:g}",
                    "no more",
                    bool(after <= before),
                )
            )
    return [*checks, *_judge_events(observed)]


def _judge_events(observed):
    delays = [each.delays for each in observed.delays if observed.is_quiet(each.seconds)]
    quiet = np.concatenate([np.empty(0), *delays])
    every = np.concatenate([np.empty(0), *(each.delays for each in observed.delays)])
    p99 = float(np.quantile(quiet, 0.99)) if len(quiet) else float("inf")
    everywhere = np.quantile(every, [0.5, 0.99]).tolist() if len(every) else [np.inf, np.inf]
    rate = observed.n_produced / max(observed.produce_seconds, 1e-9)
    users, verified = observed.verified.get("users", 0), observed.verified
    return [
        Check(
            "freshness p99 outside the rebalances",
            f"{p99:.3f} s of {len(quiet):,} events",
            f"<= {P99_GOAL_SECONDS:g} s",
            p99 <= P99_GOAL_SECONDS,
        ),
        Check(
            "freshness of all",
            f"p50 {everywhere[0]:.3f} s, p99 {everywhere[1]:.3f} s",
            "told only",
            holds=True,
        ),
        Check(
            "produced",
            f"{observed.n_produced:,}, {rate:,.0f}/s",
            f">= {MIN_RATE_SHARE:.0%} of {observed.rate:,.0f}/s",
            rate >= MIN_RATE_SHARE * observed.rate,
        ),
        Check(
            "rebalances",
            f"{len(observed.disturbances)}, partitions assigned {observed.rebalances} times",
            "some",
            len(observed.disturbances) > 0,
        ),
        Check(
            "verify",
            f"{verified.get('equal', 0):,} equal, {verified.get('behind', 0):,} behind, "
            f"{verified.get('different', 0):,} different",
            f"all of {users:,} equal",
            0 < users == verified["equal"],
        ),
    ]


def line_growth(seconds, values):
    """Return by what share of its beginning the least-squares line rises from first to last."""
    if len(values) < 3:
        return 0.0
    slope, base = np.polyfit(seconds - seconds[0], values, 1)
    return float(slope * (seconds[-1] - seconds[0]) / base)
