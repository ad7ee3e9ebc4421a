"""One batch of evidence into the store: read, plan, compare-and-set, and again on conflict.

`apply` may be called again with the same evidence after any failure: a part that was written
already is then a conflict whose merge changes nothing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.errors import StoreUnavailable
from streamer.factors import FeatureDtype
from streamer.history import Interactions, Outcome, decode
from streamer.metrics import Stage
from streamer.pipeline.ports import FeatureStore, WriteOutcome
from streamer.pipeline.step import (
    FeatureFormat,
    Known,
    LearnerFailure,
    LiveModel,
    Plan,
    count_unknown_items,
    plan,
)
from streamer.runtime.cache import HistoryCache
from streamer.runtime.measuring import Measurer

MAX_CONFLICT_ROUNDS: Final = 12
MAX_BACK_OFF_SECONDS: Final = 0.25


@dataclass(slots=True)
class Report:
    """What one `apply` did, for the metrics.

    Attributes:
        outcomes: Number of interactions by `streamer.history.Outcome`.
        n_conflicts: Compare-and-sets that met another writer's history.
        n_quarantined: Broken values that were moved aside.
        n_superseded: Features refused in favour of a newer generation.
        n_unknown_items: Interactions with items that the first variant's model does not know.
        n_bytes: Bytes of the values sent.
        hits: Users whose history was cached.
        misses: Users whose history was read.
        folded: Users folded in, by variant.
        fold_rejected: Users whose solve failed its check, by variant.
        failures: Learners that failed, each as often as it did.
        seconds: Time spent, by stage.
    """

    outcomes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(Outcome), np.int64))
    n_conflicts: int = 0
    n_quarantined: int = 0
    n_superseded: int = 0
    n_unknown_items: int = 0
    n_bytes: int = 0
    hits: int = 0
    misses: int = 0
    folded: Counter[str] = field(default_factory=Counter)
    fold_rejected: Counter[str] = field(default_factory=Counter)
    failures: list[LearnerFailure] = field(default_factory=list)
    seconds: dict[Stage, float] = field(
        default_factory=lambda: {"read": 0.0, "fold_in": 0.0, "write": 0.0}
    )


class Updater:
    """Keeps users' histories and features up to date with what arrived."""

    def __init__(
        self,
        store: FeatureStore,
        cache: HistoryCache,
        dtype: FeatureDtype,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        jitter: random.Random,
    ) -> None:
        """Wire the parts.

        Args:
            store: Where histories and features live.
            cache: What is remembered of them.
            dtype: Of the stored vectors.
            clock: Seconds since the epoch.
            sleep: Waits for some seconds; used between conflicts only.
            jitter: Spreads the retries of writers that conflict.
        """
        self._store = store
        self._cache = cache
        self._dtype = dtype
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self.measurer: Measurer | None = None
        """Measures what is written for experiments, if anybody asks."""
        self._refolding: Sequence[LiveModel] = ()
        self._to_refold: list[str] = []
        self._n_quarantined = 0
        """Moved aside by attempts that failed afterwards; part of the next report."""

    def apply(
        self, user_ids: Sequence[str], arrived: Interactions, lives: Sequence[LiveModel]
    ) -> Report:
        """Write the evidence; when this returns, every user's part is in the store.

        Raises:
            StoreUnavailable: Nothing may be acknowledged; call again with the same arguments.
        """
        report = Report()
        if user_ids:
            self._apply(user_ids, arrived, lives, report)
            report.n_quarantined += self._n_quarantined
            self._n_quarantined = 0
        return report

    def _apply(
        self,
        user_ids: Sequence[str],
        arrived: Interactions,
        lives: Sequence[LiveModel],
        report: Report,
    ) -> None:
        if lives:
            report.n_unknown_items = count_unknown_items(arrived, lives[0].model)
        started = self._clock()
        known = self._known(user_ids, report)
        report.seconds["read"] += self._clock() - started
        for conflict_round in range(MAX_CONFLICT_ROUNDS):
            outcome = self._attempt(user_ids, known, arrived, lives, report)
            if not outcome.conflicts:
                return
            report.n_conflicts += len(outcome.conflicts)
            if conflict_round:  # the first retry is at once: usually it was a stale cache
                bound = min(MAX_BACK_OFF_SECONDS, 0.002 * 2**conflict_round)
                self._sleep(self._jitter.uniform(0, bound))
            rows = np.array(sorted(outcome.conflicts), np.intp)
            user_ids = [user_ids[row] for row in rows.tolist()]
            arrived = arrived.of_users(rows)
            # From what the store returned, never from the cache: that could revive a forgotten
            # user.
            self._cache.drop(user_ids)
            stored = [outcome.conflicts[row] for row in rows.tolist()]
            foreign = [row in outcome.foreign for row in rows.tolist()]
            known = self._mended(user_ids, stored, foreign)
        raise StoreUnavailable(
            f"{len(user_ids)} users are written by somebody else all the time", kind="conflicts"
        )

    def fold_in(
        self, user_ids: Sequence[str], stored: Sequence[bytes | None], live: LiveModel
    ) -> Report:
        """Fold users in for one variant, past the cache: nobody in it has to make room.

        Whoever is written by somebody else meanwhile is left to them, and so are broken values.

        Args:
            user_ids: Whom.
            stored: Their histories, as they were read a moment ago.
            live: The variant.

        Raises:
            StoreUnavailable: Some may have been written.
            StoreForgot: Acknowledged writes are gone, and nothing was written.
        """
        report = Report()
        histories, stored_digests, is_broken = decode(stored)
        rows = np.flatnonzero(~is_broken)
        if not len(rows):
            return report
        known = Known(histories, stored_digests, {}).take(rows)
        user_ids = [user_ids[row] for row in rows.tolist()]
        self._write_planned(user_ids, known, Interactions.none(len(rows)), [live], report)
        return report

    def forget_cache(self) -> None:
        """Read every history again: Redis may have forgotten what the cache believes."""
        self._cache.clear()

    @property
    def n_cached_users(self) -> int:
        """Histories in the cache."""
        return len(self._cache)

    @property
    def has_refolds(self) -> bool:
        """Whether `take_refolds` has more to give."""
        return bool(self._to_refold)

    def take_refolds(self, lives: Sequence[LiveModel], max_users: int) -> list[str]:
        """Return cached users that may have features of an older model, each once per change.

        To be given to `apply` without evidence. The most recently seen come first.
        """
        if any(live not in self._refolding for live in lives):
            self._to_refold = self._cache.user_ids
        self._refolding = lives
        taken, self._to_refold = self._to_refold[-max_users:], self._to_refold[:-max_users]
        return taken

    def _attempt(
        self,
        user_ids: Sequence[str],
        known: Known,
        arrived: Interactions,
        lives: Sequence[LiveModel],
        report: Report,
    ) -> WriteOutcome:
        """Plan and write once; what was written is remembered and counted."""
        step, outcome = self._write_planned(user_ids, known, arrived, lives, report)
        is_written = np.ones(len(user_ids), bool)
        is_written[list(outcome.conflicts)] = False
        after = step.after
        if outcome.conflicts:
            written = np.flatnonzero(is_written)
            after, user_ids = after.take(written), [user_ids[row] for row in written.tolist()]
        if outcome.n_superseded:
            after.generations.clear()  # fold them in again with the newer model
        self._cache.put(user_ids, after)
        report.outcomes += np.bincount(
            step.outcomes[is_written[arrived.rows]], minlength=len(Outcome)
        )
        return outcome

    def _write_planned(
        self,
        user_ids: Sequence[str],
        known: Known,
        arrived: Interactions,
        lives: Sequence[LiveModel],
        report: Report,
    ) -> tuple[Plan, WriteOutcome]:
        """Plan and write once; count it but for what became of each interaction."""
        started = self._clock()
        feature_format = FeatureFormat(self._dtype, now_ms=int(started * 1000))
        step = plan(user_ids, known, arrived, lives, feature_format)
        writes = step.writes
        if self.measurer is not None:
            additions = self.measurer.measure(user_ids, known, step.after, arrived, lives)
            writes = replace(writes, additions=additions)
        planned = self._clock()
        outcome = self._store.write(writes)
        report.seconds["fold_in"] += planned - started
        report.seconds["write"] += self._clock() - planned
        report.n_superseded += outcome.n_superseded
        self._n_quarantined += outcome.n_quarantined
        report.n_bytes += outcome.n_bytes
        report.folded += Counter(step.n_folded)
        report.fold_rejected += Counter(step.n_fold_rejected)
        report.failures += step.failures
        return step, outcome

    def _known(self, user_ids: Sequence[str], report: Report) -> Known:
        """Return what is cached, and read the rest."""
        slots = self._cache.find(user_ids)
        hit_rows = [row for row, slot in enumerate(slots) if slot is not None]
        miss_rows = [row for row, slot in enumerate(slots) if slot is None]
        report.hits += len(hit_rows)
        report.misses += len(miss_rows)
        known = Known.nothing(len(user_ids))
        if hit_rows:
            cached = self._cache.get([slot for slot in slots if slot is not None])
            known.put(np.array(hit_rows, np.intp), cached)
        if miss_rows:
            missing = [user_ids[row] for row in miss_rows]
            stored = self._store.read_histories(missing)
            read = self._mended(missing, stored, [False] * len(missing))
            known.put(np.array(miss_rows, np.intp), read)
        return known

    def _mended(
        self,
        user_ids: Sequence[str],
        stored: Sequence[bytes | None],
        foreign: Sequence[bool],
    ) -> Known:
        """Decode stored values; broken ones are moved aside and count as absent."""
        histories, digests, is_broken = decode(stored)
        for row in np.flatnonzero(is_broken | np.array(foreign, bool)).tolist():
            self._store.quarantine(user_ids[row], None if foreign[row] else stored[row])
            self._n_quarantined += 1
        return Known(histories, digests, {})
