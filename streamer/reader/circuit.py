"""A circuit breaker: a Redis that is down costs one time-out now and then, not one per request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from streamer.errors import StoreUnavailable

CIRCUIT_OPEN: Final = "circuit_open"


class Circuit:
    """Closed while calls succeed; after a failure open, but for one trial at a time.

    Safe to use from several threads. Calls that were under way when the first one failed run into
    their own time-outs.
    """

    def __init__(self, retry_after_seconds: float, monotonic: Callable[[], float]) -> None:
        """Start closed.

        Args:
            retry_after_seconds: Between a failure, or the start of a trial, and the next trial.
            monotonic: A clock in seconds.
        """
        self._retry_after_seconds = retry_after_seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._is_open = False
        self._next_trial_at = 0.0

    @contextmanager
    def call(self) -> Iterator[None]:
        """Hold a call: what comes out of it counts. One that is cancelled counts for nothing.

        Raises:
            StoreUnavailable: Not now; kind CIRCUIT_OPEN.
        """
        if not self.admits():
            raise StoreUnavailable("Redis failed a moment ago", kind=CIRCUIT_OPEN)
        try:
            yield
        except StoreUnavailable:
            self.fail()
            raise
        self.succeed()

    def admits(self) -> bool:
        """Say whether a call may be made now; report its end with `succeed` or `fail`."""
        if not self._is_open:
            return True
        with self._lock:
            now = self._monotonic()
            if now < self._next_trial_at:
                return False
            # The others stay out until this trial has ended, however long it takes.
            self._next_trial_at = now + self._retry_after_seconds
            return True

    def succeed(self) -> None:
        """A call was answered."""
        self._is_open = False

    def fail(self) -> None:
        """A call was not answered."""
        with self._lock:
            self._is_open = True
            self._next_trial_at = self._monotonic() + self._retry_after_seconds
