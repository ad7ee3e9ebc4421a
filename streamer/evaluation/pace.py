"""A limit on how fast something is done, so that looking does not hurt serving."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Holds a caller back to so many a second, from its first call on."""

    def __init__(
        self,
        per_second: float | None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Limit to `per_second`; None does not limit."""
        self.per_second = per_second
        self._now, self._sleep = now, sleep
        self._free_at: float | None = None

    def spend(self, n: int) -> None:
        """Account for the next `n`, after waiting until the ones before are paid for.

        Idle time is not saved up: after a pause the rate is what it was.
        """
        if self.per_second is None:
            return
        now = self._now()
        if self._free_at is not None and self._free_at > now:
            self._sleep(self._free_at - now)
            now = self._free_at
        self._free_at = now + n / self.per_second
