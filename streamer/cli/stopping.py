"""Ctrl-C and SIGTERM as a wish to stop at the next good place."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_flag() -> Iterator[list[int]]:
    """Yield a list that becomes non-empty by the first signal; a second one acts as usual."""
    stopped: list[int] = []
    previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def stop(number: int, _frame: FrameType | None) -> None:
        stopped.append(number)
        restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        restore()
