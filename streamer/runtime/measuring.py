"""What experiments want to know of each batch, within bounds, and never at the stream's expense.

Counts outcomes by cell, and scores a sample of plays by every variant before they are learned. The
store writes both together with the histories. Scoring has a budget: a share of the CPU that this
thread used; what is beyond it is not scored, and counted as skipped. Whatever fails here is
counted, said once, and otherwise ignored: the histories go on.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

import structlog

from streamer.experiments import Additions, Arrival, Counting
from streamer.experiments.counting import MILLION, score_gains
from streamer.history import Changes, Interactions, changes, newest_ms
from streamer.metrics import WorkerMetrics
from streamer.pipeline.prequential import (
    HIT_AT,
    MAX_SCORES_AT_ONCE,
    MIN_PLAYS_AT_ONCE,
    choose_plays,
    foresee,
)
from streamer.pipeline.step import Known, LiveModel

T = TypeVar("T")
Part = Literal["outcomes", "prequential"]
MAX_CREDIT_SECONDS: Final = 0.05
"""Of CPU that was saved up: after a quiet time a backlog must not be slower for longer."""


@dataclass(frozen=True, slots=True)
class MeasuringSettings:
    """How much is measured.

    Attributes:
        sample_share: Of first plays, how many are scored; 0 to 1.
        max_cpu_share: Of the CPU that the loop uses, how much scoring may take; 0 to 1.
    """

    sample_share: float
    max_cpu_share: float


class Budget:
    """A share of the CPU seconds of a thread, earned while it works."""

    def __init__(self, cpu_clock: Callable[[], float], share: float) -> None:
        self._clock = cpu_clock
        self._share = share
        self._seen = cpu_clock()
        self._credit = 0.0

    def has_some(self) -> bool:
        """Earn what is due since the last call, and say whether anything is left."""
        now = self._clock()
        self._credit += self._share * (now - self._seen)
        self._credit = min(self._credit, MAX_CREDIT_SECONDS)
        self._seen = now
        return self._credit > 0

    def spend(self) -> float:
        """Take what was used since `has_some`; return how many seconds that were."""
        spent = self._clock() - self._seen
        self._credit -= spent
        return spent


class Measurer:
    """Measures the batches of one loop, on its thread."""

    def __init__(
        self,
        counting: Counting,
        settings: MeasuringSettings,
        cpu_clock: Callable[[], float],
        metrics: WorkerMetrics,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """Keep the parts.

        Args:
            counting: Of the experiments.
            settings: How much is measured.
            cpu_clock: Seconds of CPU that this thread has used.
            metrics: The worker's.
            log: The worker's.
        """
        self._counting = counting
        self._sample_share = settings.sample_share
        self._budget = Budget(cpu_clock, settings.max_cpu_share)
        self._metrics = metrics
        self._log = log
        self._failed: set[Part] = set()

    def measure(
        self,
        user_ids: Sequence[str],
        known: Known,
        after: Known,
        arrived: Interactions,
        lives: Sequence[LiveModel],
    ) -> Additions:
        """Return what the sums gain if these users are written; raises nothing.

        Args:
            user_ids: n_users ids.
            known: Before.
            after: Once `arrived` is merged.
            arrived: The evidence.
            lives: The variants in service.
        """
        if not len(arrived.rows) and not arrived.forgotten_before_ms.any():
            return Additions.none()
        changed = self._guarded("outcomes", lambda: changes(known.histories, arrived))
        if changed is None:
            return Additions.none()
        arrival = Arrival(
            user_ids, arrived, changed, newest_ms(known.histories), newest_ms(after.histories)
        )
        counted = self._guarded("outcomes", lambda: self._counting.additions(arrival))
        scored = self._guarded(
            "prequential", lambda: self._score(user_ids, known, arrived, changed, lives)
        )
        return Additions.joined([each for each in (counted, scored) if each is not None])

    def _score(
        self,
        user_ids: Sequence[str],
        known: Known,
        arrived: Interactions,
        changed: Changes,
        lives: Sequence[LiveModel],
    ) -> Additions:
        if not lives or not self._sample_share:
            return Additions.none()
        has_budget = self._budget.has_some()
        try:
            n_scores = sum(live.model.n_items for live in lives)
            max_plays = max(MIN_PLAYS_AT_ONCE, MAX_SCORES_AT_ONCE // n_scores) * has_budget
            plays, n_skipped = choose_plays(
                known.histories, arrived, changed, self._sample_share, max_plays
            )
            self._metrics.prequential_skipped.inc(n_skipped)
            if not len(plays):
                return Additions.none()
            foreseen = foresee(known.histories, arrived, plays, lives)
        finally:
            self._metrics.prequential_seconds.inc(self._budget.spend())
        gains = {name: score_gains(each, HIT_AT) for name, each in foreseen.places.items()}
        for variant, of_plays in gains.items():
            scored, hits, reciprocal = of_plays.sum(axis=0).tolist()
            self._metrics.prequential_plays.labels(variant).inc(scored)
            self._metrics.prequential_hits.labels(variant).inc(hits)
            self._metrics.prequential_reciprocal_ranks.labels(variant).inc(reciprocal / MILLION)
        return self._counting.scores(user_ids, foreseen.rows, foreseen.event_times_ms, gains)

    def _guarded(self, part: Part, measure: Callable[[], T]) -> T | None:
        try:
            return measure()
        except Exception as error:  # noqa: BLE001  whatever it is, histories matter more
            self._fail(part, error)
            return None

    def _fail(self, part: Part, error: Exception) -> None:
        self._metrics.measuring_failures.labels(part).inc()
        if part not in self._failed:
            self._failed.add(part)
            self._log.error(
                "measuring_failed",
                part=part,
                # No message and no traceback: they may hold a user's id.
                error=type(error).__name__,
                where=_where(error),
                effect="histories and features go on; what fails is missing in experiments report",
            )


def _where(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
