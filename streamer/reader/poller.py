"""Calls a function now and then beside the requests, so that none of them has to wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Poller:
    """A daemon thread that calls `look`, which must not raise, until it is stopped."""

    def __init__(self, name: str, look: Callable[[], None], interval_seconds: float) -> None:
        self._look = look
        self._interval_seconds = interval_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Look once on the caller's thread, then go on on one of our own."""
        self._look()
        self._thread.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Stop looking; a look under way may outlast `timeout_seconds`. May be called twice."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_seconds):
            self._look()
