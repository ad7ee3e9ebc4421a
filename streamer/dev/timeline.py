"""Many viewers' sittings, interleaved into one stream in order of time.

Two ways of arriving:

- *history*: sittings begin as a Poisson process over days; after one, a viewer stays away for
  hours, then comes back in the proportion of their activity.
- *live*: a constant number of viewers is active; whoever leaves is replaced at once. Only the
  order matters, the dates are the clock's, so a sitting of two hours passes in seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush, heapreplace
from typing import Final, NamedTuple

from streamer.dev.sittings import SITTING_S, Happening, SittingWriter
from streamer.dev.viewers import Audience, Draw

REST_S: Final = 4 * 3_600.0
"""How long a viewer stays away, at least, after a sitting of a history."""
MAX_PICKS: Final = 16


class Moment(NamedTuple):
    """One event in its place: `time_s` since the beginning, never decreasing."""

    time_s: float
    viewer: int
    happening: Happening


class Sitting:
    """A sitting under way."""

    __slots__ = ("begin_s", "position", "script", "viewer")

    def __init__(self, begin_s: float, viewer: int, script: list[Happening]) -> None:
        self.begin_s = begin_s
        self.viewer = viewer
        self.script = script
        self.position = 0


class Timeline:
    """The sittings under way; nobody is in two at once."""

    def __init__(
        self, writer: SittingWriter, audience: Audience, draw: Draw, rest_s: float
    ) -> None:
        self._writer = writer
        self._audience = audience
        self._draw = draw
        self._rest_s = rest_s
        self._busy: set[int] = set()
        self._resting: deque[tuple[float, int]] = (
            deque()
        )  # in order of time: rests are equally long
        self._heap: list[tuple[float, int, Sitting]] = []
        self._n_begun = 0

    @property
    def next_s(self) -> float:
        """When the next event happens; infinity if no sitting is under way."""
        return self._heap[0][0] if self._heap else math.inf

    def begin(self, begin_s: float) -> None:
        """Let someone who is free sit down at `begin_s`; nothing happens when nobody is."""
        while self._resting and self._resting[0][0] <= begin_s:
            self._busy.discard(self._resting.popleft()[1])
        viewer = self._pick_free()
        if viewer is None:
            return
        self._busy.add(viewer)
        sitting = Sitting(begin_s, viewer, self._writer.write(viewer))
        self._n_begun += 1
        # The running number decides ties, so that equal times are ordered alike in every run.
        heappush(self._heap, (begin_s + sitting.script[0].offset_s, self._n_begun, sitting))

    def step(self) -> tuple[Moment, bool]:
        """Return the next event, and whether it ends its sitting; needs one under way."""
        time_s, number, sitting = self._heap[0]
        moment = Moment(time_s, sitting.viewer, sitting.script[sitting.position])
        sitting.position += 1
        if sitting.position < len(sitting.script):
            next_s = sitting.begin_s + sitting.script[sitting.position].offset_s
            heapreplace(self._heap, (next_s, number, sitting))
            return moment, False
        heappop(self._heap)
        self._resting.append((time_s + self._rest_s, sitting.viewer))
        return moment, True

    def _pick_free(self) -> int | None:
        n_viewers = len(self._audience.activity)
        if len(self._busy) >= n_viewers:
            return None
        for _ in range(MAX_PICKS):
            viewer = self._audience.pick_viewer(self._draw)
            if viewer not in self._busy:
                return viewer
        first = int(self._draw() * n_viewers)
        rotated = ((first + step) % n_viewers for step in range(n_viewers))
        return next(viewer for viewer in rotated if viewer not in self._busy)


def history_moments(
    writer: SittingWriter, audience: Audience, draw: Draw, sittings_per_s: float
) -> Iterator[Moment]:
    """Yield events without end; sittings begin at random, `sittings_per_s` on average."""
    timeline = Timeline(writer, audience, draw, rest_s=REST_S)
    arrival_s = 0.0
    while True:
        while arrival_s <= timeline.next_s:
            timeline.begin(arrival_s)
            arrival_s -= math.log(1.0 - draw()) / sittings_per_s
        yield timeline.step()[0]


def live_moments(
    writer: SittingWriter, audience: Audience, draw: Draw, n_active: int
) -> Iterator[Moment]:
    """Yield events without end, of `n_active` viewers at any time (at most all of them).

    The first ones arrive within a quarter of a sitting, so that they do not all browse at once.
    """
    timeline = Timeline(writer, audience, draw, rest_s=0.0)
    for number in range(n_active):
        timeline.begin(number / n_active * SITTING_S / 4)
    while True:
        moment, is_last = timeline.step()
        yield moment
        if is_last:
            timeline.begin(moment.time_s)
