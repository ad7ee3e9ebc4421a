"""What ends a process that cannot end itself: the watchdog, and the deadline of a shutdown.

Both use os._exit: whatever hangs would also hang an orderly exit, and restarting is always safe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

STDERR: Final = 2
EXIT_WATCHDOG: Final = 70
EXIT_TEMPORARY: Final = 75
CHECK_SECONDS: Final = 1.0
CLOSE_SECONDS: Final = 5.0
"""After the drain's own time-out, how long leaving the group may take."""


class Watchdog:
    """Ends the process when the loop has not turned for too long."""

    def __init__(self, turned_at: Callable[[], float], timeout_seconds: float) -> None:
        """Keep the parts.

        Args:
            turned_at: When the loop last turned, on the monotonic clock.
            timeout_seconds: How long it may stand still.
        """
        self._turned_at = turned_at
        self._timeout_seconds = timeout_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(CHECK_SECONDS):
            age = time.monotonic() - self._turned_at()
            if age > self._timeout_seconds:
                _leave(EXIT_WATCHDOG, f"the loop has not turned for {age:.0f} s")


class Shutdown:
    """SIGTERM and SIGINT: the first asks, the second or the deadline ends."""

    def __init__(self, stop: Callable[[], None], drain_timeout_seconds: float) -> None:
        """Keep the parts.

        Args:
            stop: Asks the loop to finish; called from the signal handler.
            drain_timeout_seconds: How long the loop may take; leaving the group may take
                CLOSE_SECONDS more.
        """
        self._stop = stop
        self._deadline_seconds = drain_timeout_seconds + CLOSE_SECONDS
        self._is_asked = False

    def install(self) -> None:
        """Handle the signals of this process from now on; main thread only."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def arm(self, code: int) -> None:
        """End the process after the deadline, whatever happens meanwhile."""
        timer = threading.Timer(
            self._deadline_seconds, _leave, (code, "the shutdown took too long")
        )
        timer.daemon = True
        timer.start()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._is_asked:
            _leave(128 + number, "asked twice to stop")
        self._is_asked = True
        self.arm(128 + number)
        self._stop()


def _leave(code: int, why: str) -> None:
    with contextlib.suppress(OSError):  # a reader that does not read must not keep us here
        os.set_blocking(STDERR, False)
        os.write(STDERR, f"streamer: {why}; leaving at once, nothing is lost\n".encode())
    os._exit(code)
