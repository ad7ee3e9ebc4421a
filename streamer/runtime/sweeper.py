"""Folds in, page by page and shared with all workers, whoever a publish has left behind.

Cached users are folded in again by the loop itself. Everybody else is found here: one page of users
a turn, and not before the last page has paid for itself, so that the sweep takes a bounded share of
the worker's time whatever a learner or a slow Redis costs. Nothing depends on it: an event renews
its user, and readers recognise what fell behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from streamer.pipeline.ports import Place, UserScan
from streamer.pipeline.step import LiveModel
from streamer.pipeline.sweep import (
    CURSOR_OF_ENDS,
    Sweep,
    advanced,
    begun,
    decode_sweep,
    encode_sweep,
    progress_of,
    rows_behind,
)
from streamer.runtime.updater import Report

FoldIn = Callable[[Sequence[str], Sequence[bytes | None], LiveModel], Report]

PAGE_SECONDS: Final = 0.005
"""What a page should take: an event waits no longer for it."""
MIN_KEYS: Final = 100
"""Some fifty users: a page has six round trips, which on a busy machine alone take its time."""
MAX_KEYS: Final = 1000
FIRST_KEYS: Final = 250
LOOK_SECONDS: Final = 30.0
"""Between looks at a sweep that is done, or is somebody else's: a server may be another by then."""
PATROL_SECONDS: Final = 86_400.0
"""A sweep that is done is done again after this time: by then a worker that died while it still
had the old model may have left a new user behind."""
RETRY_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Swept:
    """What one page was.

    Attributes:
        live: The variant.
        begins: Whether a sweep begins with this page.
        after: Where the sweep stands.
        n_seen: Users of the page.
        n_behind: Of them, how many were behind.
        progress: Of all parts of the store, as this worker saw them last, 0 to 1.
        report: Of those that were folded in.
    """

    live: LiveModel
    begins: bool
    after: Sweep
    n_seen: int
    n_behind: int
    progress: float
    report: Report


class Sweeper:
    """One worker's part in the sweep."""

    def __init__(
        self,
        scan: UserScan,
        fold_in: FoldIn,
        share: float,
        jitter: Random,
        patrol_seconds: float = PATROL_SECONDS,
    ) -> None:
        """Keep the parts.

        Args:
            scan: Finds everybody.
            fold_in: Of the worker's updater.
            share: Of the worker's time that pages may take, 0 to 1; 0 sweeps nobody.
            jitter: Lets workers begin with different parts of the store.
            patrol_seconds: After this time a sweep that is done is done again.
        """
        self._scan = scan
        self._fold_in = fold_in
        self._share = share
        self._jitter = jitter
        self._patrol_ms = patrol_seconds * 1000
        self._n_keys = FIRST_KEYS
        self._next_at = 0.0
        self._look_at: dict[str, float] = {}
        self._generations: dict[str, int] = {}
        self._seen: dict[str, dict[str, Sweep]] = {}
        """By variant, then by part."""
        self._done: set[str] = set()

    def due_in_seconds(self, lives: Sequence[LiveModel]) -> float:
        """Return how long there is surely nothing to do; 0 if there may be something now."""
        if not self._share or not lives:
            return float("inf")
        first = min(self._look_at_of(live) for live in lives)
        return max(0.0, max(first, self._next_at) - time.monotonic())

    def is_done(self, live: LiveModel) -> bool:
        """Return whether every part of the store was done when this worker looked last."""
        is_same = self._generations.get(live.variant) == live.generation
        return is_same and live.variant in self._done

    def turn(self, lives: Sequence[LiveModel]) -> Swept | None:
        """Claim and sweep one page, if there is one and it is time.

        Returns:
            What was done; None for nothing.

        Raises:
            StoreUnavailable: Nothing depends on the page; it is looked at again by the next pass.
            StoreForgot: As `Updater.fold_in`.
        """
        if self.due_in_seconds(lives) > 0:
            return None
        started = time.monotonic()
        self._next_at = started + RETRY_SECONDS  # unless this one succeeds
        swept: Swept | None = None
        for live in lives:
            if self._look_at_of(live) <= started:
                swept = self._turn_of(live, len(lives))
                break  # one page a turn
        took = time.monotonic() - started
        self._next_at = started + took / self._share
        if swept is not None:
            self._pace(took)
        return swept

    def _look_at_of(self, live: LiveModel) -> float:
        if self._generations.get(live.variant) != live.generation:
            return 0.0
        return self._look_at.get(live.variant, 0.0)

    def _turn_of(self, live: LiveModel, n_variants: int) -> Swept | None:
        """Sweep a page of the first part that has one; look again later if none has."""
        if self._generations.get(live.variant) != live.generation:
            self._generations[live.variant] = live.generation
            self._seen[live.variant] = {}
            self._done.discard(live.variant)
        # Should this one fail, the other variants go first.
        self._look_at[live.variant] = time.monotonic() + 2 * RETRY_SECONDS
        parts = list(self._scan.parts())
        self._jitter.shuffle(parts)
        seen = self._seen[live.variant]
        self._seen[live.variant] = {part: seen[part] for part in parts if part in seen}
        for part in parts:
            place = self._scan.look(part, live.variant)
            stored = decode_sweep(place.state)
            if stored is not None and stored.generation > live.generation:
                continue  # our model is the old one
            if stored is not None and stored.is_done and not self._is_over(stored, live):
                self._seen[live.variant][part] = stored
                continue
            self._done.discard(live.variant)
            if stored is not None and not self._is_over(stored, live):
                return self._page(live, part, place, stored)
            is_known = stored is not None and stored.is_done
            n_expected = stored.n_seen if is_known and stored else place.n_keys // (1 + n_variants)
            return self._page(live, part, place, begun(live.generation, n_expected, _now_ms()))
        if len(self._seen[live.variant]) == len(parts):
            self._done.add(live.variant)
        self._look_at[live.variant] = time.monotonic() + LOOK_SECONDS
        return None

    def _is_over(self, stored: Sweep, live: LiveModel) -> bool:
        """Whether a state is of an older generation, or was done long ago."""
        is_old = stored.is_done and _now_ms() - stored.finished_ms > self._patrol_ms
        return stored.generation < live.generation or is_old

    def _page(self, live: LiveModel, part: str, place: Place, sweep: Sweep) -> Swept | None:
        """Read a page, claim it, and fold in who is behind."""
        users = self._scan.scan(part, live.variant, sweep.cursor, self._n_keys)
        rows = rows_behind(users, live.generation)
        n_seen = len(users.user_ids)
        after = advanced(sweep, users.cursor, n_seen, len(rows), _now_ms())
        if not self._scan.claim(live.variant, place.server, place.state, encode_sweep(after)):
            self._look_at[live.variant] = 0.0
            return None  # another worker was faster: the page is theirs
        self._seen[live.variant][part] = after
        user_ids = [users.user_ids[row] for row in rows]
        report = self._fold_in(user_ids, [users.histories[row] for row in rows], live)
        self._look_at[live.variant] = 0.0
        begins = sweep.number == 1 and sweep.cursor == CURSOR_OF_ENDS
        progress = progress_of(self._seen[live.variant].values())
        return Swept(live, begins, after, n_seen, len(rows), progress, report)

    def _pace(self, took_seconds: float) -> None:
        """Make the next page as large as fits its time, by at most a factor of two at once."""
        factor = min(2.0, max(0.5, PAGE_SECONDS / max(took_seconds, 1e-6)))
        self._n_keys = min(MAX_KEYS, max(MIN_KEYS, int(self._n_keys * factor)))


def _now_ms() -> int:
    return int(time.time() * 1000)
